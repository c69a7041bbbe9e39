"""Values with units, rules that span fields, and fingerprints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limit_lab.compose import compose
from limit_lab.config import (
    Answers,
    Data,
    Export,
    Finetune,
    Gauntlet,
    Hardware,
    Judge,
    Microworld,
    Mixture,
    Predicate,
    Source,
    Task,
)
from limit_lab.durations import Batch, Duration, documents
from limit_lab.errors import ConfigError
from limit_lab.fingerprints import fingerprint, plain, stated
from limit_lab.recipe import Lora, Loss


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("3ep", 3, "ep"),
        ("0.5ep", 0.5, "ep"),
        ("500step", 500, "step"),
        ("2kstep", 2000, "step"),
        ("40Mtok", 40e6, "tok"),
        ("1.5Btok", 1.5e9, "tok"),
    ],
)
def test_a_duration_is_a_value(text: str, amount: float, unit: str) -> None:
    assert Duration.parse(text, name="x") == Duration(amount=amount, unit=unit)


@pytest.mark.parametrize(
    "text", ["3", "ep", "-1ep", "0ep", "0.0Mtok", "3 ep", "3eps", "3Gtok", "3e2step", "1.ep", ".5ep", "", "3ep\n"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Duration.parse(text, name="finetune.export_at")
    assert str(caught.value) == (
        f"finetune.export_at={text!r} is no duration: write a positive one such as 3ep, 500step or 40Mtok."
    )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1ep", 21),  # 20 full batches and a partial one
        ("3ep", 63),
        ("0.5ep", 10),
        ("0.001ep", 1),
        ("500step", 500),
        ("480ktok", 100),  # of 48 documents with 100 tokens each
        ("1tok", 1),
    ],
)
def test_steps(text: str, steps: int) -> None:
    assert Duration.parse(text, name="x").steps(21, 4800.0) == steps


@given(st.integers(1, 5000), st.integers(1, 200), st.integers(1, 9))
def test_whole_epochs_show_every_document_and_no_empty_batch(n: int, batch: int, epochs: int) -> None:
    steps = Duration(amount=epochs, unit="ep").steps(Batch(amount=batch, unit="doc").epoch(n, 0.0, drop=False))
    assert (steps // epochs - 1) * batch < n <= steps // epochs * batch
    assert steps % epochs == 0


def test_a_duration_in_tokens_needs_the_mean_length() -> None:
    with pytest.raises(ConfigError, match="40000000 tokens needs the mean document length, which is unknown"):
        Duration.parse("40Mtok", name="x").steps(21)


def test_a_batch_is_a_value() -> None:
    assert documents("48doc", name="x") == 48
    for text in ("48", "0doc", "-1doc", "4.5doc", "048doc", "9ktok", "doc", "48docs", "48doc\n"):
        with pytest.raises(ConfigError, match=r"finetune.batch=.* is no batch: write a number of documents such as 48doc"):
            documents(text, name="finetune.batch")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("48doc", 48, "doc"), ("9ktok", 9000, "tok"), ("1.5ktok", 1500, "tok"), ("1Mtok", 10**6, "tok")],
)
def test_a_batch_counts_documents_or_tokens(text: str, amount: int, unit: str) -> None:
    assert Batch.parse(text, name="x") == Batch(amount=amount, unit=unit)


@pytest.mark.parametrize(
    "text", ["48", "0doc", "048doc", "4.5doc", "1kdoc", "0tok", "0.5tok", "9ktoks", "1Btok", "tok", "9 ktok"]
)
def test_what_is_no_batch_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Batch.parse(text, name="finetune.batch")
    assert str(caught.value) == f"finetune.batch={text!r} is no batch: write documents or tokens such as 48doc or 9ktok."


@given(st.integers(1, 5000), st.integers(1, 200))
def test_dropping_leaves_out_the_last_batch_of_an_epoch_only_when_it_is_not_full(n: int, amount: int) -> None:
    for unit in ("doc", "tok"):
        batch = Batch(amount=amount, unit=unit)
        kept, every = batch.epoch(n, float(n), drop=True), batch.epoch(n, float(n), drop=False)
        assert kept * amount <= n <= every * amount
        assert every - kept == (n % amount > 0)


def test_a_batch_in_tokens_needs_their_number() -> None:
    assert Batch(amount=9000, unit="tok").tokens(0.0) == 9000
    assert Batch(amount=48, unit="doc").tokens(100.0) == 4800
    with pytest.raises(ConfigError, match="a batch of 9,000 tokens needs the mean document length, which is unknown"):
        Batch(amount=9000, unit="tok").epoch(1000, 0.0, drop=False)


def finetune(**changes: Any) -> Callable[[], Finetune]:
    return lambda: Finetune(name="x", **changes)


def task(**changes: Any) -> Task:
    return Task(**{"label": "t", "type": "multiple_choice", "file": "t.jsonl", "category": "c", **changes})


def gauntlet(**changes: Any) -> Callable[[], Gauntlet]:
    return lambda: Gauntlet(**{"name": "g", "tasks": [task()], **changes})


def answers(**changes: Any) -> Callable[[], Answers]:
    return lambda: Answers(name="x", **changes)


def predicate(**changes: Any) -> Callable[[], Predicate]:
    fields = {"claim": "c", "measure": "win_rate", "kind": "better", "left": "a", "right": "b"}
    return lambda: Predicate(**{**fields, **changes})


def test_the_unchanged_ones_are_allowed() -> None:
    for make in (finetune(), gauntlet(), answers(), predicate()):
        make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Source(kind="files"), "data.sources.*.kind='files' is unknown: use microworld, file or hub"),
        (lambda: Source(kind="file"), "needs its file: set data.sources.<name>.file=rows.jsonl"),
        (lambda: Mixture(name="m", samples={"lima": 0}), "mixture.samples.lima=0 is no sample count"),
        (lambda: Mixture(name="m", selection="best"), "mixture.selection='best' is unknown"),
        (finetune(duration="3"), "finetune.duration='3' is no duration"),
        (finetune(duration="3ep", export_at=["4ep"]), "finetune.export_at=4ep lies beyond finetune.duration=3ep"),
        (finetune(export_at=["2ep", "1ep"]), "finetune.export_at=['2ep', '1ep'] does not ascend in one unit"),
        (finetune(export_at=["1ep", "500step"]), "does not ascend in one unit: write it as [2ep, 4ep, 6ep]"),
        (finetune(schedule_over="2ep"), "finetune.schedule_over=2ep ends before the training (3ep)"),
        (finetune(batch="1ktok"), "finetune.batch=1ktok holds less than one document may (finetune.max_seq_tokens=2048)"),
        (finetune(last_batch="keep"), "finetune.last_batch='keep' is unknown; known: drop, train"),
        (finetune(rows="pack"), "finetune.rows='pack' is unknown; did you mean 'packed'"),
        (finetune(on_too_long="truncate"), "which part is lost: write truncate_tail (the end of the response"),
        (lambda: Loss(weight="tokens"), "finetune.loss.weight='tokens' is unknown; did you mean 'token'"),
        (lambda: Loss(devices=0), "finetune.loss.devices=0 leaves nothing to train on"),
        (lambda: Lora(rank=-1), "finetune.lora.rank=-1 is no rank"),
        (lambda: Lora(alpha=0), "finetune.lora.alpha=0 must be above 0"),
        (finetune(batch="48"), "finetune.batch='48' is no batch"),
        (
            finetune(on_too_long="cut"),
            "finetune.on_too_long='cut' is unknown; known: drop, error, truncate_head, truncate_tail",
        ),
        (finetune(optimizer="adam"), "finetune.optimizer='adam' is unknown; did you mean 'adamw'"),
        (finetune(schedule="linar"), "did you mean 'linear'"),
        (finetune(precision="fp16"), "finetune.precision='fp16' is unknown; did you mean 'bf16'"),
        (finetune(warmup="5"), "finetune.warmup='5' is neither steps (50step) nor a share (0.05)"),
        (finetune(learning_rate=0.0), "finetune.learning_rate=0.0 must be above 0"),
        (finetune(clip_norm=-1.0), "finetune.clip_norm=-1.0 must be above 0"),
        (finetune(max_seq_tokens=7), "finetune.max_seq_tokens=7 leaves no room"),
        (lambda: Export(dtype="fp16"), "export.dtype='fp16' is unknown; did you mean 'bf16'?"),
        (lambda: Export(keep="none"), "export.keep='none' is unknown; known: all, export, records"),
        (lambda: Export(shard_gib=0), "export.shard_gib=0 holds no weight"),
        (lambda: Export(push="mine"), "export.push=mine names no repository of the Hugging Face Hub: write it as owner/name"),
        (lambda: Hardware(name="h", micro_batch="8"), "hardware.micro_batch='8' is no batch"),
        (lambda: Hardware(name="h", accelerator="tpu"), "hardware.accelerator='tpu' is unknown"),
        (lambda: Hardware(name="h", devices=2), "strategy=single uses one device, but hardware.devices=2"),
        (lambda: Hardware(name="h", strategy="zero4"), "hardware.strategy='zero4' is unknown; did you mean"),
        (lambda: Hardware(name="h", offload="optimiser"), "hardware.offload='optimiser' is unknown; did you mean 'optimizer'"),
        (lambda: Hardware(name="h", strategy="ddp", offload="optimizer"), "offload=optimizer is done by ZeRO, but"),
        (lambda: Hardware(name="h", sub_group_elements=0), "hardware.sub_group_elements=0 holds nothing"),
        (lambda: Hardware(name="h", bucket_elements=-1), "hardware.bucket_elements=-1 holds nothing"),
        (lambda: Hardware(name="h", offload="optimizer"), "but hardware.strategy=single: use zero1, zero2 or zero3"),
        (lambda: Hardware(name="h", head="first:29400"), "hardware.head=first:29400 is where nodes meet, and hardware.nodes=1"),
        (lambda: Hardware(name="h", nodes=3), "hardware.nodes=3: use hardware.strategy=zero3"),
        (lambda: task(type="choice"), "gauntlet.tasks.*.type='choice' is unknown"),
        (
            lambda: task(type="code_evaluation"),
            "the task t is a code_evaluation, which samples at random and runs what a model",
        ),
        (lambda: task(label="a b"), "gauntlet.tasks.*.label='a b' names no file of records"),
        (lambda: task(label="../t"), "gauntlet.tasks.*.label='../t' names no file of records"),
        (lambda: task(label="t/5-shot", shots=4), "the task t/5-shot has shots=4: make its label and its shots agree"),
        (lambda: task(label="t/5-shot", shots=5), "the task t/5-shot is asked with its 5 shots alone: set template: false"),
        (lambda: task(category=None, also=["c"]), "the task t counts in c without a category of its own"),
        (lambda: task(type="schema"), "the schema task t has no one question to put in a template"),
        (lambda: task(type="generation", has_categories=True), "the generation task t cannot be split by category"),
        (lambda: task(baseline=1.0), "the task t has baseline=1.0, which leaves no gain"),
        (lambda: task(shots=-1), "the task t asks for -1 shots"),
        (lambda: task(rows=0), "0 rows: use 0 and 1 or more"),
        (gauntlet(prompting=["bare"]), "gauntlet.prompting='bare' is unknown"),
        (
            gauntlet(tasks=[task(), task(file="u.jsonl")]),
            "gauntlet=g names a task twice: t, t; with further shots it is name/5",
        ),
        (gauntlet(prompting=["raw"]), "leaves out the template, which every study asks (here of t): add template, or say"),
        (gauntlet(shots="1"), "gauntlet.shots='1' is unknown"),
        (gauntlet(shots="0", prompting=["template"]), "gauntlet.shots=0 is about raw prompts: add raw"),
        (gauntlet(weighting="equal"), "gauntlet.weighting='equal' is unknown"),
        (gauntlet(compat="exact"), "gauntlet.compat='exact' is unknown"),
        (gauntlet(averages={"few": ["d"]}), "gauntlet.averages.few names categories without a task: d"),
        (gauntlet(averages={"c": ["c"]}), "gauntlet.averages.c has the name of a category or of the headline"),
        (gauntlet(averages={"average": ["c"]}), "gauntlet.averages.average has the name of a category or of the headline"),
        (gauntlet(whole_rows=5), "gauntlet.whole_rows=5 are the rows of gauntlet.whole=None: name it"),
        (gauntlet(average=["c", "d"]), "gauntlet.average names categories without a task: d"),
        (answers(temperature=-0.1), "answers.temperature=-0.1 is negative"),
        (answers(seeds=[0, 1]), "answers.seeds=[0, 1] would repeat one greedy answer"),
        (answers(seeds=[]), "answers.seeds=[] leaves nothing to answer"),
        (answers(top_p=0.0), "answers.top_p=0.0, answers.top_k=0: use 0 < top_p <= 1"),
        (answers(top_p=1.1), "answers.top_p=1.1"),
        (answers(top_k=-1), "answers.top_k=-1: use 0 < top_p <= 1 and top_k >= 0"),
        (answers(max_new_tokens=0), "answers.max_new_tokens=0 leaves nothing to answer"),
        (answers(batch=0), "answers.batch=0 leaves nothing to answer"),
        (answers(limit=0), "answers.limit=0 leaves nothing to answer"),
        (lambda: Judge(name="j", profile="gpt"), "judge.profile='gpt' is unknown"),
        (lambda: Microworld(part="tests"), "microworld.part='tests' is unknown; did you mean 'test'"),
        (predicate(measure="loss"), "study.predicates.*.measure='loss' is unknown"),
        (predicate(kind="beter"), "study.predicates.*.kind='beter' is unknown; did you mean 'better'"),
        (predicate(kind="keeps"), "the predicate 'c' keeps a gain over nothing: name the cell in 'over'"),
    ],
)
def test_a_contradiction_is_one_sentence(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        finetune(duration="3ep", export_at=["3ep"]),
        finetune(duration="3ep", export_at=["500step"]),
        finetune(duration="3ep", schedule_over="10ep"),
        finetune(duration="10ep", schedule_over="6ep", export_at=["4ep"]),
        finetune(batch="9ktok"),
        answers(temperature=0.7, seeds=[0, 1]),
        answers(limit=None, top_p=1.0, top_k=40),
        predicate(kind="keeps", over="none"),
        lambda: Hardware(name="h", devices=8, nodes=2, strategy="zero3"),
        lambda: Hardware(name="h", nodes=2, strategy="ddp", head="first:29400"),
        lambda: Hardware(name="h", strategy="zero1", offload="optimizer"),
        lambda: Source(kind="file", file="rows.jsonl"),
        lambda: Export(push="me/mine-*", keep="records"),
        lambda: task(type="schema", template=False),
    ],
)
def test_what_is_no_contradiction_is_allowed(make: Callable[[], object]) -> None:
    make()


def test_a_study_mixes_only_sources_that_its_data_has() -> None:
    study = compose([])
    with pytest.raises(ConfigError, match="names the source 'lma', which data=microworld does not have; did you mean 'lima'"):
        replace(study, mixture=Mixture(name="m", samples={"lma": 3}))
    with pytest.raises(ConfigError, match="names the source 'lima', which data=empty does not have; known: nothing"):
        replace(study, data=Data(name="empty"))
    with pytest.raises(ConfigError, match="do='stud' is unknown; did you mean 'study'"):
        replace(study, do="stud")


@pytest.mark.parametrize(("warmup", "steps"), [("50step", 50), ("0.05", 10), (".5", 100), ("0", 0)])
def test_warmup_is_steps_or_a_share_of_the_schedule(warmup: str, steps: int) -> None:
    assert Finetune(name="x", warmup=warmup).warmup_steps(200) == steps


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)


def turned(value: Any) -> Any:
    """The same value with every dictionary's keys in the opposite order, lists as tuples."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return tuple(map(turned, value)) if isinstance(value, list) else value


