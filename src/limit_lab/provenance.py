"""Where a number came from: code, versions, machine. Outside every fingerprint, inside every record."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("limit-lab", "torch", "lightning", "transformers", "tokenizers", "deepspeed", "numpy")


@functools.cache
def _machine() -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "git": git_sha(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions,
    }


@functools.cache
def code() -> str:
    """One hash over every source file and template of this package."""
    package, found = Path(__file__).resolve().parent, hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".safetensors"):
            found.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def git_sha() -> str:
    """Commit of the checkout this package runs from, with ``+dirty`` for uncommitted changes; ``installed`` for a wheel."""
    here = Path(__file__).resolve().parent
    if not any((parent / ".git").exists() for parent in here.parents):
        return "installed"
    call = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, check=False)
    sha = call(["git", "rev-parse", "--short=12", "HEAD"])
    if sha.returncode:
        return "no commit"
    changed = call(["git", "status", "--porcelain", "--untracked-files=no"])
    return sha.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")


def collect() -> dict[str, Any]:
    """Git sha, versions, platform and time of writing (UTC, ISO 8601)."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**_machine(), "written": now}
