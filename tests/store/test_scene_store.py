"""The ledger: done is a record, whole shards, and nothing of another plan."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tilesseg.errors import StoreError
from tilesseg.events import Note, TileDone, TileFailed
from tilesseg.raster.window import Window
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store


def make(folder: Path, *, fingerprint: str = "a", shape: tuple[int, int] = (50, 70)) -> Store:
    store = Store(folder)
    store.create(shape=shape, shard=16, chunk=8, fingerprint=fingerprint)
    return store


def done(name: str) -> TileDone:
    return TileDone("scene", name, 10, patches=1, skipped=0, counts={"0": 10}, areas={}, seconds={"read": 0.5})


def test_a_new_mask_is_254_everywhere(tmp_path: Path) -> None:
    assert (make(tmp_path / "scene").read(Window(0, 0, 50, 70)) == 254).all()


@pytest.mark.parametrize("heights", [[32], [5, 27], [16, 16], [1] * 32, [20, 0, 12]])
def test_rows_of_any_height_come_back_as_written(tmp_path: Path, heights: list[int]) -> None:
    store, core = make(tmp_path / "scene"), Window(16, 16, 32, 48)
    rows = np.random.default_rng(0).integers(0, 250, core.shape).astype(np.uint8)
    shard_rows = store.mask_rows(core)
    y = 0
    for height in heights:
        shard_rows.write(rows[y : y + height])
        y += height
    mask = store.read(Window(0, 0, 50, 70))
    assert (mask[core.slices()] == rows).all()
    mask[core.slices()] = 254
    assert (mask == 254).all()


def test_a_cleared_core_is_254_again_and_its_neighbours_are_not(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    store.mask_rows(Window(0, 0, 50, 70)).write(np.full((50, 70), 3, np.uint8))
    store.clear(Window(16, 16, 32, 16))
    mask = store.read(Window(0, 0, 50, 70))
    assert (mask[16:48, 16:32] == 254).all()
    assert (mask == 254).sum() == 32 * 16


def test_records_come_back_as_they_went(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    record, failure = done("r000-c000"), TileFailed("scene", "r000-c001", 10, "no")
    store.mark_done(record)
    store.mark_failed(failure)
    assert store.done() == {"r000-c000": record}
    assert store.failed() == {"r000-c001": failure}
    assert store.done_names() == ["r000-c000"]


def test_a_tile_that_is_done_has_failed_no_more(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    store.mark_failed(TileFailed("scene", "r000-c000", 10, "no"))
    store.mark_done(done("r000-c000"))
    assert store.failed() == {}


def test_a_half_written_record_is_not_a_record(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    (tmp_path / "scene" / "done" / ".r000-c000.json.17.4").write_text("{")
    assert store.done() == {} and store.done_names() == []


def test_creating_again_keeps_what_is_done(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    store.mask_rows(Window(0, 0, 16, 16)).write(np.ones((16, 16), np.uint8))
    store.mark_done(done("r000-c000"))
    again = make(tmp_path / "scene")
    assert (again.read(Window(0, 0, 16, 16)) == 1).all()


def test_tiles_of_another_fingerprint_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "scene").mark_done(done("r000-c000"))
    with pytest.raises(StoreError, match=r"has 1 tiles of fingerprint a…, and this plan has b…"):
        make(tmp_path / "scene", fingerprint="b")


def test_a_folder_of_another_fingerprint_without_tiles_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path / "scene").mark_failed(TileFailed("scene", "r000-c000", 10, "no"))
    store = make(tmp_path / "scene", fingerprint="b", shape=(20, 20))
    assert store.shape == (20, 20)
    assert store.failed() == {}


def test_events_are_one_json_object_a_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.log(Note("first"), 1.5)
    run.log(done("r000-c000"), 2.25)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(line["time"], line["event"]) for line in lines] == [(1.5, "note"), (2.25, "tile_done")]


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_a_folder_that_was_half_emptied_is_emptied_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was removed first, the mask of an earlier plan never passes for that of this one."""
    store = Store(tmp_path / "scene")
    store.create(shape=(64, 64), shard=64, chunk=64, fingerprint="a")

    def cut(path: Path, **_: object) -> None:
        (path / "fingerprint").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tilesseg.store.ledger.shutil.rmtree", cut)
        store.create(shape=(32, 128), shard=64, chunk=64, fingerprint="b")
    again = Store(tmp_path / "scene")
    again.create(shape=(32, 128), shard=64, chunk=64, fingerprint="b")
    assert again.shape == (32, 128)


def test_a_mask_that_a_killed_process_of_the_same_number_began_is_no_obstacle(tmp_path: Path) -> None:
    """In a container every driver has the same number."""
    store = Store(tmp_path / "scene")
    store.create(shape=(64, 64), shard=64, chunk=64, fingerprint="a")
    (store.folder / "mask.zarr").rename(store.folder / f".mask.{os.getpid()}.zarr")
    store.create(shape=(32, 64), shard=64, chunk=64, fingerprint="a")
    assert store.shape == (32, 64)
