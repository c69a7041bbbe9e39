"""The page of a study is kept as long as nothing that it says has changed: records, configuration, code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from limit_lab import frozen, provenance, store
from limit_lab.config import Study
from limit_lab.fingerprints import fingerprint, plain


def page(cells: Sequence[Study], record: Mapping[str, Any], write: Callable[[], Path]) -> Path:
    """The page of a study with this ``record``: the one that stands, or else the one that ``write`` writes.

    A page stands while all files beside it are as they were written, for the same cells and pairs by their files' names,
    sizes and times, the same claims and the same code.
    """
    study = cells[-1]
    folder = Path(study.runs) / "studies" / study.study.name
    out = Path(study.report.out) if study.report.out else folder
    note, mark = folder / ".page.json", _mark(cells, record)
    known = store.read_json(note) if note.is_file() else {}
    if known.get("mark") == mark and known["files"] == _files(out, known["files"]):
        print(out / "index.html")
        return out / "index.html"
    written = write()
    names = [path.name for path in out.iterdir() if path.is_file() and not path.name.startswith(".")]
    store.write_json(note, {"mark": mark, "files": _files(out, names)})
    return written


def _files(out: Path, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the files that are there; study.json is what the page is made from."""
    return {name: store.sha256(out / name) for name in sorted(names) if name != "study.json" and (out / name).is_file()}


def _mark(cells: Sequence[Study], record: Mapping[str, Any]) -> str:
    last = cells[-1]
    folders = [Path(last.runs) / kind / name for kind in ("cells", "pairs") for name in record[kind]]
    says = {"record": record, "study": plain(last.study), "report": plain(last.report), "code": provenance.code()}
    return fingerprint({**says, "frozen": frozen.statement(cells, record["base"]), "files": list(map(_stamps, folders))})


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of every file of a record."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [(path.relative_to(folder).as_posix(), (known := path.stat()).st_size, known.st_mtime_ns) for path in files]
