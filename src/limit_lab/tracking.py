"""What Weights & Biases is told besides the records: one run for each finished cell and pair, read from their files.

The records stay the source of truth. wandb works in a process of its own with a time limit, so whatever becomes of it is one
warning; what was told is noted in ``runs/tracking/told``, and the next call tells only what is missing.
"""

from __future__ import annotations

import configparser
import json
import netrc
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from limit_lab import store
from limit_lab.config import Study
from limit_lab.config import Tracking as Configured
from limit_lab.errors import ConfigError, LimitLabError
from limit_lab.fingerprints import fingerprint, plain
from limit_lab.suite import PROMPTING

#: Seconds that one run may take to be told, all in all.
LIMIT_S = 120

#: Sample answers in a cell's table, from the first prompt on.
ANSWERS = 20

#: What wandb allows an id and a tag to be long.
ID_LENGTH, TAG_LENGTH = 128, 64

#: Parts of a cell's configuration that say nothing of the cell.
CIRCUMSTANCES = ("do", "runs", "debug", "tracking", "launch", "report")

#: Values of a configuration that are places on this machine.
PATHS = (("data", "dir"), ("model", "path"), ("model", "tokenizer"), ("gauntlet", "data"), ("answers", "prompts"))

Kind = Literal["cells", "pairs"]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Whether runs go to the server at ``url`` or into files below ``folder``, and why they do not go to the server."""

    online: bool
    url: str
    folder: Path
    offline_because: str = ""

    @property
    def files(self) -> Path:
        """Where wandb keeps its files, one folder a run."""
        return self.folder / "wandb"

    @property
    def sync(self) -> str:
        """The command that sends offline files later."""
        return f"wandb sync {shlex.quote(str(self.files))}/offline-run-*"

    def said(self, project: str) -> str:
        """One line: online or offline, where the files lie, and how they are sent later."""
        if self.online:
            return f"tracking: online, project {project} at {self.url}"
        return f"tracking: offline ({self.offline_because}), files in {self.files}; send them later with: {self.sync}"


def connect(tracking: Configured, runs: Path) -> Connection:
    """Online when there is a key for the server, offline otherwise, or as ``tracking.mode`` says.

    Raises: ConfigError for mode=online without a key.
    """
    url, folder = _server(), runs / "tracking"
    key = has_key(url)
    if tracking.mode == "online" and not key:
        raise ConfigError(
            f"tracking.mode=online needs a key for {url}, and there is none: run 'wandb login' or set WANDB_API_KEY, or use "
            "tracking.mode=offline."
        )
    asked = tracking.mode if tracking.mode != "auto" else os.environ.get("WANDB_MODE", "online")
    because = "" if asked == "online" else "as tracking.mode says" if tracking.mode == "offline" else f"WANDB_MODE={asked}"
    because = because or ("" if key else f"no key for {url}")
    return Connection(online=not because, url=url, folder=folder, offline_because=because)


def _server() -> str:
    """The server's address: WANDB_BASE_URL, or what ``wandb login --host`` wrote, or the public one."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    settings = configparser.ConfigParser(interpolation=None)
    folder = os.environ.get("WANDB_CONFIG_DIR")
    with suppress(configparser.Error, UnicodeDecodeError, OSError, RuntimeError):  # wandb says itself what is wrong with it
        settings.read((Path(folder) if folder else Path.home() / ".config" / "wandb") / "settings", encoding="utf-8")
    return settings.get("default", "base_url", fallback="https://api.wandb.ai").rstrip("/")


