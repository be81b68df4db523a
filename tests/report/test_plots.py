"""Plots that stand alone: every kind of file, the same bytes again, names that cannot do harm, labels apart."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from gentax.core import UsageError
from gentax.metrics.diversity import MEASURES
from gentax.metrics.statistics import Estimate
from gentax.report import plots
from gentax.report.labels import Label, place
from gentax.report.plots import Point, check_picture, plot_axes, plot_matrices

HOSTILE = "x:$\\frac{a$<b>&\u202e漢"
BEGINS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


def at(value: float, half: float = 1.0) -> Estimate:
    return Estimate(value, value - half, value + half, "tasks", "steps", 9)


POINTS = [
    Point("sokoban", at(50), at(26)),
    Point("sokoban + distract", at(400), at(28), "sokoban"),
    Point(HOSTILE, at(900, 1000), at(10)),
]


@pytest.mark.parametrize("suffix", BEGINS)
def test_every_kind_of_file_and_the_same_bytes_again(tmp_path, suffix):
    files = [tmp_path / f"{name}{suffix}" for name in ("a", "b", "c", "d")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for axes_file, matrix_file in (files[:2], files[2:]):
            plot_axes(POINTS, axes_file, "characters", "steps")
            plot_matrices(["sokoban", HOSTILE], {"$a_$": np.array([[0, 0.5], [2.5, 0]])}, matrix_file)
    assert all(file.read_bytes().startswith(BEGINS[suffix]) for file in files)
    assert files[0].read_bytes() == files[2].read_bytes()
    assert files[1].read_bytes() == files[3].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(files)


def texts(monkeypatch) -> list[str]:
    """Everything that is written on the next figures, as it is drawn."""
    drawn = []
    save = Figure.savefig

    def spy(figure, *args, **settings):
        save(figure, *args, **settings)
        drawn.extend(t.get_text() for panel in figure.axes for t in panel.findobj(lambda a: hasattr(a, "get_text")))

    monkeypatch.setattr(Figure, "savefig", spy)
    return drawn


def test_a_wrapped_domain_is_named_by_its_wrapper_and_tied_by_an_arrow(tmp_path, monkeypatch):
    drawn = texts(monkeypatch)
    plot_axes(POINTS, tmp_path / "a.svg", "characters", "steps")
    assert {"sokoban", "+ distract", "characters", "steps"} <= set(drawn)
    assert "sokoban + distract" not in drawn
    with_arrow, without = tmp_path / "a.svg", tmp_path / "b.svg"
    plot_axes([POINTS[0], Point("sokoban + distract", at(400), at(28)), POINTS[2]], without, "characters", "steps")
    assert with_arrow.read_text().count("FancyArrowPatch") + with_arrow.read_text().count('id="patch_') > (
        without.read_text().count("FancyArrowPatch") + without.read_text().count('id="patch_')
    )


def test_names_from_outside_are_visible_and_no_mathematics(tmp_path, monkeypatch):
    drawn = texts(monkeypatch)
    plot_axes(POINTS, tmp_path / "a.svg", "characters", "steps")
    plot_matrices(["a", HOSTILE], {"m": np.zeros((2, 2))}, tmp_path / "m.svg")
    assert "x:$\\frac{a$<b>&⟨U+202E⟩漢" in drawn[: len(drawn) // 2]
    assert "x:$\\frac{a$<b>&⟨U+202E⟩漢" in drawn[len(drawn) // 2 :]
    assert HOSTILE not in drawn


def test_every_number_of_a_matrix_is_written_but_those_on_the_diagonal(tmp_path, monkeypatch):
    drawn = texts(monkeypatch)
    plot_matrices(["a", "b"], {"m": np.array([[0.77, 0.25], [1.5, 0.77]])}, tmp_path / "m.svg")
    assert {"0.25", "1.50"} <= set(drawn)
    assert "0.77" not in drawn


@pytest.mark.parametrize(
    "names", [["a", "b"], ["sokoban", "a domain of a long name:and-level"], list("abc"), list("abcdefgh")]
)
def test_titles_of_matrices_are_whole_and_cover_nothing(names, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.append(figure))
    plot_matrices(
        names, {f"{m}: {about}": np.zeros((len(names),) * 2) for m, about in MEASURES.items()}, tmp_path / "m.svg"
    )
    (figure,) = saved
    figure.draw_without_rendering()
    boxes = [panel._left_title.get_window_extent() for panel in figure.axes]
    assert [panel.get_title("left").replace("\n", " ") for panel in figure.axes] == [
        f"{m} {about}" for m, about in MEASURES.items()
    ]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.overlaps(panel.bbox) for panel in figure.axes)
    assert figure.get_size_inches()[0] <= plots.WIDEST  # text of 9 points is legible at the width of a phone


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json", ".svg"])
def test_a_file_of_no_known_kind_is_refused_in_one_line(tmp_path, name):
    for refuse in (
        lambda path: check_picture(path),
        lambda path: plot_axes(POINTS, path, "x", "y"),
        lambda path: plot_matrices(["a", "b"], {"m": np.zeros((2, 2))}, path),
    ):
        with pytest.raises(UsageError, match=r"^a plot is written as \.svg, \.png, \.pdf[^\n]+$"):
            refuse(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_is_refused(tmp_path):
    check_picture(None)
    (tmp_path / "f.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_picture(tmp_path / "f.svg")
    with pytest.raises(UsageError, match="text in them"):
        plot_axes([Point("mute", at(0), at(5))], tmp_path / "a.svg", "x", "y")
    with pytest.raises(UsageError, match="at least one"):
        plot_matrices(["a"], {}, tmp_path / "a.svg")


def test_names_cover_neither_one_another_nor_other_points():
    figure = Figure(figsize=(7, 5), dpi=100)
    panel = figure.add_subplot()
    places = [(50 + 3 * i, 25 + (i * 7) % 5) for i in range(8)]
    panel.plot(*zip(*places, strict=True), "o")
    panel.set(xlim=(20, 110), ylim=(15, 40))
    place(panel, [Label(f"domain-{i}", at(x, 0), at(y, 0), "black") for i, (x, y) in enumerate(places)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts if text.get_text()]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        inside = [n for n, (x, y) in enumerate(panel.transData.transform(places)) if box.contains(x, y)]
        assert inside == []