@given(VALUES)
def test_fingerprints_do_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert fingerprint(turned(value)) == fingerprint(value)


@given(VALUES, VALUES)
def test_fingerprints_differ_where_the_json_does(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_fingerprints_stay_what_they_were() -> None:
    """Finished stages are recognised by them: another algorithm would run everything again."""
    assert fingerprint({"b": [1, 2.5], "a": {"ü": None}}) == "616224f59136"
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_a_study_is_plain_json() -> None:
    study = compose([])
    assert json.loads(json.dumps(plain(study))) == plain(study)
    assert fingerprint(study) == fingerprint(compose([])) == fingerprint(plain(study))
    assert fingerprint(study) != fingerprint(compose(["seeds.training=1"]))
    assert plain({"a": (1, Duration(amount=3.0, unit="ep"))}) == {"a": [1, {"amount": 3.0, "unit": "ep"}]}


def test_what_was_added_and_stands_at_its_default_is_not_stated() -> None:
    recipe = compose([]).finetune
    assert {"loss", "lora", "rows", "export_at", "note"} & stated(recipe).keys() == set()
    assert stated(recipe).items() <= plain(recipe).items()
    changed = replace(recipe, loss=Loss(weight="document"), rows="padded")
    assert stated(changed) == stated(recipe) | {"loss": {"weight": "document", "microbatch": 4}, "rows": "padded"}
    assert stated({"a": [recipe]}) == {"a": [stated(recipe)]}
