"""Rows of results as pandas frames, CSV and Parquet."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.core.results import to_pandas, write_table
from gentax.metrics.statistics import Estimate, Undefined
from gentax.metrics.tax import tax_report

ESTIMATE = Estimate(1 / 3, 0.1, 0.5, "tasks", "fraction", 9)
ROWS = [{"name": "=1+1", "tax": Undefined("no gain")}, {"name": "b", "tax": ESTIMATE, "steps": ("a", "b")}]
FLAT = {"name": "b", "tax": 0.3333333333, "steps": "a, b", "tax_low": 0.1, "tax_high": 0.5}


def test_an_estimate_has_three_columns_and_what_is_undefined_is_empty():
    pytest.importorskip("pandas")
    first, second = to_pandas(ROWS).to_dict("records")
    assert first["name"] == "=1+1"
    assert all(value is None or np.isnan(value) for key, value in first.items() if key != "name")
    assert second == FLAT


def test_csv_and_parquet_hold_the_same_and_a_formula_is_quoted_in_csv(tmp_path):
    write_table(tmp_path / "t.csv", ROWS)
    with (tmp_path / "t.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {"name": "'=1+1", "tax": "", "steps": "", "tax_low": "", "tax_high": ""}
    assert second == {key: str(value) for key, value in FLAT.items()}
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "t.parquet", ROWS)
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist()[1] == FLAT


def test_a_missing_package_and_another_suffix_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r'a pandas frame needs pandas: pip install "gentax\[tables\]"'):
        to_pandas(ROWS)
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "t.xlsx", ROWS)


def test_a_tax_report_says_every_measure_once():
    pytest.importorskip("pandas")
    init = {"home": np.array([0.0, 0.0, 1.0, 0.0] * 4), "away": np.array([1.0, 1.0, 0.0, 1.0] * 4)}
    after = {"home": np.array([0.0, 0.0, 1.0, 0.0] * 4), "away": np.array([1.0, 0.0, 0.0, 1.0] * 4)}
    frame = tax_report("home", init, after).to_pandas().set_index(["measure", "domain"])
    assert frame.index.is_unique
    report = tax_report("home", init, after)
    assert frame.loc[("drop", "away"), ["value", "low", "high"]].tolist() == pytest.approx(
        [report.drop["away"].value, report.drop["away"].low, report.drop["away"].high]
    )
    assert frame.loc[("drop", "away"), "p_corrected"] == pytest.approx(report.drop_p["away"])
    assert frame.xs("tax_rate")["undefined"].tolist() == [report.undefined["tax_rate"]]
