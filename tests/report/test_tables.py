"""Tables as CSV: what is measured, a value a cell, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from urllib.parse import unquote

import made_up
import pytest

from gentax.report import render
from gentax.report.model import random_success
from gentax.report.tables import Table, tables


def read(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_every_value_has_its_limits_beside_it():
    report = made_up.arms()
    made = tables(report)
    assert set(made) == {"taxes", "matrix", "arms", "domains"}
    row = next(r for r in read(made["matrix"]) if (r["arm"], r["domain"]) == ("imitation", "sciworld"))
    drop = report.results[0].tax.drop["sciworld"]
    assert [float(row[f"drop_points{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
        [drop.value, drop.low, drop.high], rel=1e-4
    )
    assert float(row["random_percent"]) == pytest.approx(random_success(report.results)["sciworld"].value, rel=1e-4)
    roles = {r["domain"]: r["role"] for r in read(made["matrix"]) if r["arm"] == "imitation+replay"}
    assert roles == {"sokoban": "source", "sciworld": "target", "webshop": "touched target", "alfworld": "target"}
    taxes = {r["arm"]: r for r in read(made["taxes"])}
    assert taxes["imitation"]["tax_untouched"] == ""
    assert float(taxes["imitation+replay"]["tax_untouched"]) == pytest.approx(
        report.results[2].tax.tax_untouched.value, rel=1e-4
    )
    assert taxes["rl"]["tasks_targets"] == "384"


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_looks_like_a_formula_is_quoted(text):
    written = Table("t", ("name", "drop"), [(text, -1.5)]).csv().splitlines()[1]
    (row,) = csv.reader([written])
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert row[1] == "-1.5"  # a number stays one


def test_names_with_commas_quotes_and_lines_stay_in_their_cell():
    rows = [('a,"b"\nc', 1), ("", None)]
    assert list(csv.reader(io.StringIO(Table("t", ("x", "y"), rows).csv())))[1:] == [['a,"b"\nc', "1"], ["", ""]]


def test_the_page_holds_the_tables():
    report = made_up.arms()
    page = render(report)
    for name, table in tables(report).items():
        link = page.split(f'download="{name}.csv" href="data:text/csv;charset=utf-8,')[1].split('"')[0]
        assert unquote(link) == table.csv()


def test_an_arm_called_like_a_formula_is_harmless_in_the_page():
    report = made_up.arms()
    nasty = replace(report.results[0], arm='="><script>alert(1)</script>')
    page = render(replace(report, results=(nasty, *report.results[1:])))
    assert "<script>alert" not in page
    assert "%27%3D%22%22%3E%3Cscript" in page  # quoted, in the CSV
