"""Figures and pages. It is handed what was measured and shows it; it measures nothing itself."""

from gentax.report.model import Comparison, Curve, EpisodePair, Report, Result
from gentax.report.page import render, write

__all__ = ["Comparison", "Curve", "EpisodePair", "Report", "Result", "render", "write"]
