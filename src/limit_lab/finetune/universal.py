"""Checkpoints of ZeRO-3 for another number of ranks, in DeepSpeed's universal layout: a folder a weight (Lian et al. 2024)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from limit_lab.errors import DataError

#: What Lightning calls the folder of the pieces inside its own.
TAG = "checkpoint"
#: The converter knows the moments of Adam alone.
OPTIMIZERS = ("adamw",)


def write(pieces: Path, folder: Path, ranks: int) -> None:
    """Write the checkpoint ``pieces`` to ``folder`` for any number of ranks, in a process of its own that uses no GPU.

    Raises: DataError when the converter ends with an error; ``pieces`` stay as they are.
    """
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(pieces / TAG), "--output_folder", str(folder / TAG)]
    done = subprocess.run(command, env=os.environ | {"DS_ACCELERATOR": "cpu"}, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DataError(
            f"{pieces} was written by {ranks} ranks and could not be converted for another number ({reason}): continue with "
            f"{ranks}, or delete it to begin this fine-tuning anew."
        )
    (folder / "latest_universal").write_text(TAG, encoding="utf-8")
