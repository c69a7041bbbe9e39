"""Python imports this file before a command that a test strikes: at one file operation it sends itself a signal.

STRIKE_AT is a pattern for the file that is opened for writing or put in place, STRIKE_COUNT which such operation it is,
STRIKE_SIGNAL the signal. FILE_LIMIT is the largest file in bytes that the system lets the command write.
"""

import os
import re
import resource
import sys

if limit := os.environ.get("FILE_LIMIT"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))

if pattern := os.environ.get("STRIKE_AT"):
    left = [int(os.environ["STRIKE_COUNT"])]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename":
            path = str(arguments[1])
        elif event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wa":
            path = str(arguments[0])
        else:
            return
        if re.search(str(pattern), path):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), int(os.environ["STRIKE_SIGNAL"]))

    sys.addaudithook(watch)
