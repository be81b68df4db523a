"""How results are shown and kept: printed as a table, written as JSON, as a pandas frame, CSV or Parquet.

A result says its rows with values of any kind. In frames and files an estimate becomes three columns, `name`,
`name_low` and `name_high`; what is undefined is empty. Spreadsheets run text that looks like a formula, so in CSV such
text is quoted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from gentax.core.console import one_line
from gentax.core.errors import UsageError
from gentax.core.files import atomic_file
from gentax.core.imports import require

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet read text as a formula (OWASP, CSV injection)
SUFFIXES = (".csv", ".parquet")
DIGITS = 10  # significant ones that are written: sums in another order differ after the fifteenth

Row = Mapping[str, Any]


class Record:
    """A base of dataclasses with `to_json` and `from_json`. A field with `compare=False` is not written."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"arbitrary_types_allowed": True, "allow_inf_nan": False}

    def to_json(self) -> Any:
        """Return the fields as JSON values."""
        return {one.name: json_value(getattr(self, one.name)) for one in fields(self) if one.compare}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Any, where: str = "") -> Self:
        """Read what `to_json` wrote; further keys are ignored. Raises UsageError, which begins with `where`."""
        from gentax.core.settings import read_settings  # takes pydantic

        return read_settings(cls, values, where or f"a {cls.__name__.lower()}")


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, sets as sorted lists, keys as text."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {one.name: json_value(getattr(value, one.name)) for one in fields(value) if one.compare}
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value


def repr_as_str(self: object, printer: Any, _: bool) -> None:
    """Show an object in a notebook as `print` does: `_repr_pretty_ = repr_as_str` in its class.

    IPython would otherwise show every field of a result, whole episodes among them.
    """
    printer.text(str(self))


@dataclass(frozen=True)
class TextTable:
    """A table with a title; the first column is text, the others numbers.

    Columns stay whole in a narrow terminal and in a file, where the lines are simply long.
    """

    title: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]

    def lines(self) -> list[str]:
        """Return the title, the heads of the columns and the rows, one line each."""
        cells = [[one_line(str(cell)) for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(len(line[n]) for line in cells) for n in range(len(self.columns))]
        return [one_line(self.title)] + [
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            ).rstrip()
            for line in cells
        ]

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        return "\n".join(self.lines())


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
    return require("pandas", "a pandas frame").DataFrame(flat_rows(rows))


def check_table(path: Path | None) -> None:
    """Refuse a table that cannot be written, before anything is played for it. Raises UsageError."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a table is written as {' or '.join(SUFFIXES)}, by the end of its name, not as {str(path)!r}")
    if path.suffix.lower() == ".parquet":
        require("pyarrow", "a table in Parquet")


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
