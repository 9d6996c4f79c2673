"""Facts become one page: everything a run wrote down, read back and shown in a self-contained report.html."""

from hagane.report.page import build_report

__all__ = ["build_report"]
