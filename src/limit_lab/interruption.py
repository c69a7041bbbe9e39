"""What a scheduler's signals mean: the run ends soon, keeps what it has, and the same command continues it.

A fine-tuning finishes its step and writes its checkpoint first; anything else ends at once, for its stages are resumable.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

#: The exit status of a run that is to be continued: EX_TEMPFAIL of sysexits.
STATUS = 75

#: What schedulers send before they end a job; submitit's own is SIGUSR2, because NCCL may catch SIGUSR1.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


#: The file by which a process that waits for ranks has them finish their step and end.
LEAVE = "leave"


class ToBeContinued(KeyboardInterrupt):
    """A scheduler's Ctrl-C: it passes everything that a failure would be recorded by."""


@dataclass(slots=True)
class _Heard:
    signal: str | None = None
    finishing: bool = False


_heard = _Heard()


def asked() -> str | None:
    """The signal that asked this process to end, None without one."""
    return _heard.signal


def listen() -> None:
    """Hear the signals from now on; outside the main thread Python lets nobody do so, and nothing happens."""
    if threading.current_thread() is threading.main_thread():
        for one in SIGNALS:
            signal.signal(one, _hear)


@contextmanager
def listening() -> Iterator[None]:
    """`listen` for a while; then whoever listened before does again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in SIGNALS}
    _heard.signal = None
    listen()
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """Inside, a signal raises nothing: the work looks at `asked` and ends by itself."""
    _heard.signal, _heard.finishing = None, True
    try:
        yield
    finally:
        _heard.finishing = False


def _hear(number: int, frame: FrameType | None) -> None:
    first, _heard.signal = _heard.signal is None, signal.Signals(number).name
    if first and not _heard.finishing:
        raise ToBeContinued(f"stopped on {_heard.signal}: the same command continues where this one stopped.")
