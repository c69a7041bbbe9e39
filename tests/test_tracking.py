"""What W&B is told, read back from what wandb itself wrote offline; no account, no network, and nothing outlives a call."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

import limit_lab
from limit_lab import cell, preflight, tracking
from limit_lab.compose import compose
from limit_lab.config import Study, Tracking
from limit_lab.errors import ConfigError, LimitLabError
from limit_lab.fingerprints import plain
from limit_lab.tracking import Tracker, connect
from tests.commands import call, groups
from tests.report.report_world import ACCURACY, dump, dump_rows, write_cell, write_pair

KEY = "a" * 40
STEPS = [{"step": step, "loss": 3.0 / step, "grad_norm": 1.0, "learning_rate": 0.1, "targets": 9} for step in (1, 2, 3)]
HELD_OUT = [
    {"step": step, "source": source, "loss": step + 0.5, "tokens": 40, "documents": 4}
    for step in (0, 3)
    for source in ("lima", "instruct")
]


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No key, no settings and no home of the user; returns where a netrc file would be looked for."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Records of two cells and their pair."""
    root = tmp_path / "runs"
    for label in ("lima", "instruct"):
        configured = {
            "runs": "/somewhere",
            "mixture": {"name": label},
            "tracking": {"name": "wandb"},
            "finetune": {"eps": 1e-8},
        }
        name = write_cell(root, label, ACCURACY[label], items=20, config=configured)
        dump_rows(root / "cells" / name / "finetune" / "metrics.jsonl", STEPS)
        dump_rows(root / "cells" / name / "finetune" / "held_out.jsonl", HELD_OUT)
        dump_rows(root / "cells" / name / "finetune" / "samples.jsonl", [{"step": 2, "index": 0, "prompt": "p", "answer": "a"}])
    write_pair(root, "instruct-0123456789ab", "lima-0123456789ab", [1.0, 0.5, 0.0, 0.0])
    return root


def tracked(runs: Path, **changes: Any) -> Study:
    return replace(compose(["study.name=tested", f"runs={runs}"]), tracking=Tracking(name="wandb", kind="wandb", **changes))


