"""Figures and pages of measurements that were made elsewhere; nothing is measured here."""

from gentax.report.model import ArmComparison, Curve, EpisodePair, Report, Result
from gentax.report.page import render, write

__all__ = ["ArmComparison", "Curve", "EpisodePair", "Report", "Result", "render", "write"]
