"""The named errors: each message says what happened, with which value, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class LimitLabError(Exception):
    """Anything that the command line reports as a sentence instead of a traceback."""


class ConfigError(LimitLabError):
    """The configuration asks for something that does not exist or contradicts itself."""


class DataError(LimitLabError):
    """Rows, files or sources are missing, malformed or too few."""


class ModelError(LimitLabError):
    """A model folder cannot be read, does not fit its configuration, or was exported wrongly."""


class BusyError(LimitLabError):
    """Another process holds what this one wants to make."""


class EvalError(LimitLabError):
    """A gauntlet task or an aggregation is incomplete or impossible."""


class JudgeError(LimitLabError):
    """A judge profile cannot compare the answers it was given."""


class PreflightError(LimitLabError):
    """Everything that stands between this machine and the run, listed at once."""

    def __init__(self, what: str, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1))
        super().__init__(f"{what}\n{listed}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or a list of all of them when none is close."""
    from difflib import get_close_matches

    candidates = sorted(set(known))
    close = get_close_matches(word, candidates, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(f"'{match}'" for match in close) + "?"
    shown = ", ".join(candidates[:12]) + (", ..." if len(candidates) > 12 else "")
    return f"; known: {shown or 'nothing'}"


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises: ConfigError when ``value`` is none of the ``allowed`` ones."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is unknown{did_you_mean(value, allowed)}")
