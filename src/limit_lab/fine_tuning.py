"""A cell's fine-tuning as one piece of work: load the base, train it, write the export; by one process or by each rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limit_lab.config import Study
from limit_lab.prompt import prompt_ids

if TYPE_CHECKING:
    from limit_lab.finetune.observe import Watch
    from limit_lab.mixture.mix import Mixed
    from limit_lab.model.causal import CausalLM

#: Prompts that are answered on the way through a training.
SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a fine-tuning keeps its state, where the export goes, and the texts ``beside`` its weights, by file name.

    ``keep`` leaves a checkpoint of the end.
    """

    state: Path
    export: Path
    beside: Mapping[str, str]
    keep: bool


def run(study: Study, mixed: Mixed, places: Places, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Fine-tune on ``mixed`` and export, here or, where a strategy spreads the work, with a process for every device.

    Returns what `finetune.train` tells.

    Raises: as `finetune.train` and `model.export` do.
    """
    watch = watched(study, mixed)
    if study.hardware.strategy == "single":
        return here(study, mixed, places, watch, progress)
    from limit_lab.ranks import start

    return start.run(study, mixed, places, progress)


def here(
    study: Study, mixed: Mixed, places: Places, watch: Watch, progress: Callable[[int, int], None], *, say: bool = True
) -> dict[str, Any]:
    """The work of this process: all of it, or one rank's part. Raises: as `run` does."""
    import torch

    from limit_lab.finetune import gathering
    from limit_lab.finetune.loading import load
    from limit_lab.finetune.train import train
    from limit_lab.model.bases import base_folder

    base, dtype = base_folder(study), torch.bfloat16 if study.export.dtype == "bf16" else torch.float32

    def hand_over(model: CausalLM) -> None:
        """Write what was trained; of several ranks the first one does, with the pieces of all."""
        size = int(study.export.shard_gib * 2**30)
        gathering.export(model, base, places.export, beside=places.beside, dtype=dtype, shard_bytes=size)

    return train(
        load(base, study.hardware, study.finetune),
        mixed.documents,
        study.finetune,
        study.hardware,
        places.state,
        seed=study.seeds.training,
        say=say,
        progress=progress,
        keep=places.keep,
        watch=watch,
        hand_over=hand_over,
    )


def watched(study: Study, mixed: Mixed, *, say: bool = True) -> Watch:
    """What the training is watched with; says which source has too few rows left to hold out."""
    from limit_lab.finetune.observe import Prompts, Watch
    from limit_lab.model.bases import open_prompts, tokenizer_of
    from limit_lab.shapes import shape_of

    wanted = study.finetune.held_out
    for source, own in mixed.held_out.items():
        if say and len(own) < wanted:
            print(f"  held out: {len(own)} of {wanted} documents of {source}, which has no more rows that fit", flush=True)
    prompts = None
    if study.finetune.samples_every_steps:
        tokenizer = tokenizer_of(study)
        asked = [row["prompt"] for row in open_prompts(study)[:SAMPLES]]
        prompts = Prompts(ids=[prompt_ids(tokenizer, text, study.prompt.format) for text in asked], tokenizer=tokenizer)
    return Watch(shape=shape_of(study.model), held_out=mixed.held_out, prompts=prompts)
