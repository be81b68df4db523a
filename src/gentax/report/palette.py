"""The colours of a page, once for light and once for dark. Every text colour meets WCAG AA (4.5 to 1) on its ground.

Loss is orange and gain is blue, a pair that the common kinds of colour blindness keep apart; the sign is also written
in every cell, so colour never says anything alone.
"""

from __future__ import annotations

STEPS = (1.0, 5.0, 10.0, 20.0)  # points at which a cell of the heat map takes the next shade

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


def shade(drop: float) -> str:
    """Return the colour name of a cell that lost `drop` points (negative is a gain)."""
    step = sum(abs(drop) >= limit for limit in STEPS)
    return f"{'loss' if drop > 0 else 'gain'}{step}" if step else "card"


def variables(colours: dict[str, str]) -> str:
    """Return the colours as CSS custom properties."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.1, 'contrast ratio')."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
