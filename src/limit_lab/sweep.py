"""All cells of a study made: first the bases that its worlds lack, then what is not done yet, side by side.

A job that fails stops no other. A failed base fails the cells of its world, which are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from limit_lab import cell, side_by_side
from limit_lab.config import Study
from limit_lab.errors import DataError, LimitLabError
from limit_lab.estimate import distinct, pretraining, seconds
from limit_lab.fingerprints import fingerprint, plain
from limit_lab.jobs import queue
from limit_lab.jobs.order import Numbered
from limit_lab.jobs.work import in_order
from limit_lab.microworld.checkpoint import base_key, has_base, missing
from limit_lab.plan import duration
from limit_lab.progress import UNKNOWN, StudyProgress
from limit_lab.side_by_side import Job, at_once
from limit_lab.tracking import Tracker


def make(cells: Sequence[Study], tracker: Tracker) -> list[str]:
    """Make every cell that is not done; returns the ids of all, in the order of ``cells``.

    Raises: DataError for data that a cell cannot use, before any cell is trained; LimitLabError naming everything that
    failed, when all the rest is made.
    """
    numbered, bases = list(enumerate(distinct(cells), 1)), missing(cells)
    expected = {base_key(study): pretraining(study) for study in bases}
    expected |= {cell.key(at, study, stage): time for at, study in numbered for stage, time in seconds(study).items()}
    with StudyProgress(expected) as progress:
        failed = _bases(bases, progress)
        able = [(at, study) for at, study in numbered if _has_base(study)]
        waiting = [(at, study) for at, study in able if not _done(study)]
        for _, study in waiting:
            cell.require_weights(study)
        # training seeds change nothing of what is read
        for study in {fingerprint({**plain(study), "seeds": study.seeds.subset}): study for _, study in waiting}.values():
            cell.ready(study)
        left = {at for at, _ in waiting}
        _skip([(at, study) for at, study in able if at not in left], len(numbered), progress, tracker)
        failed |= _cells(waiting, len(numbered), progress, tracker)
    if failed:
        raise LimitLabError("\n".join(f"{name}: {said}" for name, said in failed.items()))
    return [cell.folder_of(study).name for study in cells]


def _has_base(study: Study) -> bool:
    return not study.model.embedded or has_base(study.microworld, Path(study.runs))


def _bases(lacking: Sequence[Study], progress: StudyProgress) -> dict[str, str]:
    """Pretrain what worlds lack; returns what failed, by name."""
    if not lacking:
        return {}
    from limit_lab.microworld import pretrain

    jobs = [
        Job(name=base_key(study), seconds=_known([pretraining(study)]), work=partial(pretrain.make, study)) for study in lacking
    ]
    workers = at_once(lacking[-1], len(jobs))
    _announce(f"{len(jobs)} bases to make first", lacking[-1], workers, duration([], lacking))
    return side_by_side.make(jobs, workers, progress, lambda _: None)


def _skip(done: Sequence[Numbered], of: int, progress: StudyProgress, tracker: Tracker) -> None:
    for at, study in done:
        name = cell.folder_of(study).name
        print(f"cell {at}/{of}  {name}", flush=True)
        for stage in seconds(study):
            progress.end(cell.key(at, study, stage))
        tracker.tell("cells", name)


def _cells(waiting: Sequence[Numbered], of: int, progress: StudyProgress, tracker: Tracker) -> dict[str, str]:
    """Make the cells that are not done, and tell the tracker of each; returns what failed, by name."""
    if not waiting:
        return {}
    trainings = _trainings(waiting)
    last, time = waiting[-1][1], duration([study for _, study in waiting])

    def tell(name: str) -> None:
        for _, study in trainings[name]:
            tracker.tell("cells", cell.folder_of(study).name)

    if last.launch.kind != "local":
        with queue.opened(last) as scheduler:
            print(f"{len(waiting)} of {of} cells to make by {last.launch.name}, {len(trainings)} jobs: {time}", flush=True)
            return queue.make(trainings, of, scheduler, progress, tell)
    jobs = [
        Job(
            name=name,
            seconds=sum(_known(seconds(study).values()) for _, study in own),
            work=partial(in_order, own, of),
        )
        for name, own in trainings.items()
    ]
    workers = at_once(last, len(jobs))
    _announce(f"{len(waiting)} of {of} cells to make", last, workers, time)
    return side_by_side.make(jobs, workers, progress, lambda job: tell(job.name))


def _trainings(waiting: Sequence[Numbered]) -> dict[str, list[Numbered]]:
    """The cells that one training makes, by name: all its exports in their order, or the only one."""
    found: dict[str, list[Numbered]] = {}
    for at, study in waiting:
        whole = replace(study, finetune=replace(study.finetune, export_at=[]))
        found.setdefault(fingerprint(whole), []).append((at, study))
    return {f"{own[0][0]} {own[0][1].mixture.name}": own for own in found.values()}


def _done(study: Study) -> bool:
    """Whether nothing is left to do; a cell with damaged stages is made, which says what is damaged."""
    try:
        return cell.settled(study)
    except DataError:
        return False


def _announce(what: str, study: Study, workers: int, time: str) -> None:
    together = f", {workers} at a time" if workers > 1 else ""
    print(f"{what}{together}: {time} at the speed stated for hardware={study.hardware.name}", flush=True)


def _known(times: Iterable[float | None]) -> float:
    return sum(UNKNOWN if time is None else time for time in times)
