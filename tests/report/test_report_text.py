"""Nothing in a text from outside is invisible or turns other text round; every colour can be read."""

import pytest

from gentax.report.palette import DARK, LIGHT, STEPS, contrast, shade
from gentax.report.text import dotted, duration, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x00\x1b[31m\x7f", "⟨U+0000⟩⟨U+001B⟩[31m⟨U+007F⟩"),
        ("\u202egnp.exe\u2066", "⟨U+202E⟩gnp.exe⟨U+2066⟩"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\r\u2028\x85", "⟨U+000D⟩⟨U+2028⟩⟨U+0085⟩"),
        ("שלום é 漢 😀", "שלום é 漢 😀"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown
    visible(text).encode("utf-8")


def test_one_line():
    assert one_line("a\n b\x00") == "a b⟨U+0000⟩"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"


def test_settings_are_flattened():
    assert dotted({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == [("a.b", "1"), ("a.c", "{}"), ("d", "1, 2")]


def test_durations():
    assert [duration(s) for s in (0.4, 59.6, 3599, 7384)] == ["0 s", "1 min 0 s", "59 min 59 s", "2 h 3 min"]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_can_be_read_on_every_ground(colours):
    shades = [f"{side}{i}" for side in ("loss", "gain") for i in range(1, 1 + len(STEPS))]
    for ground in ("page", "card", "faint", *shades):
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground
    for text in ("soft", "accent", "loss", "gain", "fine", "line1", "line2", "line3", "line4", "line5"):
        assert contrast(colours[text], colours["page"]) >= 4.5, text
    assert contrast(colours["soft"], colours["faint"]) >= 4.5


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_shades():
    assert [shade(x) for x in (0.4, 1, -1, 12, -40)] == ["card", "loss1", "gain1", "loss3", "gain4"]
