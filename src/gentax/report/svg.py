"""A matplotlib figure as an SVG element to put in a page.

It is drawn with the colours of the light palette, which are then replaced by the page's CSS variables: one drawing
serves light and dark. Text stays text, in the page's font. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from gentax.report.palette import LIGHT
from gentax.report.text import visible

RC = {"svg.fonttype": "none", "svg.hashsalt": "gentax", "axes.unicode_minus": True}
NAMES = {value: name for name, value in reversed(LIGHT.items())}


def inline(figure: Figure, title: str) -> Markup:
    """Return `figure` as one `<svg>` element, titled for people who do not see it, without links or metadata."""
    buffer = io.StringIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'style="[^"]*"', _themed, text)
    # Several figures share a page: ids are told apart by what the figure shows.
    mark = "f" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\1{mark}-", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    head = f'<svg viewBox="{box.group(1)}" role="img" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + f"<title>{escape(visible(title))}</title>" + text[text.index(">") + 1 :])


def _themed(style: re.Match[str]) -> str:
    named = re.sub(
        r"#[0-9a-f]{6}", lambda m: f"var(--{NAMES[m.group()]})" if m.group() in NAMES else m.group(), style.group()
    )
    return re.sub(r"font: (\d[\d.]*px) [^;\"]*", r"font-size: \1", named)
