"""``python -m limit_lab.jobs FOLDER``: do the job whose order lies there; a launcher starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from limit_lab.jobs.work import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
