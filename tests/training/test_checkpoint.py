"""Laws of checkpoints: whole or none, the last two are kept, and nothing is ever unpickled."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path

import pytest
import torch

from tilesseg.errors import StoreError
from tilesseg.training.checkpoint import read_checkpoint, write_checkpoint


def write(folder: Path, *steps: int) -> None:
    for step in steps:
        tensors = {"a": torch.full((3, 2), float(step)), "n": torch.tensor(step)}
        write_checkpoint(folder, step, tensors=tensors, facts={"best": step / 3, "none": None})


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "state", 7)
    found, notes = read_checkpoint(tmp_path / "state")
    assert found is not None
    assert (found.step, found.facts, notes) == (7, {"best": 7 / 3, "none": None}, ())
    assert torch.equal(found.tensors["a"], torch.full((3, 2), 7.0))
    assert found.tensors["n"].item() == 7


def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    write(tmp_path, 1, 2, 10, 9, 10)
    names = {f"step-{step:08d}.{suffix}" for step in (9, 10) for suffix in ("json", "safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"validation"}


def test_no_checkpoint_is_a_fresh_start(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "state") == (None, ())


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_cut_at_any_byte_the_one_before_is_taken_and_named(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, 1, 2)
    newest = tmp_path / f"step-00000002.{suffix}"
    content = newest.read_bytes()
    ends = range(len(content) - (suffix == "json"))  # without its last newline a record is whole
    for length in ends:
        newest.write_bytes(content[:length])
        found, notes = read_checkpoint(tmp_path)
        assert found is not None and found.step == 1, length
        assert len(notes) == 1
        assert "step-00000002" in notes[0]
        assert "goes on from step 1" in notes[0]
    assert len(ends) > 50


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(bytes(content))
    found, notes = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, len(notes)) == (1, 1)


def test_changed_facts_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, 3, 6)
    newest = tmp_path / "step-00000006.json"
    newest.write_text(newest.read_text().replace("2.0", "3.0"))
    found, _ = read_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 3


def test_where_all_are_damaged_training_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"is damaged .* remove"):
        read_checkpoint(tmp_path)


class _Exploding:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return builtins.exec, ("raise SystemExit('unpickled')",)


def test_pickled_bytes_in_place_of_a_checkpoint_are_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    write(tmp_path, 1, 2)
    evil = pickle.dumps(_Exploding())
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    (tmp_path / "step-00000002.safetensors").write_bytes(evil)
    found, _ = read_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    (tmp_path / "step-00000001.json").write_bytes(evil)
    with pytest.raises(StoreError):
        read_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write the checkpoint .*; make room"):
        write(tmp_path / "state", 1)
