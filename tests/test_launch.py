"""Which launches are refused, and what is looked at where the cells are made elsewhere."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from limit_lab import preflight
from limit_lab.compose import compose
from limit_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("launch.kind=pbs", "launch.kind='pbs' is unknown"),
        ("launch.executor=debug", "launch.executor='debug' is unknown"),
        ("launch.minutes=0", "launch.minutes=0 leaves nothing to run with: use 1 or more."),
        ("launch.cpus=0", "launch.cpus=0 leaves nothing to run with: use 1 or more."),
        ("launch.requeues=-1", "launch.requeues=-1 is negative: use 0 for jobs that are never continued."),
        ("launch.minutes=2", "launch.signal_seconds=120 is no less than launch.minutes=2"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["launch=slurm", given])


def test_ray_gives_a_cell_one_node() -> None:
    with pytest.raises(ConfigError, match=r"launch=ray gives a cell one node, and hardware\.nodes=2: use launch=slurm"):
        compose(["launch=ray", "hardware=8x80gb", "hardware.nodes=2"])


@pytest.mark.parametrize(("launch", "library"), [("slurm", "submitit"), ("ray", "ray")])
def test_what_is_not_installed_is_named_with_its_extra(launch: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else real(name))
    sentence = f"launch={launch} needs {library}, which is not installed: pip install 'limit_lab[{launch}]'."
    assert sentence in preflight.problems([compose([f"launch={launch}"])])


def test_slurm_is_where_sbatch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    without = [said for said in preflight.problems([compose(["launch=slurm"])]) if "sbatch" in said]
    assert len(without) == 1
    assert not [said for said in preflight.problems([compose(["launch=slurm", "launch.executor=local"])]) if "sbatch" in said]


@pytest.mark.parametrize(
    ("given", "looked_at"),
    [
        (["launch=local"], True),
        (["launch=slurm"], False),
        (["launch=slurm", "launch.executor=local"], True),
        (["launch=ray"], True),
        (["launch=ray", "launch.address=auto"], False),
    ],
)
def test_this_machines_devices_count_where_it_makes_the_cells(
    given: list[str], looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "gpus", lambda: 0)
    found = preflight.problems([compose(["hardware=gpu", *given])])
    assert any("has no NVIDIA GPU" in said for said in found) == looked_at
