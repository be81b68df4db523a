"""The first screen in a terminal: a line an arm and the matrix, in 80 columns, with and without colour."""

from __future__ import annotations

import io
from dataclasses import replace

import made_up
import numpy as np
import pytest
from rich.console import Console

from gentax.metrics.tax import tax_report
from gentax.report import Result
from gentax.report.headline import headlines, notes
from gentax.report.terminal import first_screen


def shown(report, width: int = 80, **settings) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, emoji=False, **settings)
    console.print(first_screen(report.results, report.domains, console))
    return out.getvalue()


def test_three_lines_then_the_matrix():
    report = made_up.arms()
    lines = shown(report).splitlines()
    assert max(map(len, lines)) <= 80
    for line, head in zip(lines[1:4], headlines(report.results), strict=True):
        assert line.startswith(head.name)
        assert head.gain_text in line
        assert head.tax_text in line
        assert head.verdict in line
    assert "lost" in lines[1]
    assert "cuts" in lines[3]
    base, random = (next(n for n, line in enumerate(lines) if line.startswith(x)) for x in ("base", "random play"))
    assert random - base == 1 + 2 * len(report.results)
    after = report.results[0].tax.after["sciworld"]
    assert f"{after.value:.1f}" in lines[base + 1]
    assert f"−{report.results[0].tax.drop['sciworld'].value:.1f}▼" in lines[base + 2]


def test_columns_line_up():
    report = made_up.arms()
    lines = shown(report).splitlines()
    base = next(n for n, line in enumerate(lines) if line.startswith("base"))
    block = lines[base : base + 2 + 2 * len(report.results)]
    points = [[n for n, c in enumerate(line) if c == "."] for line in block]
    assert len(set(map(tuple, points))) == 1
    assert len(points[0]) == len(report.domains)


def test_colour_only_where_there_is_any(monkeypatch):
    report = made_up.arms()
    assert "\x1b" not in shown(report)
    coloured = shown(report, force_terminal=True, color_system="256")
    assert "\x1b[" in coloured
    assert "41m" in shown(report, force_terminal=True, color_system="standard")  # a loss is red, not grey
    monkeypatch.setenv("NO_COLOR", "1")
    bare = shown(report, force_terminal=True, color_system="256")
    assert "38;5" not in bare
    assert "48;5" not in bare


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_wide_matrix_goes_on_below(width):
    """Nothing of it is left out, whatever the terminal's width."""
    ones = np.repeat([1.0, 0.0], 32)
    names = [f"domain-{n}" for n in range(12)]
    of = dict.fromkeys(names, ones)
    report = replace(made_up.arms(), results=(Result(tax_report(names[0], of, of)),), domains=tuple(names))
    text = shown(report, width)
    matrix = text[text.index("success %") :]
    assert matrix.count("50.0") == 2 * len(names)
    heads = [line for line in matrix.splitlines() if line.lstrip().startswith(("0", "1", "success"))]
    assert heads
    assert max(len(line) for line in matrix.splitlines() if "50.0" in line) <= width


def test_names_from_outside_cannot_change_the_terminal():
    report = made_up.arms()
    nasty = replace(report.results[0], arm="[bold]\x1b[31m\x07x")
    text = shown(replace(report, results=(nasty, *report.results[1:])))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]" in text  # no markup


def test_caveats_are_said_once():
    said = notes(made_up.arms().results)
    assert len(said) == len(set(said)) == 2
    assert "takes 3 training seeds or more" in said[1]
    assert all("seeds or more" not in note for note in notes(made_up.results(seeds=3)))


def test_three_seeds_are_said_of_the_method_and_one_of_the_checkpoint():
    one, three = (made_up.results(seeds=n, arms=(("webshop", "plain"),)) for n in (1, 3))
    assert headlines(one)[0].badge == "lost"
    assert headlines(three)[0].badge == "costs"
