"""The help page: what this is, the words, the commands, the groups with their options, the verbs, the environment."""

from __future__ import annotations

import textwrap
from pathlib import Path

from limit_lab.compose import directories
from limit_lab.config import NUMERICS
from limit_lab.overrides import ADDED, groups

INTRODUCTION = """\
limit_lab: how little instruction data is enough, and of which kind?

It fine-tunes a base model on mixtures of instruction data and scores every result in two ways: with a gauntlet of
benchmarks, and with a judge that compares open answers. Every number comes with an interval that says what it covers.
"""

WORDS = {
    "source": "a data set",
    "mixture": "so many samples from each source; none is the untouched base",
    "cell": "one base model, mixture, recipe and seeds: fine-tuned, exported, scored, answering the prompts",
    "pair": "a cell and the baseline cell, compared by a judge",
    "study": "an ordered set of cells and their pairs; a missing baseline is made first",
    "report": "what the cells and pairs of a study say",
}

COMMANDS = {
    "+experiment=lima_plus_instruct": "one study in the embedded world, on a laptop",
    "+experiment=micro_limit": "the pattern of LIMIT in the embedded world, four cells",
    "+experiment=lima_plus_instruct do=plan": "what it would do and cost; starts nothing",
    "finetune=default do=plan plan.lookup=true": "which hardware runs MPT-7B and 30B, and how",
    "do=fetch gauntlet=v0 data.dir=/path/to/data": "the original task files, checked; a cut fetch continues",
    "+experiment=real_rows data.dir=/path/to/data": "every stage on your local rows and tasks",
    "do=study mixture=lima mixture.samples.lima=500": "any value of the configuration can be set",
    "+grid=micro_paper do=plan": "a whole grid: mixtures times seeds and worlds",
    "do=diff diff.left=lima diff.right=instruct": "two finished cells, by id, by the beginning of one, or by folder",
    "do=items items.cell=instruct items.task=facts_mc items.only=wrong": "what it gets wrong; items.against=lima shows both",
    "-m mixture=lima,instruct do=plan": "several calls, one after another",
    "--config-dir DIR +experiment=mine": "with groups of your own, such as DIR/experiment/mine.yaml",
    "+experiment=micro_limit --cfg job": "the composed configuration",
}

VERBS = {
    "study": "mix, fine-tune, export, gauntlet, answer, judge, record, report; what is done is skipped (the default)",
    "plan": "print samples, steps, memory, time, disk and calls; start nothing",
    "status": "which cells are done, running, failed, stopped or waiting, and how long the rest takes",
    "report": "write the page again from what is recorded",
    "diff": "what differs between the cells diff.left and diff.right, and by how much; writes nothing",
    "harness": "ask every cell's model the tasks of lm-evaluation-harness in harness.tasks: a suite of its own, in no average",
    "items": "browse what items.cell made of single items of items.task: question, choices, losses; writes nothing",
    "dashboard": "write the study's Weights & Biases workspace, and publish it where tracking=wandb has a key",
    "export": "print the Hugging Face folders of finished cells, and push them where export.push names a repository",
    "mix": "draw, tokenise and pack the mixtures, and write their cards",
    "fetch": "fetch the original files of the suite gauntlet=... that data.dir does not hold yet, and check those it holds",
    "pretrain_micro": "pretrain the base model of the embedded world again",
}

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "the GPUs that a run may use",
    "WANDB_API_KEY": "the key of tracking=wandb, where 'wandb login' left none; without a key it works offline",
}


def page(user: Path | None = None) -> str:
    """The whole page; options come from the shipped groups and the user's ``--config-dir``. Raises: ConfigError."""
    return "\n".join(
        [
            INTRODUCTION,
            *_section("words", WORDS),
            *_section("commands: python -m limit_lab ...", COMMANDS),
            *_section("verbs: do=...", VERBS),
            *_section("groups: group=option", _options(user)),
            *_section("environment", ENVIRONMENT),
            "exit codes: 0 done, 1 failed, 2 configuration refused, 75 to be continued after a signal, 130 interrupted; "
            f"numerics version {NUMERICS}",
        ]
    )


def _options(user: Path | None) -> dict[str, str]:
    found = groups(directories(user))
    return {("+" if name in ADDED else "") + name: ", ".join(options) for name, options in found.items() if options}


def _section(title: str, entries: dict[str, str]) -> list[str]:
    width = min(max(len(name) for name in entries), 48) + 2
    lines = [title]
    for name, text in entries.items():
        lines += textwrap.wrap(text, 124, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2))
    return [*lines, ""]
