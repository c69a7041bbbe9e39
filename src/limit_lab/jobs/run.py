"""A command line as a child process of whatever a scheduler started: its output goes to a file, and signals reach it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

#: Seconds between two looks at the child.
PAUSE = 0.2


class Child:
    """Runs ``command`` in the folder ``where`` and appends what it prints to ``log``."""

    def __init__(self, command: list[str], where: Path, log: Path) -> None:
        self._command = command
        self._where = where
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def status(self) -> int:
        """Start it and wait for its exit status; whatever interrupts the waiting asks the child to end, too."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._where, stdout=log, stderr=subprocess.STDOUT)
        try:
            while (status := self._process.poll()) is None:  # in wait() a signal's handler could not look at the child
                time.sleep(PAUSE)
        finally:
            if self._process.returncode is None:
                self._process.terminate()
        return status

    def leave(self) -> int:
        """Ask it to end and wait; returns its exit status. Made to be called by a signal's handler within `status`."""
        if self._process is None:
            return 0
        if self._process.returncode is not None:
            return self._process.returncode
        os.kill(self._process.pid, signal.SIGUSR1)
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # poll() above may hold its lock
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
