"""The ledger: done is a record, whole shards, and nothing of another plan."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilesseg.errors import StoreError
from tilesseg.events import Note, TileDone, TileFailed
from tilesseg.formats.zarr.shard_sum import ShardSum
from tilesseg.raster.tiling import Tiling, blend_lattice
from tilesseg.raster.window import Window
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store
from tilesseg.store.shard_writer import ShardRows


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


def test_the_core_of_a_tile_without_a_record_is_254_and_its_neighbours_are_not(tmp_path: Path) -> None:
    tiling = Tiling((50, 70), blend_lattice(16, overlap=0, margin=0, multiple=1), (16, 16), 16)
    store = Store(tmp_path / "scene")
    store.create(shape=(50, 70), shard=16, chunk=8, core=(16, 16), fingerprint="a", scores=["water", "ice"])
    for rows in store.core_rows(Window(0, 0, 50, 70), scores=2):
        rows.write(np.full((50, 70), 3, np.uint8))
    hidden = tiling.named("r001-c002")
    for tile in tiling:
        if tile.name != hidden.name:
            store.mark_done(done(tile.name))
    counted = pickle.loads(pickle.dumps(store.of_done_tiles(tiling)))
    read = [counted.read(Window(0, 0, 50, 70)), *(counted.read_scores(n, Window(0, 0, 50, 70)) for n in (0, 1))]
    for plane in read:
        assert (plane[hidden.core.slices()] == 254).all() and (plane == 254).sum() == hidden.core.area
    assert (store.read(Window(0, 0, 50, 70)) == 3).all(), "nothing is deleted"


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


@dataclass
class Written:
    """An array that remembers the windows that are written to it."""

    shard: tuple[int, int] = (16, 16)
    windows: list[Window] = field(default_factory=list)

    def write(self, window: Window, labels: Any, *, plane: tuple[int, ...]) -> list[ShardSum]:
        assert labels.shape == window.shape
        self.windows.append(window)
        return [ShardSum.of(b"")]


@pytest.mark.parametrize("heights", [[40], [7, 9, 24], [1] * 40, [3, 37], [32, 8]])
def test_each_row_of_shards_is_written_once_and_whole_as_soon_as_it_is_full(heights: list[int]) -> None:
    array: Any = Written()
    rows, y = ShardRows(array, Window(32, 8, 40, 24)), 32
    for height in heights:
        rows.write(np.zeros((height, 24), np.uint8))
        y += height
        assert rows.y_next == y
        assert [w.y_stop for w in array.windows] == [stop for stop in (48, 64, 72) if stop <= y]
    assert array.windows == [Window(32, 8, 16, 24), Window(48, 8, 16, 24), Window(64, 8, 8, 24)]


def test_scores_lie_beside_the_mask_class_by_class(tmp_path: Path) -> None:
    store = Store(tmp_path / "scene")
    assert store.score_classes == () and not store.holds(scores=False)
    store.create(shape=(50, 70), shard=16, chunk=8, fingerprint="a", scores=["water", "ice"])
    assert store.score_classes == ("water", "ice") and store.holds(scores=True)
    assert (store.shard, store.chunk, store.scores.facts["scale"]) == (16, 8, 1 / 250)
    for value, rows in enumerate(store.core_rows(Window(16, 16, 16, 32), scores=2), start=1):
        rows.write(np.full((16, 32), value, np.uint8))
    written = [store.read(Window(0, 0, 50, 70)), *(store.read_scores(k, Window(0, 0, 50, 70)) for k in (0, 1))]
    for value, plane in enumerate(written, start=1):
        assert (plane[16:32, 16:48] == value).all() and (plane == 254).sum() == plane.size - 16 * 32


def test_a_store_without_scores_holds_the_mask_alone(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    assert store.holds(scores=False) and not store.holds(scores=True)
    with pytest.raises(StoreError, match="cannot open scores"):
        store.scores  # noqa: B018


def test_an_empty_mask_is_never_made_under_records_of_tiles(tmp_path: Path) -> None:
    store = make(tmp_path / "scene")
    store.mark_done(done("r000-c000"))
    (store.folder / "mask.zarr").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"records of 1 tiles and no mask\.zarr"):
        make(tmp_path / "scene")


def test_a_refusal_shows_the_first_twelve_figures_of_both_fingerprints(tmp_path: Path) -> None:
    make(tmp_path / "scene", fingerprint="0123456789abcdef").mark_done(done("r000-c000"))
    with pytest.raises(StoreError, match=r"fingerprint 0123456789ab…, and this plan has fedcba987654…"):
        make(tmp_path / "scene", fingerprint="fedcba9876543210")


def test_a_single_record_is_read_by_its_name(tmp_path: Path) -> None:
    ledger = make(tmp_path / "scene").ledger
    assert ledger.record("r000-c000") is None and not ledger.any_done()
    ledger.mark_done("r000-c000", done("r000-c000"))
    record = ledger.record("r000-c000")
    assert record is not None and record["pixels"] == 10 and ledger.any_done()


def test_a_damaged_file_is_refused_by_its_name_and_a_missing_one_is_none(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    assert run.read_json("plan.json") is None
    run.write_json("plan.json", {"µ": [1, 2]})
    assert run.read_json("plan.json") == {"µ": [1, 2]}
    run.write_text("plan.json", "{")
    with pytest.raises(StoreError, match=r"cannot read .*plan\.json"):
        run.read_json("plan.json")
    store = make(tmp_path / "run" / "scenes" / "scene")
    (store.folder / "done" / "r000-c000.json").write_text("[]")
    with pytest.raises(StoreError, match=r"r000-c000\.json is damaged"):
        store.done()


def test_a_run_has_begun_once_a_tile_of_any_scene_is_done(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    assert not run.any_done() and list(run.path.iterdir()) == []
    for name in ("a", "b"):
        make(run.scene(name).folder).mark_failed(TileFailed(name, "r000-c000", 10, "no"))
    assert not run.any_done()
    run.scene("b").mark_done(done("r000-c000"))
    assert run.any_done()


def test_the_time_of_an_event_is_kept_to_the_millisecond(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.log(Note("first"), 1700000000.12349)
    assert json.loads((run.path / "events.jsonl").read_text())["time"] == 1700000000.123
