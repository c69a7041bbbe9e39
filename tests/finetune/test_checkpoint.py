"""Which checkpoint a run continues from, after a kill at any moment, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from limit_lab.config import Hardware
from limit_lab.errors import DataError
from limit_lab.finetune import universal
from limit_lab.finetune.checkpoint import CHECKPOINT, COMPLETE, OLD, PARTIAL, completed_steps, for_any_ranks, remove, settle

ALONE = Hardware(name="test")
TWO = Hardware(name="test", strategy="zero3", devices=2)


def in_pieces(place: Path, step: int, ranks: int = 2, stage: int = 3, optimizer: str = "lionw") -> None:
    place.mkdir(parents=True)
    (place / "piece.pt").write_bytes(b"12345678")
    state = {"global_step": step, "ranks": ranks, "stage": stage, "optimizer": optimizer, "files": {"piece.pt": 8}}
    (place / COMPLETE).write_text(json.dumps(state))


def whole(place: Path, step: int) -> None:
    torch.save({"global_step": step}, place)


def test_what_an_interrupted_save_left_is_cleared_and_the_last_valid_one_stands(tmp_path: Path) -> None:
    in_pieces(tmp_path / CHECKPOINT, 4)
    in_pieces(tmp_path / OLD, 2)
    (tmp_path / PARTIAL).mkdir()
    assert completed_steps(settle(tmp_path, TWO)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT]


def test_a_kill_while_the_old_one_stands_aside_gives_it_back(tmp_path: Path) -> None:
    in_pieces(tmp_path / OLD, 2)
    in_pieces(tmp_path / PARTIAL, 4)
    assert completed_steps(settle(tmp_path, TWO)) == 2


def test_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    assert completed_steps(settle(tmp_path, ALONE)) == 0
    remove(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "unmarked"])
def test_a_checkpoint_without_all_its_pieces_is_damaged(tmp_path: Path, damage: str) -> None:
    in_pieces(tmp_path / CHECKPOINT, 4)
    if damage == "missing":
        (tmp_path / CHECKPOINT / "piece.pt").unlink()
    elif damage == "truncated":
        (tmp_path / CHECKPOINT / "piece.pt").write_bytes(b"1234")
    else:
        (tmp_path / CHECKPOINT / COMPLETE).unlink()
    with pytest.raises(DataError, match="is damaged: delete it, and the same command starts"):
        settle(tmp_path, TWO)


@pytest.mark.parametrize(
    ("hardware", "written"),
    [
        (ALONE, "ZeRO stage 3 on 2 devices"),
        (Hardware(name="test", strategy="zero3", devices=3), "ZeRO stage 3 on 2 devices"),
        (Hardware(name="test", strategy="zero2", devices=2), "ZeRO stage 3 on 2 devices"),
        (Hardware(name="test", strategy="ddp", devices=2), "ZeRO stage 3 on 2 devices"),
    ],
)
def test_pieces_are_read_by_what_wrote_them(tmp_path: Path, hardware: Hardware, written: str) -> None:
    in_pieces(tmp_path / CHECKPOINT, 4)
    with pytest.raises(DataError, match=f"holds 4 steps written by {written}, and hardware.strategy={hardware.strategy}"):
        settle(tmp_path, hardware)
    assert completed_steps(settle(tmp_path, TWO)) == 4


def test_pieces_of_adamw_are_converted_once_for_any_number_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(tmp_path / CHECKPOINT, 4, optimizer="adamw")
    asked: list[int] = []

    def write(pieces: Path, folder: Path, ranks: int) -> None:
        asked.append(ranks)
        folder.mkdir()
        (folder / "weight.pt").write_bytes((pieces / "piece.pt").read_bytes() * 2)

    monkeypatch.setattr(universal, "write", write)
    assert not for_any_ranks(settle(tmp_path, TWO))
    for devices in (3, 1, 2):
        found = settle(tmp_path, Hardware(name="test", strategy="zero3", devices=devices))
        assert (completed_steps(found), for_any_ranks(found)) == (4, True)
        assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert asked == [2]
    with pytest.raises(DataError, match="written by ZeRO stage 3 on any number of devices"):
        settle(tmp_path, Hardware(name="test", strategy="zero2", devices=2))


def test_pieces_that_cannot_be_converted_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(tmp_path / CHECKPOINT, 4, optimizer="adamw")
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(
        DataError, match=r"was written by 2 ranks and could not be converted .*\(exit status 1\): continue with 2"
    ):
        settle(tmp_path, Hardware(name="test", strategy="zero3", devices=3))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert completed_steps(settle(tmp_path, TWO)) == 4


def test_a_whole_checkpoint_goes_on_alone_or_under_ddp_on_any_number(tmp_path: Path) -> None:
    whole(tmp_path / CHECKPOINT, 3)
    assert completed_steps(settle(tmp_path, ALONE)) == 3
    assert completed_steps(settle(tmp_path, Hardware(name="test", strategy="ddp", devices=4))) == 3
    with pytest.raises(DataError, match="written by one device or DDP"):
        settle(tmp_path, TWO)
