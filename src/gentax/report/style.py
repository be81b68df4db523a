"""Colours of pages and plots, and how a matplotlib figure becomes inline SVG or a file.

Every text colour meets WCAG AA (4.5 to 1) on its background, light and dark. Loss is orange and gain is blue, which the
common kinds of colour blindness keep apart; signs are written too, so colour never carries information alone.

Figures are matplotlib `Figure` objects (no pyplot, no global state), drawn with the light palette. The same figure
gives the same bytes. Names come from outside: they are never parsed as mathematics.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from gentax.core.console import visible
from gentax.core.errors import UsageError
from gentax.core.files import atomic_file

SHADES = (1.0, 5.0, 10.0, 20.0)  # points from which a cell of the heat map takes the next shade
LINES = ("line1", "line2", "line3", "line4", "line5")  # colours of series
LIGHT = {
    "page": "#fbfaf8", "card": "#ffffff", "ink": "#1d2126", "soft": "#5b626b", "line": "#dedbd5", "faint": "#f2f0ec",
    "accent": "#1f5fa8", "loss": "#a8480c", "gain": "#1f5fa8", "fine": "#2c6b4f",
    "loss1": "#fdf1e7", "loss2": "#fbdfc8", "loss3": "#f6c199", "loss4": "#ee9f68",
    "gain1": "#edf3fa", "gain2": "#d3e3f5", "gain3": "#aecdee", "gain4": "#83b2e4",
    "line1": "#1f5fa8", "line2": "#b8560f", "line3": "#2c6b4f", "line4": "#7a4a9e", "line5": "#6b6f75",
}  # fmt: skip
DARK = {
    "page": "#14171a", "card": "#1b1f23", "ink": "#e8e6e1", "soft": "#a3a9b1", "line": "#343a41", "faint": "#22272c",
    "accent": "#7db3ee", "loss": "#f0a36c", "gain": "#7db3ee", "fine": "#7cc4a0",
    "loss1": "#2b221b", "loss2": "#45301f", "loss3": "#653f20", "loss4": "#854d1f",
    "gain1": "#1b252f", "gain2": "#1f3449", "gain3": "#234766", "gain4": "#275b87",
    "line1": "#7db3ee", "line2": "#f0a36c", "line3": "#7cc4a0", "line4": "#c7a0e6", "line5": "#a3a9b1",
}  # fmt: skip
_VARIABLES = {value: name for name, value in reversed(LIGHT.items())}
# The formats of plot files, with the metadata that would otherwise differ from one run to the next.
FORMATS: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}


def shade(drop: float) -> str:
    """Return the colour name of a cell that lost `drop` points (negative is a gain)."""
    step = sum(abs(drop) >= limit for limit in SHADES)
    return f"{'loss' if drop > 0 else 'gain'}{step}" if step else "card"


def css_variables(colours: dict[str, str]) -> Markup:
    """Return a palette as CSS custom properties."""
    return Markup("".join(f"--{name}:{value};" for name, value in colours.items()))


def new_figure(width: float, height: float) -> tuple[Figure, Panel]:
    """Return a figure of that many inches with one panel in the style of the page."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, new_panel(figure)


def new_panel(figure: Figure, *place: int) -> Panel:
    """Add a panel in the style of the page; `place` is (rows, columns, number) where there are several."""
    panel: Panel = figure.add_subplot(*place)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(LIGHT["line"])
    panel.tick_params(which="both", colors=LIGHT["soft"], length=0, labelsize=9)
    panel.set_axisbelow(True)
    return panel


def inline_svg(figure: Figure, title: str) -> Markup:
    """Return a figure as one `<svg>` element with a title for screen readers, without links or metadata.

    Colours become the page's CSS variables, so one drawing serves light and dark. Text stays text, in the page's font.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gentax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=FORMATS[".svg"])
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'style="[^"]*"', _use_variables, text)
    # Several figures share a page: their ids get a prefix from what they show.
    prefix = "f" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\1{prefix}-", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    head = f'<svg viewBox="{box.group(1)}" role="img" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + f"<title>{escape(visible(title))}</title>" + text[text.index(">") + 1 :])


@contextmanager
def any_script() -> Iterator[None]:
    """Draw a box, without a warning, for a letter that the font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def check_plot_path(path: str | Path | None) -> None:
    """Refuse a file that no plot can be written to, before anything is played for it. Raises UsageError."""
    if path is None:
        return
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"a plot is written as {', '.join(FORMATS)}, by the end of its name, not as {str(path)!r}")
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder; --plot takes a file")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG, PNG or PDF, whole or not at all. Raises UsageError for another suffix."""
    check_plot_path(path)
    suffix = Path(path).suffix.lower()
    with atomic_file(path) as aside, matplotlib.rc_context({"svg.hashsalt": "gentax"}), any_script():
        for panel in figure.axes:
            panel.set_facecolor(LIGHT["page"])
        figure.savefig(aside, format=suffix[1:], dpi=150, facecolor=LIGHT["page"], metadata=FORMATS[suffix])


def _use_variables(style: re.Match[str]) -> str:
    named = re.sub(
        r"#[0-9a-f]{6}",
        lambda m: f"var(--{_VARIABLES[m.group()]})" if m.group() in _VARIABLES else m.group(),
        style.group(),
    )
    return re.sub(r"font: (\d[\d.]*px) [^;\"]*", r"font-size: \1", named)
