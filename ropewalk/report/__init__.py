"""What a run found, for people: `report.html` with its pictures, and a table for the terminal. Reads a run folder only."""

from ropewalk.report.headline import terminal_table
from ropewalk.report.page import write_report

__all__ = ["terminal_table", "write_report"]
