"""The golden loss trace: the shipped base on a small mixture, in float32. Rewrite: python -m tests.finetune.golden"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from limit_lab.compose import compose
from limit_lab.finetune.journal import read_metrics
from limit_lab.finetune.train import train
from limit_lab.microworld.checkpoint import SHIPPED
from limit_lab.mixture.mix import mix
from limit_lab.model.loading import load_model, load_tokenizer

FILE = Path(__file__).with_name("golden.json")
RECORDED = ("step", "loss", "grad_norm", "learning_rate", "targets")
OVERRIDES = [
    "+mixture.samples={lima: 60, instruct: 120}",
    "finetune.duration=2ep",
    "finetune.precision=fp32",
    "hardware.micro_batch=8doc",
]


def trace(folder: Path) -> list[dict[str, float]]:
    """Loss, gradient norm, learning rate and targets of every step."""
    study = compose(OVERRIDES, None)
    mixed = mix(study, load_tokenizer(SHIPPED))
    train(load_model(SHIPPED), mixed.documents, study.finetune, study.hardware, folder, seed=0, say=False)
    return [{name: row[name] for name in RECORDED} for row in read_metrics(folder / "metrics.jsonl")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in trace(Path(place))) + "\n]\n", encoding="utf-8")
