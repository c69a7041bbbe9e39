"""limit_lab: how little instruction data is enough, and of which kind, under two evaluation paradigms."""

__version__ = "0.1.0"
