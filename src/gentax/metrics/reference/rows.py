"""What every printed row comes to under gentax's own measures: tax, mean drop and tax rate, with their rounding.

The measures are those of `measure.tax`, here of printed cells, so the ranges cover rounding alone. The papers print
no spread, so nothing can be said of seeds and tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gentax.metrics.reference.metrics import Metric, of_points
from gentax.metrics.reference.ranges import Cells, Range, Terms, Values
from gentax.metrics.reference.types import Published, Row


def _tax_terms(values: Values) -> Terms:
    init, after = (values[role].sum(0, keepdims=True) for role in ("init", "after"))
    return init - after, init


def _rate_terms(values: Values) -> Terms:
    return (values["init"] - values["after"]).mean(0, keepdims=True), values["gain"]


TAX = Metric("tax", "1 − Σafter / Σinit", ("init", "after"), _tax_terms)
MEAN_DROP = of_points("mean drop", "mean of init − after", "init after", lambda i, a: i - a)
TAX_RATE = Metric("tax rate", "mean drop / ΔID", ("init", "after", "gain"), _rate_terms)


@dataclass(frozen=True)
class RowMeasures:
    """One printed row under gentax's measures, over the targets that have a number."""

    row: Row
    tax: Range | None  # a fraction
    mean_drop: Range | None  # points
    tax_rate: Range | None  # points lost on a target per point gained at home; None when the gain may be 0

    def to_json(self) -> dict[str, Any]:
        row = {key: getattr(self.row, key) for key in ("policy", "source", "arm", "rl_steps", "delta_id", "table")}
        measures = {key: getattr(self, key) for key in ("tax", "mean_drop", "tax_rate")}
        return {
            **row,
            "ood": dict(self.row.ood),
            "missing": list(self.row.missing),
            **{key: found.to_json() if found else None for key, found in measures.items()},
        }


def measured(study: Published) -> tuple[RowMeasures, ...]:
    """Return the measures of every row, in the order of the paper's tables."""
    return tuple(_measured(row) for row in study.rows)


def _measured(row: Row) -> RowMeasures:
    roles = {"init": tuple(row.init[t] for t in row.targets), "after": tuple(row.ood.values())}
    cells = Cells(row.targets, roles, {"gain": row.delta_id}).present()
    return RowMeasures(row, *(metric.range(cells) for metric in (TAX, MEAN_DROP, TAX_RATE)))
