"""Results as tables for other tools: rows of plain values as a pandas frame, a CSV file or a Parquet file.

A result says its rows with values of any kind. Here an estimate becomes three columns, `name`, `name_low` and
`name_high`; what is undefined is empty. Spreadsheets run text that looks like a formula, so in CSV such text is quoted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentax.core.errors import UsageError
from gentax.core.files import atomic_file
from gentax.core.imports import require

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet read text as a formula (OWASP, CSV injection)
EXTRA = "gentax[tables]"
SUFFIXES = (".csv", ".parquet")
DIGITS = 10  # significant ones that are written: sums in another order differ after the fifteenth

Row = Mapping[str, Any]


class Tabular:
    """A base of results that have rows."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of values, estimates among them, for each thing measured."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return the rows as a `pandas.DataFrame`; an estimate has three columns. Raises UsageError without pandas."""
        return to_pandas(self.rows())


def flat_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows of text, numbers and None that all have the same keys, in order of their first appearance."""
    flat = [{name: value for key, item in row.items() for name, value in _cells(key, item)} for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name) for name in names} for row in flat]


def _cells(key: str, item: Any) -> Iterable[tuple[str, Any]]:
    if all(hasattr(item, part) for part in ("value", "low", "high")):  # an estimate
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high")):
            yield key + end, _plain(getattr(item, part))
    else:
        yield key, _plain(item)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value) if value or isinstance(value, str) else None  # an undefined measure is false


def to_pandas(rows: Iterable[Row]) -> Any:
    """Return rows as a `pandas.DataFrame`. Raises UsageError where pandas is missing."""
    return require("pandas", "a pandas frame", EXTRA).DataFrame(flat_rows(rows))


def check_table(path: Path | None) -> None:
    """Refuse a table that cannot be written, before anything is played for it. Raises UsageError."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a table is written as {' or '.join(SUFFIXES)}, by the end of its name, not as {str(path)!r}")
    if path.suffix.lower() == ".parquet":
        require("pyarrow", "a table in Parquet", EXTRA)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV or Parquet, by the end of the name, whole or not at all. Raises UsageError."""
    check_table(path)
    flat = flat_rows(rows)
    with atomic_file(path) as aside:
        if path.suffix.lower() == ".csv":
            cells = ([quote_formula(v) if isinstance(v, str) else v for v in row.values()] for row in flat)
            aside.write_text(csv_text(list(flat[0]) if flat else [], cells), encoding="utf-8")
        else:
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), aside)


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV, with a line of column names; cells are taken as they are."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def quote_formula(text: str) -> str:
    """Return text that no spreadsheet reads as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
