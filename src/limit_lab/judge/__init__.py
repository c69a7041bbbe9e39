"""Judges: profiles that compare the answers of a pair, and the records of what they said."""

from limit_lab.judge.compare import compare, scorer

__all__ = ["compare", "scorer"]
