"""The report of a run and the comparison of several: single HTML files made from what lies in the runs' folders."""

from fuseline.lab.report.compare import Comparison, compare, comparison_rows, write_comparison
from fuseline.lab.report.report import write_report

__all__ = ["Comparison", "compare", "comparison_rows", "write_comparison", "write_report"]
