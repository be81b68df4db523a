"""Figures and pages of measurements that were made elsewhere; nothing is measured here."""

from typing import Any

from gentax.report.model import ArmComparison, Curve, EpisodeSet, ForecastCheck, Report, Result

__all__ = ["ArmComparison", "Curve", "EpisodeSet", "ForecastCheck", "Report", "Result", "render", "write_report"]


def __getattr__(name: str) -> Any:
    """Load the pages on first use: they bring Matplotlib."""
    if name in ("render", "write_report"):
        from gentax.report import page

        return getattr(page, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
