"""What cells and pairs say, with uncertainty, as one page: reads records only, never a model or a trainer."""

from limit_lab.report.page import write

__all__ = ["write"]
