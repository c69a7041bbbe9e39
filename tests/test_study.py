"""Whole studies through the real command line: to the page, nothing twice, and the same numbers however often it was cut."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from limit_lab.finetune.train import read_metrics
from limit_lab.store import read_json
from tests.commands import call, groups, numbers
from tests.model.networks import llama, saved

#: Below one checkpoint (10 MB) and below the exported weights (3 MB), above everything else.
FULL = 2_000_000
CONTINUES = "the same command continues"


@pytest.fixture(scope="session")
def uncut(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The runs folder of the tiny study, done once in one go whichever worker asks first."""
    shared_by_workers = hasattr(request.config, "workerinput")
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if shared_by_workers else root) / "uncut"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").is_file():
            done = call(tiny(folder))
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == str(folder / "runs/studies/tiny/index.html")
            (folder / "done").touch()
    return folder / "runs"


def tiny(folder: Path) -> list[str]:
    return [*groups(folder / "groups"), "+experiment=tiny", f"runs={folder / 'runs'}"]


def sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on stderr of a call that ended with ``code``."""
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def only(pattern: str, folder: Path) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_study_ends_with_its_page_and_every_stage_has_a_manifest(uncut: Path) -> None:
    assert "<h1" in (uncut / "studies/tiny/index.html").read_text(encoding="utf-8")
    stages = {"answers", "gauntlet/raw", "gauntlet/template"}
    for cell in ("none", "lima_tiny", "both_tiny"):
        folder = only(f"cells/{cell}-*", uncut)
        wanted = stages if cell == "none" else stages | {"finetune", "export"}
        assert {str(path.parent.relative_to(folder)) for path in folder.rglob("manifest.json")} == wanted
        assert not list(folder.rglob("checkpoint*"))
        assert [row["index"] for row in map(dict, read_metrics(folder / "answers/answers.jsonl"))] == list(range(6))
    assert len(list(uncut.glob("pairs/*/manifest.json"))) == 2
    report = read_json(uncut / "studies/tiny/report.json")
    assert set(report["cells"]) == {"none", "lima_tiny", "both_tiny"}


def test_a_second_call_computes_nothing(uncut: Path) -> None:
    stages = [path for path in uncut.rglob("*") if path.is_file() and "studies" not in path.parts]
    written = {path: path.stat().st_mtime_ns for path in stages if path.parent.parent.name != "cells"}
    assert len(written) > 50
    before = numbers(uncut)
    again = call(tiny(uncut.parent))
    assert again.returncode == 0, again.stderr
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["cell"] * 3 + [str(uncut / "studies/tiny/index.html")]
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert numbers(uncut) == before


def test_a_report_names_the_cells_that_are_lost(uncut: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(uncut, runs)
    only("cells/both_tiny-*", runs).joinpath("summary.json").write_text("{cut", encoding="utf-8")  # corrupt
    shutil.rmtree(only("cells/lima_tiny-*", runs))  # the baseline
    done = call([*tiny(tmp_path), "do=report"])
    assert done.returncode == 0, done.stderr
    found = read_json(runs / "studies/tiny/report.json")
    assert list(found["cells"]) == ["none"]
    assert [(one["name"].split("-")[0], one["state"]) for one in found["missing"]] == [
        ("lima_tiny", "waiting"),
        ("both_tiny", "stopped"),
    ]
    assert found["pairs"] == {}
    assert "lima_tiny-" in (runs / "studies/tiny/index.html").read_text(encoding="utf-8")

    again = call(tiny(tmp_path))  # makes the baseline again and writes the damaged summary from its stages
    assert again.returncode == 0, again.stderr
    assert numbers(runs / "pairs") == numbers(uncut / "pairs")
    assert read_json(runs / "studies/tiny/report.json")["missing"] == []


def test_studies_share_a_page(uncut: Path, tmp_path: Path) -> None:
    asked = [*tiny(uncut.parent), "do=report", f"report.out={tmp_path}"]
    done = call([*asked, "report.studies=[tiny,tiny]"])
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path / "report.json")
    assert set(found["cells"]) == {"none", "lima_tiny", "both_tiny"}
    assert found["predicates"] == []
    assert "no such study has run" in sentence(call([*asked, "report.studies=[tinny]"]), 1)


def test_a_training_interrupted_and_out_of_space_ends_with_the_same_bytes(uncut: Path, tmp_path: Path) -> None:
    one = [*tiny(tmp_path), "mixture=lima_tiny", "study.mixtures=[]"]
    metrics, runs = r"finetune/metrics\.jsonl$", tmp_path / "runs"

    # steps 1, 2 and 3 are written: step 2 has left a checkpoint, and step 3 is still finished
    assert CONTINUES in sentence(call(one, at=metrics, count=3, sent=signal.SIGTERM), 75)
    cell = only("cells/*", runs)
    checkpoint = cell / "finetune/checkpoint.ckpt"
    after_two = checkpoint.read_bytes()
    assert len(read_metrics(cell / "finetune/metrics.jsonl")) == 3

    said = sentence(call(one, file_limit=FULL), 1)
    assert str(checkpoint) in said
    assert CONTINUES in said
    assert checkpoint.read_bytes() == after_two
    assert not (cell / "finetune/checkpoint.partial").exists()

    assert CONTINUES in sentence(call(one, at=metrics, count=4, sent=signal.SIGINT), 130)
    assert checkpoint.read_bytes() != after_two

    said = sentence(call(one, file_limit=FULL), 1)
    assert "model.safetensors" in said
    assert CONTINUES in said
    assert checkpoint.is_file()
    assert [path.name for path in (cell / "export").iterdir()] == ["begun.json"]

    done = call(one)
    assert done.returncode == 0, done.stderr
    assert not checkpoint.exists()
    assert numbers(cell) == {**numbers(uncut / "cells" / cell.name), "summary.json": numbers(cell)["summary.json"]}


def test_a_study_killed_in_every_stage_ends_with_the_same_numbers(uncut: Path, tmp_path: Path) -> None:
    study = tiny(tmp_path)
    strikes = (
        (r"both_tiny.*/finetune/metrics\.jsonl$", 5),
        (r"both_tiny.*/gauntlet/raw/items/facts_mc\.jsonl$", 1),
        (r"both_tiny.*/answers/answers\.jsonl$", 1),
        (r"pairs/both_tiny.*/summary\.json$", 1),
    )
    for place, count in strikes:
        assert call(study, at=place, count=count).returncode == -signal.SIGKILL, place
    assert not (tmp_path / "runs/studies").exists()
    done = call(study)
    assert done.returncode == 0, done.stderr
    for part in ("cells", "pairs", "studies"):
        assert numbers(tmp_path / "runs" / part) == numbers(uncut / part)


def test_real_rows_reach_their_page(shared: Path, tmp_path: Path) -> None:
    done = call(
        [
            *groups(tmp_path / "groups"),
            "+experiment=real_rows",
            f"data.dir={shared / 'data'}",
            f"runs={tmp_path / 'runs'}",
            *("mixture=lima_and_v1_few", "study.baseline=lima_few", "gauntlet=real_few", "study.name=real_few"),
            *("finetune.duration=4step", "finetune.batch=4doc", "finetune.warmup=1step", "finetune.max_seq_tokens=256"),
            *("model.d_model=32", "model.n_layers=1", "answers.limit=3", "answers.max_new_tokens=4"),
        ]
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    page = tmp_path / "runs/studies/real_few/index.html"
    assert done.stdout.splitlines()[-1] == str(page)
    assert "<h1" in page.read_text(encoding="utf-8")
    cell = only("cells/lima_and_v1_few-*", tmp_path / "runs")
    summary = read_json(cell / "summary.json")
    assert {name: card["kept"] + card["dropped"] for name, card in summary["card"]["sources"].items()} == {
        "lima": 8,
        "instruct_v1": 8,
    }
    assert {name: task["n"] for name, task in summary["gauntlet"]["raw"]["tasks"].items()} == {"copa": 6, "lambada_openai": 4}
    assert len(read_metrics(cell / "finetune/metrics.jsonl")) == 4
    assert read_json(only("pairs/*/summary.json", tmp_path / "runs"))["n"] == 3


def test_a_network_of_transformers_goes_through_a_whole_study(shared: Path, tmp_path: Path) -> None:
    base = saved(llama(2048), tmp_path / "base")
    done = call(
        [
            *groups(tmp_path / "groups"),
            *("+experiment=real_rows", "model=hf", f"model.path={base}", f"data.dir={shared / 'data'}"),
            f"runs={tmp_path / 'runs'}",
            *("mixture=lima_and_v1_few", "study.mixtures=[none]", "study.baseline=lima_few", "gauntlet=real_few"),
            *("finetune.duration=3step", "finetune.batch=8doc", "finetune.warmup=1step", "finetune.max_seq_tokens=512"),
            *("study.name=hf_few", "answers.limit=3", "answers.max_new_tokens=4"),
        ]
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "runs/studies/hf_few/index.html")
    cell = only("cells/lima_and_v1_few-*", tmp_path / "runs")
    losses = [row["loss"] for row in read_metrics(cell / "finetune/metrics.jsonl")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    exported = only("export/model", cell)
    assert read_json(exported / "config.json")["architectures"] == ["LlamaForCausalLM"]
    weights = "model.safetensors"
    assert (exported / weights).read_bytes() != (base / weights).read_bytes()
    summaries = [read_json(path) for path in (tmp_path / "runs/cells").glob("*/summary.json")]
    assert {one["label"] for one in summaries} == {"none", "lima_few", "lima_and_v1_few"}
    assert {"tokenizer_config.json", weights} <= set(summaries[0]["identity"]["base"])