def has_key(url: str) -> bool:
    """Whether WANDB_API_KEY or the netrc file holds a key for the server at ``url``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    given = os.environ.get("NETRC")
    try:
        found = [Path(given)] if given else [Path.home() / name for name in (".netrc", "_netrc")]
        return any(path.is_file() and netrc.netrc(path).authenticators(urlsplit(url).netloc) for path in found)
    except (netrc.NetrcParseError, OSError, RuntimeError):
        return False


class Tracker:
    """Tells wandb of finished cells and pairs; does nothing for tracking=none. Prints where the runs go.

    Raises: ConfigError for mode=online without a key; nothing once it stands.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._root = Path(study.runs)
        self._connection: Connection | None = None
        if study.tracking.kind == "wandb":
            self._connection = connect(study.tracking, self._root)
            print(self._connection.said(study.tracking.project), flush=True)

    def tell(self, kind: Kind, identity: str) -> None:
        """Tell what is not yet told of a finished cell or pair; after a failure, which is one warning, no more is tried."""
        if self._connection is None:
            return
        try:
            self._tell(self._connection, kind, identity)
        except (LimitLabError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            self._connection = None
            said = " ".join(str(error).split()).rstrip(".")
            print(
                f"tracking stopped at {identity} ({said}): the study goes on, and the next call tells what is missing.",
                file=sys.stderr,
                flush=True,
            )

    def _tell(self, connection: Connection, kind: Kind, identity: str) -> None:
        tracking = self._study.tracking
        parts = (cell_parts if kind == "cells" else pair_parts)(self._root, identity)
        marks = {name: fingerprint(part) for name, part in parts.items()}
        note = connection.folder / "told" / f"{identity}.json"
        place = f"{tracking.entity or ''}/{tracking.project}"
        with store.locked(connection.folder):
            told = store.read_json(note) if note.is_file() else {}
            missing = {name: part for name, part in parts.items() if told.get(place, {}).get(name) != marks[name]}
            if not missing:
                return
            head = {"project": tracking.project, "entity": tracking.entity, **heading(self._study, kind, identity)}
            send({"online": connection.online, "folder": str(connection.folder), "head": head, "parts": missing})
            store.write_json(note, {**told, place: marks})


def run_id(identity: str) -> str:
    """The run's id: the folder's name, shortened by its fingerprint where wandb allows no such length."""
    return identity if len(identity) <= ID_LENGTH else f"{identity[: ID_LENGTH - 13]}-{fingerprint(identity)}"


def heading(study: Study, kind: Kind, identity: str) -> dict[str, Any]:
    """A run's id, name, group, job type, tags and configuration; the id is the folder's name, so a re-run resumes it."""
    root = Path(study.runs)
    summary = store.read_json(root / kind / identity / "summary.json")
    cell = summary if kind == "cells" else store.read_json(root / "cells" / summary["cell"] / "summary.json")
    configured = cell["config"]
    config = _without_paths({key: value for key, value in configured.items() if key not in CIRCUMSTANCES})
    config |= {"size": sum(cell["samples"].values()), "fingerprint": cell["fingerprint"], "git": cell["provenance"]["git"]}
    if kind == "pairs":
        config |= {"cell": summary["cell"], "baseline": summary["baseline"], "judge": summary["judge"]}
    asked = [prompting for prompting in PROMPTING if cell["gauntlet"].get(prompting)]
    tags = [cell["label"], cell["model"], *cell["samples"], *asked]
    return {
        "id": run_id(identity),
        "name": identity,
        "group": study.study.name,
        "job_type": kind.removesuffix("s"),
        "tags": list(dict.fromkeys(tag if len(tag) <= TAG_LENGTH else f"{tag[: TAG_LENGTH - 1]}…" for tag in tags)),
        "config": plain(config),
    }


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where things lie on this machine says nothing of a cell and is nobody else's business."""
    kept = {name: dict(node) if isinstance(node, Mapping) else node for name, node in config.items()}
    for node, key in PATHS:
        if isinstance(kept.get(node), dict):
            kept[node].pop(key, None)
    if isinstance(kept.get("data"), dict):
        sources = kept["data"].get("sources", {})
        kept["data"]["sources"] = {name: {k: v for k, v in one.items() if k != "file"} for name, one in sources.items()}
    return kept


def cell_parts(root: Path, identity: str) -> dict[str, Any]:
    """What is told of a cell, by part: curves and held-out losses (one row a step), numbers, and tables.

    Raises: DataError, KeyError.
    """
    folder = root / "cells" / identity
    summary = store.read_json(folder / "summary.json")
    metrics, answers = folder / "finetune" / "metrics.jsonl", folder / "answers" / "answers.jsonl"
    numbers = {f"answers/{name}": value for name, value in summary["answers"].items()}
    numbers |= {f"finetune/{name}": value for name, value in (summary["finetune"] or {}).items()}
    scores = []
    for prompting in PROMPTING:
        found = summary["gauntlet"].get(prompting)
        for level, name, score, items in _scores(found) if found else []:
            numbers["/".join(("gauntlet", prompting, level, name) if name else ("gauntlet", prompting, level))] = score
            scores.append({"prompting": prompting, "level": level, "name": name, "rescaled": score, "items": items})
    card = [
        {"source": name, **{key: value for key, value in source.items() if not isinstance(value, Mapping)}}
        for name, source in summary["card"]["sources"].items()
    ]
    rows = _rows(metrics)
    parts = {
        "curves": [{f"finetune/{name}": value for name, value in row.items()} for row in rows],
        "held_out": _held_out(_rows(folder / "finetune" / "held_out.jsonl")),
        "numbers": {name: value for name, value in numbers.items() if value is not None},
        "tables/scores": _table(scores),
        "tables/card": _table(card),
        "tables/answers": _table(_rows(answers)[:ANSWERS]),
        "tables/samples": _table(_rows(folder / "finetune" / "samples.jsonl")),
    }
    return {name: part for name, part in parts.items() if part}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that not every cell has."""
    return store.read_rows(path) if path.is_file() else []


def _held_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Held-out losses as one row a step."""
    by_step: dict[int, dict[str, Any]] = {}
    for row in rows:
        by_step.setdefault(row["step"], {"finetune/step": row["step"]})[f"held_out/{row['source']}"] = row["loss"]
    return list(by_step.values())


def _scores(found: Row) -> list[tuple[str, str, float | None, int | None]]:
    """Average, categories and tasks of one prompting: level, name, rescaled score, number of items."""
    averages = {"": found["average"], **found.get("averages", {})}
    average = [("average", name, score, None) for name, score in averages.items() if score is not None]
    categories = [("category", name, score, None) for name, score in found["categories"].items()]
    tasks = [("task", name + _altered(task), task["rescaled"], task["n"]) for name, task in found["tasks"].items()]
    return [*average, *categories, *tasks]


def _altered(task: Row) -> str:
    """The mark of a task whose data file is not the original one."""
    data = task.get("data") or {}
    return f" (altered data {data['sha256'][:12]})" if data.get("state") == "altered" else ""


def pair_parts(root: Path, identity: str) -> dict[str, Any]:
    """What is told of a pair, by part: rate, judge scores and components. Raises: DataError, KeyError."""
    folder = root / "pairs" / identity
    summary = store.read_json(folder / "summary.json")
    items = store.read_rows(folder / "items.jsonl")
    numbers = {f"judge/{summary['measure']}": summary["rate"]}
    numbers |= {f"judge/{name}": summary[name] for name in ("n", "wins", "ties", "losses")}
    for role in ("cell", "baseline"):
        numbers[f"judge/score/{role}"] = sum(item[f"score_{role}"] for item in items) / len(items)
        components = summary["components"].get(role, {})
        numbers |= {f"judge/components/{role}/{name}": value for name, value in components.items()}
    both = summary["components"]
    rows = [{"component": name, **{role: both[role][name] for role in both}} for name in both.get("cell", {})]
    return {name: part for name, part in {"numbers": numbers, "tables/components": _table(rows)}.items() if part}


def _table(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as columns and data, missing values as None; empty without rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]} if rows else {}


