"""Wrong values through the front door: one sentence with the value and the remedy, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from limit_lab import __main__ as door
from limit_lab import preflight
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.store import write_json
from tests.commands import groups

GOOD = '{"prompt": "a", "response": "b"}\n'


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """One cell of the tiny study, with a source ``mine`` in ``tmp_path/rows.jsonl`` of which a mixture takes 3 rows."""
    data = f"name: mine\nsources:\n  lima: {{kind: microworld}}\n  mine: {{kind: file, file: {tmp_path}/rows.jsonl}}\n"
    data += "  martian: {kind: microworld}\n"
    made = groups(tmp_path / "groups", data__mine=data, mixture__mine="name: mine\nsamples: {mine: 3}\n")
    return [*made, "+experiment=tiny", "study.mixtures=[]", "study.baseline=null", f"runs={tmp_path / 'runs'}"]


def refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The only sentence of a refused call: alone on stderr, or the only problem that the preflight lists."""
    assert door.main(arguments) == code
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert not printed.out
    if len(lines) == 2:
        assert lines.pop(0) == "This machine cannot run the study yet, for 1 reason:"
    (line,) = lines
    return line.removeprefix("  1. ")


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("+mixture.samples.limaa=3", 2, "names the source 'limaa', which data=microworld does not have; did you mean 'lima'"),
        ("+mixture.samples.lima=3", 2, "+mixture.samples.lima is already in the configuration: leave out the +"),
        ("mixture.samples.lima=3000", 1, "takes 3,000 samples of lima, which has 1,000 usable rows: lower mixture.samples"),
        ("prompt.format=alpca", 1, "prompt.format='alpca' is unknown; did you mean 'alpaca'?"),
        ("model.path=/no/model", 2, "model.path=/no/model would not be read, because model=micro is the embedded base"),
        ("microworld.seed=7", 1, "no pretrained base for microworld.seed=7"),
        ("answers.prompts=/no/prompts.jsonl", 1, "answers.prompts=/no/prompts.jsonl is no file here"),
        ("answers.limit=0", 2, "answers.limit=0 leaves nothing to answer"),
        ("answers.max_new_tokens=0", 2, "answers.max_new_tokens=0 leaves nothing to answer"),
        ("gauntlet.prompting=[]", 2, "would ask nothing"),
        ("finetune.duration=0.4step", 2, "finetune.duration='0.4step' is no duration"),
        ("finetune.held_out=-1", 2, "finetune.held_out=-1 is below 0"),
        ("finetune.checkpoint_every_steps=0", 2, "finetune.checkpoint_every_steps=0 is no interval"),
        ("finetune.betas=[0.9]", 2, "finetune.betas=[0.9] must be two numbers"),
        ("finetune.weight_decay=-1", 2, "finetune.weight_decay=-1.0 must be 0 or above"),
        ("finetune.weight_decay=nan", 2, "finetune.weight_decay=nan must be 0 or above, and finite"),
        ("finetune.eps=inf", 2, "finetune.eps=inf must be 0 or above, and finite"),
        ("finetune.learning_rate=nan", 2, "finetune.learning_rate=nan must be above 0 and finite"),
        ("finetune.learning_rate=inf", 2, "finetune.learning_rate=inf must be above 0 and finite"),
        ("finetune.clip_norm=nan", 2, "finetune.clip_norm=nan must be above 0 and finite"),
        ("model.n_heads=3", 2, "model.d_model=128 cannot be shared by model.n_heads=3: use a divisor of it"),
        ("model.n_layers=0", 2, "model.n_layers=0 is no size: use 1 or more"),
        ("hardware.devices=0", 2, "hardware.devices=0 leaves nothing to run on"),
        ("runs=/dev/null", 1, "runs=/dev/null cannot be written"),
    ],
)
def test_a_wrong_value_is_one_sentence_before_anything_starts(
    given: str, code: int, said: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([*tiny, "finetune.duration=1ep", given], code, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no row with a prompt and a response"),
        (b'{"prompt": "a", "response": " "}\n', "holds no row with a prompt and a response"),
        (GOOD.encode() * 2 + b'{"prompt": "a", "response": null}\n', "which has 2 usable rows"),
        (GOOD.encode() * 3 + b'{"question": "a", "reply": "b"}\n', "rows.jsonl line 4 has the columns question, reply"),
        (GOOD.encode() * 3 + b'{"prompt": "a", "resp', "rows.jsonl line 4 is not JSON"),
        (GOOD.encode() * 3 + b'{"prompt": "\xe9"}\n', "rows.jsonl line 4 is not UTF-8"),
        (GOOD.encode() * 3 + b"[1]\n", "rows.jsonl line 4 is no JSON object"),
        (GOOD.encode() * 3 + b'{"prompt": "a", "response": {"text": "b"}}\n', "line 4 has {'text': 'b'} where a text belongs"),
        (b'{"conversations": [{"from": "human", "value": "a"}]}\n', "line 1 has {'from': 'human', 'value': 'a'} where a text"),
        (None, "correct data.dir or data.sources.mine.file"),
    ],
)
def test_bad_rows_are_found_before_any_cell_is_trained(
    content: bytes | None, said: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    assert said in refused([*tiny, "data=mine", "mixture=mine"], 1, capsys)
    assert not (tmp_path / "runs").exists()


def test_the_micro_world_makes_no_source_of_another_name(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(GOOD * 3, encoding="utf-8")
    said = refused([*tiny, "data=mine", "mixture=mine", "+mixture.samples.martian=2"], 1, capsys)
    assert "source 'martian' is not one of the micro-world's" in said


@pytest.mark.parametrize(("content", "said"), [("", "holds no prompt"), ('{"q": 1}\n', "has no prompt"), ("{", "line 1")])
def test_bad_prompts_are_found_before_any_cell_is_trained(
    content: str, said: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content, encoding="utf-8")
    answered = refused([*tiny, f"answers.prompts={file}"], 1, capsys)
    assert str(file) in answered
    assert said in answered


def test_a_data_folder_that_is_not_there_is_one_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = [*groups(tmp_path / "groups"), "+experiment=real_rows", f"runs={tmp_path / 'runs'}", "study.baseline=null"]
    said = refused([*real, "data.dir=/no/data"], 1, capsys)
    assert said.startswith("data.dir=/no/data is no folder here: pass the one that holds lima, instruct_v1, the tokenizer")
    assert not (tmp_path / "runs").exists()


def test_hardware_that_is_not_here_is_refused(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "gpus", lambda: 0)
    assert "hardware=8x80gb needs 8 GPUs" in refused([*tiny, "hardware=8x80gb"], 1, capsys)


def test_a_folder_without_a_causal_model_is_refused(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    given = [*tiny, "model.embedded=false", f"model.path={folder}"]
    assert f"model.path={folder} is no folder here" in refused(given, 1, capsys)
    folder.mkdir()
    assert f"{folder} has no config.json" in refused(given, 1, capsys)
    write_json(folder / "config.json", {"model_type": "gpt2"})
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert f"{folder} has no *.safetensors" in refused(given, 1, capsys)
    shutil.copyfile(SHIPPED / "model.safetensors", folder / "model.safetensors")
    assert f"{folder} holds a 'gpt2' model (no stated architecture), which is no causal" in refused(given, 1, capsys)
    write_json(folder / "config.json", {"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    assert f"{folder} holds a 'bert' model (BertForMaskedLM), which is no causal" in refused(given, 1, capsys)
    write_json(folder / "config.json", {"model_type": "mpt", "d_model": 128})
    assert "config.json states no num_hidden_layers or n_layers or n_layer" in refused(given, 1, capsys)
    shutil.copyfile(SHIPPED / "config.json", folder / "config.json")
    assert f"{folder}/tokenizer.json cannot be read" in refused(given, 1, capsys)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert "model.safetensors is damaged" in refused(given, 1, capsys)
    assert not (tmp_path / "runs" / "cells").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["finetune.max_seq_tokens=20"], "finetune.max_seq_tokens is 20: raise it, or set finetune.on_too_long=drop"),
        (["finetune.max_seq_tokens=20", "finetune.on_too_long=drop"], "finetune.max_seq_tokens=20 and were dropped: raise it"),
        (["gauntlet.tasks.0.rows=9000"], "and the task facts_em needs 9000"),
        (["gauntlet.tasks.0.file=other.jsonl"], "has no data for facts_em (other.jsonl)"),
    ],
)
def test_what_only_the_tokenizer_or_the_world_knows_is_found_before_any_cell_is_made(
    given: list[str], said: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([*tiny, "mixture=lima_tiny", *given], 1, capsys)
    assert not (tmp_path / "runs" / "cells").exists()


def test_a_damaged_run_folder_is_one_sentence_and_mended_by_its_remedy(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [*tiny, "mixture=lima_tiny", "finetune.duration=1step", "finetune.batch=24doc", "answers.max_new_tokens=2"]

    def run() -> list[str]:
        assert door.main(one) == 0
        return capsys.readouterr().out.splitlines()

    run()
    (cell,) = (tmp_path / "runs" / "cells").iterdir()
    manifest = cell / "gauntlet" / "raw" / "manifest.json"
    for content in ("", "{", "[]", "{}"):
        manifest.write_text(content, encoding="utf-8")
        assert str(manifest) in refused_after_start(one, capsys)
    manifest.unlink()
    assert len(run()) == 4

    answers = cell / "answers" / "answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-10])
    assert f"{answers} is not as it was written: delete {answers.parent}" in refused_after_start(one, capsys)
    answers.unlink()
    assert f"{answers} is gone: delete {answers.parent}" in refused_after_start(one, capsys)
    shutil.rmtree(answers.parent)
    assert "  answers: 6 prompts" in run()

    weights = (cell / "export" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(cell / "export")
    assert any("finetune:" in line for line in run())
    assert (cell / "export" / "model" / "model.safetensors").read_bytes() == weights

    (cell / "summary.json").write_text("{", encoding="utf-8")
    assert "run the same command with do=study first" in refused([*one, "do=report"], 1, capsys)
    run()
    assert json.loads((cell / "summary.json").read_text(encoding="utf-8"))["label"] == "lima_tiny"


def refused_after_start(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert door.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    from limit_lab.errors import DataError
    from limit_lab.finetune.train import completed_steps

    for content in (b"", b"PK\x03\x04 cut", b"text"):
        (tmp_path / "checkpoint.ckpt").write_bytes(content)
        with pytest.raises(DataError, match="is damaged: delete it, and the same command starts"):
            completed_steps(tmp_path / "checkpoint.ckpt")
