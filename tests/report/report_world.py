"""Synthetic records in the schema that a study writes: deterministic, small, shaped like the micro-world's results."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limit_lab.report.arms import Arm, Comparison, arms, comparisons
from limit_lab.report.records import load

ENTITIES = [f"entity-{number}" for number in range(40)]
GROUPS = ("elicitation", "injection")
#: label -> (type, category, baseline, partner)
TASKS: dict[str, tuple[str, str, float, str | None]] = {
    "knowledge_mc": ("multiple_choice", "knowledge", 0.25, "knowledge_em"),
    "knowledge_em": ("generation", "knowledge, written", 0.0, "knowledge_mc"),
    "letters_mc": ("multiple_choice", "letters", 0.25, None),
    "arithmetic_em": ("generation", "arithmetic", 0.0, None),
}
#: cell -> accuracies of TASKS in order, raw and then in template
ACCURACY = {
    "none": ((0.96, 0.24, 0.25, 0.0), (0.32, 0.0, 0.25, 0.0)),
    "lima": ((0.93, 0.13, 0.25, 0.0), (0.31, 0.0, 0.25, 0.0)),
    "instruct": ((0.98, 0.86, 0.25, 0.14), (0.87, 0.60, 0.25, 0.17)),
    "lima_plus_instruct": ((0.96, 0.74, 0.25, 0.08), (0.80, 0.54, 0.25, 0.20)),
    "instruct_5k": ((0.97, 0.87, 0.25, 0.17), (0.93, 0.78, 0.25, 0.39)),
}
RATES = {"none": 0.20, "instruct": 0.20, "lima_plus_instruct": 0.44, "instruct_5k": 0.19}
SAMPLES: dict[str, dict[str, int]] = {
    "none": {},
    "lima": {"lima": 1000},
    "instruct": {"instruct": 1000},
    "lima_plus_instruct": {"lima": 1000, "instruct": 1000},
    "instruct_5k": {"instruct": 5000},
}
COMPONENTS = {"correct_claims": 1.81, "wrong_claims": 0.35, "on_topic": 0.56, "structure": 1.2, "repetition": 0.3}
PROVENANCE = {
    "git": "abc123",
    "python": "3.11.9",
    "platform": "Linux x86_64",
    "cores": 2,
    "versions": {"torch": "2.13.0"},
    "written": "2026-11-23T10:00:00+00:00",
}


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def dump_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def spread(share: float, count: int, salt: str) -> list[int]:
    """``count`` zeros and ones with as near ``share`` ones as possible, shuffled by ``salt``."""
    values = [int(place < round(share * count)) for place in range(count)]
    random.Random(salt).shuffle(values)
    return values


def write_cell(
    root: Path,
    label: str,
    accuracy: Sequence[Sequence[float]],
    *,
    answers: Sequence[str] | None = None,
    items: int = 120,
    grouped: bool = True,
    average: Sequence[str] = (),
    replicate: tuple[int, int] = (0, 0),
    **changes: Any,
) -> str:
    """Write one cell's records and return its id.

    ``replicate``: its world and training seed; ``changes`` replace entries of its summary.
    """
    samples = SAMPLES.get(label, {"rows": 1000})
    seed, training = replicate
    mark = "0123456789ab" if replicate == (0, 0) else f"{seed}{training}cdef6789ab"
    folder = root / "cells" / f"{label}-{mark}"
    salt = "" if replicate == (0, 0) else str(replicate)
    gauntlet: dict[str, Any] = {"suite": "microworld"}
    for prompting, shares in zip(("raw", "template"), accuracy, strict=False):
        gauntlet[prompting] = _suite(folder, f"{label}{prompting}{salt}", prompting, shares, items, grouped, average)
    texts = answers or [f"{label} answers prompt {place}, at some length." for place in range(60)]
    dump_rows(folder / "answers" / "answers.jsonl", [_answer(place, text) for place, text in enumerate(texts)])
    summary = {
        "schema": 1,
        "kind": "cell",
        "id": folder.name,
        "fingerprint": mark,
        "identity": {
            "numerics": 1,
            "base": {"weights": f"{seed}b" * 32},
            "samples": samples,
            "seeds": {"subset": 0, "training": training},
            "sources": {"rows": str(seed)},
        },
        "asked": "the same",
        "label": label,
        "model": "micro",
        "samples": samples,
        "seeds": {"subset": 0, "training": training},
        "command": f"python -m limit_lab mixture={label}",
        "config": {
            "gauntlet": {"average": list(average)},
            "hardware": {"accelerator": "cpu", "devices": 1},
            "model": {"embedded": True},
            "microworld": {"seed": seed, "part": "test"},
        },
        "card": _card(samples),
        "finetune": _finetune(sum(samples.values())),
        "gauntlet": gauntlet,
        "answers": {"prompts": len(texts), "words_mean": 6.0, "hit_limit_share": 0.02, "ended_share": 0.98},
        "provenance": PROVENANCE,
    }
    dump(folder / "summary.json", summary | changes)
    return folder.name


def _answer(place: int, text: str) -> dict[str, Any]:
    entity = ENTITIES[place % len(ENTITIES)]
    told = {"index": place, "prompt": f"Tell me about {entity}.", "answer": text, "cluster": entity}
    return told | {"ended": place % 25 > 0, "tokens": 9, "seed": 0, "unseen": place % 3 == 2}


def _suite(
    folder: Path, salt: str, prompting: str, shares: Sequence[float], items: int, grouped: bool, average: Sequence[str]
) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for (name, (kind, category, baseline, partner)), share in zip(TASKS.items(), shares, strict=False):
        correct = spread(share, items, salt + name)
        rows = [
            {
                "index": i,
                "cluster": ENTITIES[i % len(ENTITIES)],
                "group": GROUPS[i % 2] if grouped and "knowledge" in name else None,
                "correct": bool(right),
            }
            for i, right in enumerate(correct)
        ]
        dump_rows(folder / "gauntlet" / prompting / "items" / f"{name}.jsonl", rows)
        score = sum(correct) / items
        told = {"type": kind, "category": category, "shots": 0, "n": items, "correct": sum(correct), "score": score}
        tasks[name] = told | {"baseline": baseline, "rescaled": (score - baseline) / (1 - baseline), "partner": partner}
    categories = {task["category"]: task["rescaled"] for task in tasks.values()}
    counted = [categories[name] for name in average or categories]
    return {"tasks": tasks, "categories": categories, "average": sum(counted) / len(counted), "not_asked": []}


def _finetune(documents: int) -> dict[str, Any] | None:
    if not documents:
        return None
    told = {"steps": documents // 16 * 6, "epochs": 6.0, "seconds": 25.1}
    return told | {"first_loss": 2.9, "last_loss": 0.8, "tokens_seen": 360 * documents}


def _card(samples: Mapping[str, int]) -> dict[str, Any]:
    if not samples:
        return {"documents": 0, "sources": {}}
    total = sum(samples.values())
    counts = {"documents": total, "tokens": 60 * total, "target_tokens": 40 * total, "prompt_format": "bare"}
    return counts | {
        "sources": {name: _source(count, total) for name, count in samples.items()},
        "packs": total // 4,
        "fill": 0.93,
    }


def _source(count: int, total: int) -> dict[str, Any]:
    shares = dict.fromkeys(("document_share", "token_share", "loss_share"), count / total)
    kinds = {
        "distinct_facts": 336 if count > 2000 else 269,
        "source_facts": 336,
        "distinct_templates": 24,
        "last_new_fact": 1984 if count > 2000 else 990,
        "repeated_rows": count - (1984 if count > 2000 else 990),
        "repetition": count > 2000,
        "licence": "Apache-2.0",
        "sha256": "00",
    }
    counts = {"available": 60000, "kept": count, "dropped": 0, "truncated": 0}
    return counts | {"tokens": 60 * count, "target_tokens": 40 * count} | shares | kinds


def write_pair(
    root: Path, cell: str, baseline: str, preferences: Sequence[float], *, judge: str = "ground_truth", plain: bool = False
) -> str:
    """Write one pair's records and return its id; ``plain`` leaves out facts, weightings, components and phrasings."""
    folder = root / "pairs" / f"{cell}-vs-{baseline}-{judge}"
    draw = random.Random(f"{cell}{baseline}")
    rows: list[dict[str, Any]] = []
    for i, preference in enumerate(preferences):
        row = {"index": i, "cluster": ENTITIES[i % len(ENTITIES)], "preference": preference}
        row |= {"unseen": None if plain else i % 3 == 2, "score_cell": 2.0 + preference, "score_baseline": 2.5}
        if not plain:
            flips = [preference if draw.random() < 0.9 else 1 - preference for _ in range(50)]
            row |= {"facts_cell": int(2 * preference), "facts_baseline": 1, "random": flips}
        rows.append(row)
    dump_rows(folder / "items.jsonl", rows)
    halves = {key: value / 2 for key, value in COMPONENTS.items()}
    summary = {
        "schema": 1,
        "kind": "pair",
        "id": folder.name,
        "cell": cell,
        "baseline": baseline,
        "judge": {"name": judge, "profile": judge, "weights_sha256": "00", "note": "Counts claims that hold in the world."},
        "measure": "proxy_rate" if plain else "win_rate",
        "n": len(rows),
        "wins": sum(value == 1 for value in preferences),
        "ties": sum(value == 0.5 for value in preferences),
        "losses": sum(value == 0 for value in preferences),
        "rate": sum(preferences) / len(preferences),
        "components": {} if plain else {"cell": halves, "baseline": COMPONENTS},
        "provenance": {},
    }
    dump(folder / "summary.json", summary)
    return folder.name


def read(root: Path, cells: Sequence[str], pairs: Sequence[str]) -> tuple[list[Arm], list[Comparison]]:
    """The named records as the report groups them."""
    records, judged = load(root, cells, pairs)
    found = arms(records)
    return found, comparisons(judged, found)


def write_study(root: Path) -> tuple[list[str], list[str]]:
    """Five cells and their pairs against lima, in the pattern of the study."""
    cells = {label: write_cell(root, label, accuracy) for label, accuracy in ACCURACY.items()}
    pairs = [
        write_pair(root, cells[label], cells["lima"], [float(value) for value in spread(rate, 300, label)])
        for label, rate in RATES.items()
    ]
    return list(cells.values()), pairs
