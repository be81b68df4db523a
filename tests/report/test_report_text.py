"""The summary and the first screen in a terminal, and text from outside made safe to print."""

from __future__ import annotations

import io
from dataclasses import replace

import fake_report
import numpy as np
import pytest
from rich.console import Console

from gentax.core.console import one_line, visible
from gentax.metrics.statistics import Undefined
from gentax.metrics.tax import tax_report
from gentax.report import ArmResult
from gentax.report.text import dotted, duration, first_screen, notes, summary


def screen(report, width: int = 80, **settings) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, emoji=False, **settings)
    console.print(first_screen(report.results, report.domains, console))
    return out.getvalue()


def test_the_screen_shows_the_summary_then_the_matrix_in_aligned_columns():
    report = fake_report.arms()
    lines = screen(report).splitlines()
    assert max(map(len, lines)) <= 80
    for shown, line in zip(lines[1:4], summary(report.results), strict=True):
        assert shown.startswith(line.name)
        assert all(text in shown for text in (line.gain_text, line.tax_text, line.verdict_text))
    assert "lost" in lines[1]
    assert "cuts" in lines[3]
    base, random = (next(n for n, line in enumerate(lines) if line.startswith(x)) for x in ("base", "random play"))
    assert random - base == 1 + 2 * len(report.results)
    assert f"{report.results[0].tax.after['sciworld'].value:.1f}" in lines[base + 1]
    assert f"−{report.results[0].tax.drop['sciworld'].value:.1f}▼" in lines[base + 2]
    points = {tuple(n for n, c in enumerate(line) if c == ".") for line in lines[base : random + 1]}
    assert [len(columns) for columns in points] == [len(report.domains)]


def test_colour_is_used_only_where_the_terminal_has_it(monkeypatch):
    report = fake_report.arms()
    assert "\x1b" not in screen(report)
    assert "48;" in screen(report, force_terminal=True, color_system="256")
    assert "41m" in screen(report, force_terminal=True, color_system="standard")  # a loss is red, not grey
    monkeypatch.setenv("NO_COLOR", "1")
    bare = screen(report, force_terminal=True, color_system="256")
    assert "38;" not in bare
    assert "48;" not in bare


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_wide_matrix_is_continued_below(width):
    ones = np.repeat([1.0, 0.0], 32)
    names = ["sokoban", "babyai", "twx-cooking", *(f"domain-{n}" for n in range(9))]  # long names and short ones
    scores = dict.fromkeys(names, ones)
    report = replace(
        fake_report.arms(), results=(ArmResult(tax_report(names[0], scores, scores)),), domains=tuple(names)
    )
    matrix = screen(report, width).partition("success %")[2]
    assert matrix.count("50.0") == 2 * len(names)
    assert max(len(line) for line in matrix.splitlines() if "50.0" in line) <= width


def test_names_cannot_control_the_terminal():
    report = fake_report.arms()
    nasty = replace(report.results[0], arm="[bold]\x1b[31m\x07x")
    text = screen(replace(report, results=(nasty, *report.results[1:])))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]" in text  # not read as markup


def test_notes_appear_once_and_verdicts_follow_the_number_of_seeds():
    lines = notes(fake_report.arms().results)
    assert len(lines) == len(set(lines)) == 2
    assert "takes 3 training seeds or more" in lines[1]
    assert all("seeds or more" not in note for note in notes(fake_report.results(seeds=3)))
    one, three = (fake_report.results(seeds=n, arms=(("webshop", "plain"),)) for n in (1, 3))
    assert (summary(one)[0].badge, summary(three)[0].badge) == ("lost", "costs")


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
def test_invisible_characters_are_written_out(text, shown):
    assert visible(text) == shown
    visible(text).encode("utf-8")


def test_texts_are_shortened_settings_flattened_and_durations_written():
    assert one_line("a\n b\x00") == "a b⟨U+0000⟩"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert dotted({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == [("a.b", "1"), ("a.c", "{}"), ("d", "1, 2")]
    assert [duration(s) for s in (0.4, 59.6, 3599, 7384)] == ["0 s", "1 min 0 s", "59 min 59 s", "2 h 3 min"]


def test_a_baseline_whose_tax_is_undefined_is_not_said_to_have_lost_that():
    replay = fake_report.arms().results[2]
    assert "there imitation lost" in notes([replay])[0]
    (note, *_) = notes([replace(replay, baseline_tax=Undefined("the base wins nothing"))])
    assert note.endswith(").")
