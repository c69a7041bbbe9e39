"""The launcher's side with a scheduler that only writes down what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from limit_lab import cell, store
from limit_lab.compose import compose
from limit_lab.config import Study
from limit_lab.jobs import order, queue
from limit_lab.jobs.order import Numbered, Reports
from limit_lab.progress import StudyProgress

#: What a job does when it is submitted: its reports.
Script = Callable[[Reports], None]


class Ended:
    """A job that has ended when it is looked at."""

    def __init__(self, ended: bool = True) -> None:
        self.ended = ended
        self.cancelled = False

    def over(self) -> bool:
        return self.ended

    def cancel(self) -> None:
        self.cancelled = True


class Written:
    """A scheduler that reports what the tests wrote for each submission of a job."""

    def __init__(self, scripts: dict[str, list[Script]]) -> None:
        self.scripts = scripts
        self.submitted: list[str] = []
        self.jobs: list[Ended] = []

    def submit(self, name: str, command: list[str], folder: Path) -> Ended:
        assert command[-2:] == ["limit_lab.jobs", str(folder)]
        self.submitted.append(name)
        self.scripts[name].pop(0)(Reports(folder))
        self.jobs.append(Ended())
        return self.jobs[-1]


def tells(*reports: tuple[object, ...]) -> Script:
    def script(folder: Reports) -> None:
        for kind, *content in reports:
            folder.tell(str(kind), *content)

    return script


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(queue, "PAUSE", 0.01)
    monkeypatch.setattr(queue, "LATE", 0.02)
    monkeypatch.setattr(cell, "folder_of", lambda study: tmp_path / "cells" / study.mixture.name)
    return compose([f"runs={tmp_path}", "launch=slurm", "launch.requeues=1"])


def made(study: Study, scripts: dict[str, list[Script]]) -> tuple[dict[str, str], list[str], Written]:
    scheduler, done = Written(scripts), list[str]()
    trainings: dict[str, list[Numbered]] = {name: [(1, study)] for name in scripts}
    failed = queue.make(trainings, len(scripts), scheduler, StudyProgress({"stage": 10.0}), done.append)
    return failed, done, scheduler


LEFT = tells(("left", "fine-tuning stopped on SIGUSR2 after step 3 of 6."))
DONE = tells(("begin", "stage"), ("line", "good: it ran"), ("end", "stage"), ("done",))


def test_a_failing_job_stops_no_other(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    failed, done, scheduler = made(study, {"bad": [tells(("failed", "it broke: mend it."))], "good": [DONE]})
    assert (failed, done) == ({"bad": "it broke: mend it."}, ["good"])
    assert capsys.readouterr().out == "good: it ran\n"
    assert not any(job.cancelled for job in scheduler.jobs)


def test_a_job_that_ends_without_a_word_has_failed(study: Study) -> None:
    failed, _, _ = made(study, {"dead": [tells(("begin", "stage"))]})
    assert failed["dead"].startswith("its job ended without a word, perhaps for memory or time (its logs are in ")


def test_a_job_that_was_asked_to_end_goes_on(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    failed, done, scheduler = made(study, {"long": [LEFT, DONE]})
    assert (failed, done, scheduler.submitted) == ({}, ["long"], ["long", "long"])
    assert capsys.readouterr().out.startswith("long: fine-tuning stopped on SIGUSR2 after step 3 of 6.\n")


def test_a_job_that_never_comes_to_its_end_is_given_up(study: Study) -> None:
    failed, _, scheduler = made(study, {"long": [LEFT, LEFT]})
    assert failed == {"long": "it was asked to end 2 times: raise launch.minutes or launch.requeues, and run again."}
    assert scheduler.submitted == ["long", "long"]


def test_what_another_launcher_makes_comes_last(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    lock = store.locked(cell.folder_of(study))
    lock.__enter__()

    def frees(reports: Reports) -> None:
        lock.__exit__(None, None, None)
        DONE(reports)

    scheduler, done = Written({"held": [DONE], "free": [frees]}), list[str]()
    other = compose([f"runs={study.runs}", "launch=slurm", "mixture=none"])
    trainings: dict[str, list[Numbered]] = {"held": [(1, study)], "free": [(2, other)]}
    assert queue.make(trainings, 2, scheduler, StudyProgress({"stage": 1.0}), done.append) == {}
    assert scheduler.submitted == done == ["free", "held"]
    assert "held: another process makes it; the others go first\n" in capsys.readouterr().out


def test_a_job_that_found_its_cell_taken_is_submitted_again(study: Study) -> None:
    failed, done, scheduler = made(study, {"taken": [tells(("busy",)), DONE]})
    assert (failed, done, scheduler.submitted) == ({}, ["taken"], ["taken", "taken"])


def test_what_the_disk_says_is_passed_on_when_all_have_ended(study: Study) -> None:
    full = tells(("full", 28, "No space left on device", "runs/x"))
    done = list[str]()
    trainings: dict[str, list[Numbered]] = {name: [(1, study)] for name in ("full", "good")}
    with pytest.raises(OSError, match="No space left") as caught:
        queue.make(trainings, 2, Written({"full": [full], "good": [DONE]}), StudyProgress({"stage": 1.0}), done.append)
    assert (caught.value.filename, done) == ("runs/x", ["good"])


def test_jobs_are_cancelled_on_the_way_out(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue.time, "sleep", interrupted)
    scheduler = Written({"one": [tells()]})
    with pytest.raises(KeyboardInterrupt):
        queue.make({"one": [(1, study)]}, 1, scheduler, StudyProgress({}), print)
    assert [job.cancelled for job in scheduler.jobs] == [True]
    assert (Path(study.runs) / "studies" / study.study.name / "jobs" / "one.1" / order.ORDER).is_file()