def send(run: Row) -> None:
    """Tell wandb of one run, in a process that ends with all it started.

    Raises: LimitLabError with the reason when wandb fails or takes longer than LIMIT_S.
    """
    folder = Path(run["folder"])
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    if not os.access(folder / "wandb", os.W_OK | os.X_OK):
        raise LimitLabError(f"{folder / 'wandb'} cannot be written")  # wandb would write to the system's /tmp instead
    package = str(Path(__file__).resolve().parent.parent)
    environment = {
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "cache"),
        **os.environ,
        "WANDB_SILENT": "true",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "limit_lab.tracking"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the study, which then ends this process
    )
    try:
        _, said = process.communicate(json.dumps(run), timeout=LIMIT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise LimitLabError(f"wandb took longer than {LIMIT_S} s") from error
        raise
    if process.returncode:
        lines = said.strip().splitlines() or [f"wandb ended with code {process.returncode}"]
        raise LimitLabError(lines[-1][:300])


def _send(run: Row) -> None:
    """The other side of `send`, in its process."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
        init_timeout=LIMIT_S / 4,
        finish_timeout=LIMIT_S / 2,
        finish_timeout_raises=True,
    )
    mode: Literal["online", "offline"] = "online" if run["online"] else "offline"
    with wandb.init(**run["head"], dir=run["folder"], mode=mode, resume="allow", settings=settings) as told:
        for curves in ("finetune/*", "held_out/*"):
            told.define_metric(curves, step_metric="finetune/step")
        for name, part in run["parts"].items():
            if name in ("curves", "held_out"):
                for row in part:
                    told.log(row)
            elif name == "numbers":
                told.summary.update(part)
            else:
                told.log({name: wandb.Table(columns=part["columns"], data=part["data"], allow_mixed_types=True)})


def main() -> int:
    """Read one run from standard input and tell wandb; returns the exit code, with the reason on standard error."""
    try:
        _send(json.load(sys.stdin))
    except Exception as error:
        sys.stderr.write(f"\n{type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.stderr.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
