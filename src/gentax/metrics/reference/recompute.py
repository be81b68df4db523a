"""Recomputes everything that a paper derives from its cells, and counts what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from gentax.metrics.reference.claims import Claim, claims
from gentax.metrics.reference.figures import columns
from gentax.metrics.reference.judge import Column, Status
from gentax.metrics.reference.rows import RowMeasures, measured
from gentax.metrics.reference.types import Published


@dataclass(frozen=True)
class Recomputed:
    """A paper's rows under gentax's measures, its printed figures judged, and its claims counted."""

    study: Published
    rows: tuple[RowMeasures, ...]
    columns: tuple[Column, ...]
    claims: tuple[Claim, ...]

    @property
    def figures(self) -> Counter[Status]:
        """How many printed figures came to each end."""
        return Counter(j.status for column in self.columns for j in column.judgements)

    @property
    def summary(self) -> str:
        """Say in a line what became of the figures and the claims."""
        counts = ((sum(c.values()), c) for c in (self.figures, Counter(claim.status for claim in self.claims)))
        said = [
            f"{total} {what}: " + ", ".join(f"{found[status]} {status.value}" for status in Status if found[status])
            for what, (total, found) in zip(("printed figures", "claims"), counts, strict=True)
        ]
        return f"arXiv {self.study.key}. " + ". ".join(said) + "."

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.study.key,
            "citation": self.study.citation,
            "note": self.study.note,
            "counts": {status.value: self.figures[status] for status in Status},
            "columns": [column.to_json() for column in self.columns],
            "rows": [row.to_json() for row in self.rows],
            "claims": [claim.to_json() for claim in self.claims],
        }


def recompute(study: Published) -> Recomputed:
    """Recompute the rows, figures and claims of `study`."""
    return Recomputed(study, measured(study), columns(study), claims(study))