def records(run: Path) -> Iterator[tuple[str, Any]]:
    """Everything in a run's .wandb file, a LevelDB log after a head of seven bytes: kind and message."""
    (path,) = run.glob("*.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, part = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole, kind = b"", record.WhichOneof("record_type")
            yield str(kind), getattr(record, str(kind))


def offline(runs: Path) -> list[Path]:
    return sorted((runs / "tracking/wandb").glob("offline-run-*"))


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def contents(run: Path) -> tuple[Any, dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The run, its configuration, its history (with what wandb adds left out) and its summary."""
    head: Any = None
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for kind, record in records(run):
        if kind == "run":
            head, config = record, items(record.config.update)
        elif kind == "history":
            history.append({name: value for name, value in items(record.item).items() if not name.startswith("_")})
        elif kind == "summary":
            summary |= items(record.update)
    return head, config, history, summary


def test_a_cell_and_its_pair_are_told_once(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, study = "instruct-0123456789ab", tracked(runs)
    Tracker(study).tell("cells", name)
    out, err = capfd.readouterr()
    assert err == ""
    assert out == (
        f"tracking: offline (no key for https://api.wandb.ai), files in {runs}/tracking/wandb; "
        f"send them later with: wandb sync {runs}/tracking/wandb/offline-run-*\n"
    )
    (run,) = offline(runs)
    head, config, history, summary = contents(run)
    assert (head.run_id, head.display_name, head.run_group, head.job_type) == (name, name, "tested", "cell")
    assert (head.project, set(head.tags)) == ("limit_lab", {"instruct", "micro", "raw", "template"})
    assert (config["mixture"], config["size"], config["finetune"]) == ({"name": "instruct"}, 1000, {"eps": 1e-8})
    assert not {"runs", "tracking"} & set(config)
    assert history[:3] == [{f"finetune/{key}": value for key, value in row.items()} for row in STEPS]
    losses = {step: {f"held_out/{source}": step + 0.5 for source in ("lima", "instruct")} for step in (0, 3)}
    assert history[3:5] == [{"finetune/step": step, **own} for step, own in losses.items()]
    recorded = json.loads((runs / "cells" / name / "summary.json").read_text(encoding="utf-8"))
    for prompting in ("raw", "template"):
        scores = recorded["gauntlet"][prompting]
        assert summary[f"gauntlet/{prompting}/average"] == scores["average"]
        assert summary[f"gauntlet/{prompting}/category/letters"] == scores["categories"]["letters"]
        assert summary[f"gauntlet/{prompting}/task/knowledge_mc"] == scores["tasks"]["knowledge_mc"]["rescaled"]
    assert summary["answers/ended_share"] == 0.98
    assert summary["finetune/last_loss"] == 0.8
    tables = {key: value for row in history[5:] for key, value in row.items()}
    paths = {key.removesuffix("/path"): value for key, value in tables.items() if key.endswith("/path")}
    assert set(paths) == {"tables/scores", "tables/card", "tables/answers", "tables/samples"}
    answers = json.loads((run / "files" / paths["tables/answers"]).read_text(encoding="utf-8"))
    assert len(answers["data"]) == tracking.ANSWERS
    assert answers["data"][0][answers["columns"].index("answer")] == "instruct answers prompt 0, at some length."

    Tracker(study).tell("cells", name)
    assert offline(runs) == [run]

    pair = f"{name}-vs-lima-0123456789ab-ground_truth"
    Tracker(study).tell("pairs", pair)
    (other,) = set(offline(runs)) - {run}
    head, config, history, summary = contents(other)
    assert (head.run_id, head.job_type, config["mixture"], config["size"]) == (pair, "pair", {"name": "instruct"}, 1000)
    assert (summary["judge/win_rate"], summary["judge/score/cell"], summary["judge/score/baseline"]) == (0.375, 2.375, 2.5)
    assert summary["judge/components/baseline/structure"] == 1.2
    assert history[0]["tables/components/nrows"] == 5

    dump_rows(runs / "cells" / name / "answers" / "answers.jsonl", [{"index": 0, "prompt": "p", "answer": "another"}])
    Tracker(study).tell("cells", name)
    (again,) = set(offline(runs)) - {run, other}
    head, _, history, summary = contents(again)
    assert head.run_id == name
    assert [row["tables/answers/nrows"] for row in history] == [1]
    assert not [key for key in summary if key.startswith(("gauntlet", "finetune"))]
    assert not (runs.parent / "home").exists()
    assert not processes(runs)


def processes(runs: Path) -> list[str]:
    """Command lines of living processes that know of ``runs``, this one excepted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(folder.name) != os.getpid() and str(runs / "tracking").encode() in environment:
            found.append(command)
    return found


def test_none_loads_no_wandb_and_writes_nothing(runs: Path) -> None:
    code = (
        "import sys; from limit_lab.compose import compose; from limit_lab.tracking import Tracker; "
        f"Tracker(compose(['runs={runs}'])).tell('cells', 'lima-0123456789ab'); "
        "from limit_lab.__main__ import main; main(['do=plan']); print('wandb' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(limit_lab.__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert not (runs / "tracking").exists()
    assert compose([]).tracking.kind == "none"


def test_tracking_is_outside_the_fingerprints(tmp_path: Path) -> None:
    plain, told = compose([]), compose(["tracking=wandb", "tracking.project=other", "tracking.mode=offline"])
    assert told.tracking.kind == "wandb"
    assert cell.identity(plain) == cell.identity(told)
    assert cell.folder_of(plain) == cell.folder_of(told)


def test_online_with_a_key_and_offline_without(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def online(**changes: Any) -> bool:
        return connect(Tracking(name="wandb", **changes), Path("runs")).online

    assert not online()
    away.write_text(f"machine api.wandb.ai login user password {KEY}\n", encoding="utf-8")
    assert online()
    assert not online(mode="offline")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    assert not online()
    assert "no key for https://wandb.example.org," not in connect(Tracking(name="wandb"), Path("runs")).said("p")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert online(mode="online")
    assert "https://wandb.example.org" in connect(Tracking(name="wandb"), Path("runs")).said("p")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not online()
    away.write_text("machine {", encoding="utf-8")
    monkeypatch.delenv("WANDB_API_KEY")
    assert not online()


def test_the_server_of_a_login_is_found(tmp_path: Path, away: Path) -> None:
    (tmp_path / "wandb_config").mkdir()
    (tmp_path / "wandb_config/settings").write_text("[default]\nbase_url = https://own.example.org\n", encoding="utf-8")
    away.write_text(f"machine own.example.org login user password {KEY}\n", encoding="utf-8")
    found = connect(Tracking(name="wandb"), Path("runs"))
    assert (found.online, found.url) == (True, "https://own.example.org")
    (tmp_path / "wandb_config/settings").write_text("base_url", encoding="utf-8")
    assert not connect(Tracking(name="wandb"), Path("runs")).online


def test_online_without_a_key_is_one_sentence_before_anything_starts(runs: Path) -> None:
    study = tracked(runs, mode="online")
    with pytest.raises(ConfigError, match="run 'wandb login' or set WANDB_API_KEY") as caught:
        Tracker(study)
    assert str(caught.value).count("\n") == 0
    assert [problem for problem in preflight.problems([study]) if "wandb" in problem] == [str(caught.value)]


@pytest.mark.parametrize("changes", [{"mode": "onlin"}, {"kind": "wanb"}, {"project": "a/b"}, {"project": ""}])
def test_other_values_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Tracking(name="wandb", **changes)


def test_a_server_that_does_not_answer_is_one_warning(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "LIMIT_S", 3)
    tracker = Tracker(tracked(runs))
    start = time.monotonic()
    tracker.tell("cells", "lima-0123456789ab")
    tracker.tell("cells", "instruct-0123456789ab")
    assert time.monotonic() - start < 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tracking stopped at lima-0123456789ab (wandb took longer than 3 s)")
    assert not (runs / "tracking/told").exists()
    for _ in range(50):
        if not processes(runs):
            return
        time.sleep(0.1)
    raise AssertionError(processes(runs))


def test_what_wandb_says_against_a_run_is_the_reason(runs: Path) -> None:
    head = {**tracking.heading(tracked(runs), "cells", "lima-0123456789ab"), "id": "a/b"}
    with pytest.raises(LimitLabError, match=r"^UsageError: "):
        tracking.send({"online": False, "folder": str(runs / "tracking"), "head": head, "parts": {}})


def test_records_that_cannot_be_read_are_one_warning(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dump(runs / "cells/lima-0123456789ab/summary.json", {"kind": "cell"})
    Tracker(tracked(runs)).tell("cells", "lima-0123456789ab")
    assert capfd.readouterr().err.startswith("tracking stopped at lima-0123456789ab (")


def test_a_long_name_is_shortened_to_an_id_of_its_own() -> None:
    names = ["m" * 150 + end for end in "ab"]
    assert len({tracking.run_id(name) for name in names}) == 2
    assert all(len(tracking.run_id(name)) <= tracking.ID_LENGTH for name in names)


def test_a_study_whose_tracking_fails_ends_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "runs/tracking").mkdir(parents=True)
    (tmp_path / "runs/tracking/wandb").touch()  # no folder, so nothing can be written in it
    tiny = ["+experiment=tiny", "mixture=none", "study.mixtures=[]", "study.baseline=null", "answers.limit=1"]
    done = call([*groups(tmp_path / "groups"), *tiny, f"runs={tmp_path / 'runs'}", "tracking=wandb"])
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("tracking stopped at ")
    assert "the study goes on" in line
    assert done.stdout.splitlines()[0].startswith("tracking: offline")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "runs/studies/tiny/index.html")


def test_no_place_on_this_machine_is_told() -> None:
    study = compose(["+experiment=real_rows", "data.dir=/home/someone/data", "mixture=lima_small"])
    text = json.dumps(tracking._without_paths(plain(study)))
    assert "/home/someone" not in text
    assert '"lima"' in text
