"""Figures and pages of measurements that were made elsewhere; nothing is measured here."""

from gentax.report.model import ArmComparison, Curve, EpisodeSet, ForecastCheck, Report, Result
from gentax.report.page import render, write_report

__all__ = ["ArmComparison", "Curve", "EpisodeSet", "ForecastCheck", "Report", "Result", "render", "write_report"]
