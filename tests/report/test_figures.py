"""Plots in every format, reproducible, with labels that do not overlap; colours that can be read."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from gentax.core import UsageError
from gentax.metrics.diversity import MEASURES
from gentax.metrics.statistics import Estimate
from gentax.report import figures
from gentax.report.figures import DomainPoint, axes_plot, line_style, matrices_plot, tradeoff_plot
from gentax.report.style import DARK, FORMATS, LIGHT, LINES, SHADES, check_plot_path, save, shade

HOSTILE = "x:$\\frac{a$<b>&\u202e漢"
BEGINS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


def est(value: float, half: float = 1.0) -> Estimate:
    return Estimate(value, value - half, value + half, "tasks", "steps", 9)


POINTS = [
    DomainPoint("sokoban", est(50), est(26)),
    DomainPoint("sokoban + distract", est(400), est(28), "sokoban"),
    DomainPoint(HOSTILE, est(900, 1000), est(10)),
]


def texts(figure: Figure) -> set[str]:
    """Everything that is written on a figure."""
    return {text.get_text() for panel in figure.axes for text in panel.findobj(lambda a: hasattr(a, "get_text"))}


@pytest.mark.slow
def test_figures_are_reproducible_in_every_format(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir()
            drawn = {
                "axes": axes_plot(POINTS, "characters", "steps"),
                "matrices": matrices_plot(["sokoban", HOSTILE], {"$a_$": np.array([[0, 0.5], [2.5, 0]])}),
            }
            for name, figure in drawn.items():
                for suffix in FORMATS:
                    save(figure, folder / f"{name}{suffix}")
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == 2 * len(FORMATS)
    for file in files:
        assert file.read_bytes().startswith(BEGINS[file.suffix])
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_wrapped_domain_is_named_by_its_wrapper_and_an_arrow_leads_to_it():
    drawn = axes_plot(POINTS, "characters", "steps")
    assert {"sokoban", "+ distract", "characters", "steps"} <= texts(drawn)
    assert "sokoban + distract" not in texts(drawn)
    without = axes_plot(
        [POINTS[0], DomainPoint("sokoban + distract", est(400), est(28)), POINTS[2]], "characters", "steps"
    )
    assert "sokoban + distract" in texts(without)
    assert [sum(bool(text.arrow_patch) for text in figure.axes[0].texts if hasattr(text, "arrow_patch"))
            for figure in (drawn, without)] == [1, 0]  # fmt: skip


def test_names_are_made_visible_and_not_parsed_as_mathtext():
    for figure in (axes_plot(POINTS, "x", "y"), matrices_plot(["a", HOSTILE], {"m": np.zeros((2, 2))})):
        assert "x:$\\frac{a$<b>&⟨U+202E⟩漢" in texts(figure)
        assert HOSTILE not in texts(figure)


def test_a_matrix_shows_every_number_off_the_diagonal():
    drawn = texts(matrices_plot(["a", "b"], {"m": np.array([[0.77, 0.25], [1.5, 0.77]])}))
    assert {"0.25", "1.50"} <= drawn
    assert "0.77" not in drawn


@pytest.mark.parametrize("names", [["a", "b"], ["sokoban", "a domain of a long name:and-level"], list("abcdefgh")])
def test_titles_of_matrices_are_whole_and_overlap_nothing(names):
    titles = {f"{m}: {about}": np.zeros((len(names),) * 2) for m, about in MEASURES.items()}
    figure = matrices_plot(names, titles)
    figure.draw_without_rendering()
    boxes = [panel._left_title.get_window_extent() for panel in figure.axes]
    assert [panel.get_title("left").replace("\n", " ") for panel in figure.axes] == [
        f"{m} {about}" for m, about in MEASURES.items()
    ]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in [*boxes[:i], *(panel.bbox for panel in figure.axes)])
    assert figure.get_size_inches()[0] <= figures.WIDEST  # text of 9 points is legible at the width of a phone


def test_labels_cover_neither_one_another_nor_points():
    places = [(50 + 3 * i, 25 + (i * 7) % 5) for i in range(8)]
    figure = axes_plot([DomainPoint(f"domain-{i}", est(x, 0), est(y, 0)) for i, (x, y) in enumerate(places)], "x", "y")
    panel = figure.axes[0]
    boxes = [text.get_window_extent() for text in panel.texts if text.get_text().startswith("domain")]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(x, y) for x, y in panel.transData.transform(places))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json", ".svg"])
def test_an_unknown_format_is_refused_in_one_line(tmp_path, name):
    for refuse in (check_plot_path, lambda path: save(Figure(), path)):
        with pytest.raises(UsageError, match=r"^a plot is written as \.svg, \.png, \.pdf[^\n]+$"):
            refuse(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_undrawable_input_is_refused(tmp_path):
    check_plot_path(None)
    (tmp_path / "f.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_plot_path(tmp_path / "f.svg")
    with pytest.raises(UsageError, match="text in them"):
        axes_plot([DomainPoint("mute", est(0), est(5))], "x", "y")
    with pytest.raises(UsageError, match="at least one"):
        matrices_plot(["a"], {})


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.1, 'contrast ratio')."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_has_enough_contrast_on_every_background(colours):
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    shades = [f"{side}{i}" for side in ("loss", "gain") for i in range(1, 1 + len(SHADES))]
    pairs = [("ink", ground) for ground in ("page", "card", "faint", *shades)] + [("soft", "faint")]
    pairs += [(text, "page") for text in ("soft", "accent", "loss", "gain", "fine", *LINES)]
    assert [pair for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []


# What red, green and blue (linear) become for people without one kind of cone: Machado, Oliveira and Fernandes 2009,
# severity 1.
COLOUR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def seen(colour: str, matrix) -> np.ndarray:
    """Return a colour `#rrggbb` as such a person sees it, in CIE L*a*b* (D65)."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(matrix @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", COLOUR_BLIND)
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_loss_and_gain_are_told_apart_by_colour_blind_readers(colours, kind):
    matrix = np.array(COLOUR_BLIND[kind])
    for one, other in (("loss", "gain"), ("line1", "line2"), *((f"loss{n}", f"gain{n}") for n in (2, 3, 4))):
        assert np.linalg.norm(seen(colours[one], matrix) - seen(colours[other], matrix)) > 20, (one, other)


def test_lines_are_told_apart_without_colour():
    styles = [line_style(n) for n in range(25)]
    assert len(set(styles)) == 25
    assert len({dashes for _, dashes in styles[:5]}) == 5


def test_the_frontier_joins_undominated_points():
    points = [
        ("a", est(5), est(0.1, 0.01)),
        ("b", est(9), est(0.3, 0.01)),
        ("worse", est(4), est(0.2, 0.01)),
    ]
    (line,) = (line for line in tradeoff_plot(points, 5).axes[0].lines if line.is_dashed())
    assert list(line.get_xdata()) == [5, 9]
    assert list(line.get_ydata()) == pytest.approx([10, 30])
    many = [*points, *(("worse", est(3), est(0.2 + n / 100, 0.01)) for n in range(figures.LABELLED))]
    assert {"a", "b"} <= texts(tradeoff_plot(many, 5))
    assert "worse" not in texts(tradeoff_plot(many, 5))


def test_shades_of_a_drop():
    assert [shade(x) for x in (0.4, 1, -1, 12, -40)] == ["card", "loss1", "gain1", "loss3", "gain4"]
