"""Laws of a mask's coarser levels, equal to halving the whole mask whoever makes them, and of the polygons of tiles."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import Executor, SerialExecutor, ThreadExecutor
from tilesseg.errors import FormatError
from tilesseg.events import TileDone
from tilesseg.formats.writer import Mask
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.planning.cluster_options import Cluster
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import halve_mode, level_shapes
from tilesseg.raster.tiling import Tiling, blend_lattice
from tilesseg.raster.window import Window
from tilesseg.run import product_inputs as finishing
from tilesseg.run.product_inputs import FinishWork, Part, with_levels, with_tile_polygons
from tilesseg.store.mask_levels import StoredLevels, tile_shards
from tilesseg.store.scene_store import Store

Labels = NDArray[np.uint8]
SHAPES = [(1, 1), (256, 256), (257, 1), (1, 1300), (513, 300), (1009, 701), (1024, 512)]


@pytest.fixture(scope="module", params=["serial", "threads", pytest.param("dask", marks=pytest.mark.cluster)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kind: Any = {"serial": "serial", "threads": "threads", "dask": "local"}[request.param]
    with cluster.connect(Cluster(kind=kind, workers=2, threads=2), "cpu") as executor:
        yield executor


@pytest.fixture(autouse=True)
def _small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "REGION", 128)  # the client cuts: workers see no more than windows


def random_labels(shape: tuple[int, int], seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (shape[0] // 3 + 1, shape[1] // 3 + 1))
    return np.kron(coarse, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]


def stored(
    folder: Path, labels: Labels, *, shard: int = 64, chunk: int = 32, core: tuple[int, int] | None = None
) -> tuple[Mask, Store]:
    store = Store(folder)
    store.create(shape=labels.shape, shard=shard, chunk=chunk, fingerprint="f", core=core)  # type: ignore[arg-type]
    store.mask_rows(Window(0, 0, *labels.shape)).write(labels)
    return Mask(Grid(*labels.shape), store.read, (), {}), store


def read_all(mask: Mask) -> list[Labels]:
    return [level.read(Window(0, 0, *level.shape)) for level in mask.levels]


def break_a_shard(store: Store) -> None:
    files = sorted((store.folder / "levels" / "0" / "c").rglob("*"))
    shard = next(file for file in files if file.is_file())
    shard.write_bytes(b"torn")


@pytest.mark.parametrize("shape", SHAPES)
def test_each_level_is_the_mode_of_the_one_below(shape: tuple[int, int], executor: Executor, tmp_path: Path) -> None:
    labels = random_labels(shape)
    mask, store = stored(tmp_path / "scene", labels)
    with with_levels(mask, store, executor) as prepared:
        assert [level.shape for level in prepared.levels] == list(level_shapes(shape)[1:])
        for level in read_all(prepared):
            labels = halve_mode(labels)
            np.testing.assert_array_equal(level, labels)


def test_levels_are_made_while_tiles_are(executor: Executor, tmp_path: Path) -> None:
    """A scene is finished while the next one's tiles are on their way."""
    labels = random_labels((600, 500))
    answers = []
    for number in executor.map(abs, range(12), lost=lambda item, reason: item):
        answers.append(number)
        if len(answers) in (1, 7):
            mask, store = stored(tmp_path / f"scene{number}", labels)
            with with_levels(mask, store, executor) as prepared:
                np.testing.assert_array_equal(read_all(prepared)[0], halve_mode(labels))
    assert sorted(answers) == list(range(12))


def test_a_part_that_fails_is_told_in_one_line_and_nothing_is_left(executor: Executor, tmp_path: Path) -> None:
    mask, store = stored(tmp_path / "scene", random_labels((700, 500)))
    break_a_shard(store)
    before = sorted(store.folder.rglob("*"))
    with (
        pytest.raises(FormatError, match=r"^scene: 1 of \d+ parts .* level 2") as refusal,
        with_levels(mask, store, executor),
    ):
        pytest.fail("there are no levels to work with")
    assert "\n" not in str(refusal.value)
    assert sorted(store.folder.rglob("*")) == before


def test_levels_that_tiles_did_not_make_are_gone_afterwards_also_when_the_writer_fails(tmp_path: Path) -> None:
    executor = SerialExecutor()
    mask, store = stored(tmp_path / "scene", random_labels((600, 300)))
    before = sorted(store.folder.rglob("*"))
    with with_levels(mask, store, executor):
        assert (store.folder / "further-levels" / "0").is_dir()
    with pytest.raises(RuntimeError, match="writer"), with_levels(mask, store, executor):
        raise RuntimeError("the writer fails")
    assert sorted(store.folder.rglob("*")) == before


def test_what_a_file_system_or_a_viewer_leaves_among_levels_is_no_level(tmp_path: Path) -> None:
    _, store = stored(tmp_path / "scene", random_labels((300, 300)))
    (store.folder / "levels" / ".nfs0001").touch()
    (store.folder / "levels" / ".DS_Store").touch()
    assert [level.shape for level in Store(store.folder).levels] == [(150, 150)]


@pytest.mark.parametrize(("shard", "region"), [(64, 128), (96, 128), (512, 128), (64, 2048)])
def test_every_shard_is_written_once_and_whole(
    shard: int, region: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "REGION", region)
    written: dict[tuple[int, int], list[tuple[Window, int]]] = {}
    write = Sharded.write

    def spy(self: Sharded, window: Window, values: Labels, *, plane: tuple[int, ...] = ()) -> Any:
        written.setdefault(self.shape, []).append((window, self.shard[0]))
        return write(self, window, values, plane=plane)

    monkeypatch.setattr(Sharded, "write", spy)
    mask, store = stored(tmp_path / "scene", random_labels((1009, 701)), shard=shard, chunk=32)
    with with_levels(mask, store, ThreadExecutor(3)) as prepared:
        for level in prepared.levels:
            count = np.zeros(level.shape, int)
            for window, side in written[level.shape]:
                count[window.slices()] += 1
                assert window.y % side == 0 and window.x % side == 0
                assert window.y_stop % side == 0 or window.y_stop == level.shape[0]
                assert window.x_stop % side == 0 or window.x_stop == level.shape[1]
            assert (count == 1).all()


@pytest.mark.parametrize("core", [(64, 64), (128, 128), (192, 128), (256, 512)])
@pytest.mark.parametrize("shape", [(700, 500), (513, 1029)])
def test_levels_of_tiles_in_any_order_failed_and_tried_again_are_those_of_the_whole_mask(
    core: tuple[int, int], shape: tuple[int, int], tmp_path: Path
) -> None:
    """Whatever happens to tiles, their levels are what halving the mask gives, byte for byte."""
    rng, labels = np.random.default_rng(3), random_labels(shape, seed=3)
    mask, store = stored_empty(tmp_path / "scene", shape, core=core)
    tiling = Tiling(shape, blend_lattice(64, overlap=16, margin=0, multiple=16), core, 64)
    cores, expected = list(tiling), np.full(shape, 254, np.uint8)
    for round_ in range(2):  # of a run, and of one that goes on: in another process, with what is stored
        store = Store(store.folder)
        before = set(store.done_names())
        for place in rng.permutation(len(cores)):
            name, window = cores[place].name, cores[place].core
            fate = rng.choice(["done", "failed half-way", "not tried"]) if name not in before else "not tried"
            rows = labels[window.slices()] if round_ else labels[window.slices()] // 2
            if fate == "not tried":
                continue
            shard_rows, end = store.mask_rows(window), window.height if fate == "done" else window.height // 2
            for y in range(0, end, 48):
                shard_rows.write(rows[y : min(y + 48, end)])
            if fate == "done":
                store.mark_done(TileDone("scene", name, window.area, patches=1, skipped=0, counts={}, areas={}))
                expected[window.slices()] = rows
        store = store.of_done_tiles(tiling)
        with with_levels(mask, store, SerialExecutor()) as prepared:
            np.testing.assert_array_equal(store.read(Window(0, 0, *shape)), expected)
            halved = expected
            for level in read_all(prepared):
                halved = halve_mode(halved)
                np.testing.assert_array_equal(level, halved)
    assert len(store.levels) == min(len(tile_shards(core, 64)), len(level_shapes(shape)) - 1)


def stored_empty(folder: Path, shape: tuple[int, int], *, core: tuple[int, int]) -> tuple[Mask, Store]:
    store = Store(folder)
    store.create(shape=shape, shard=64, chunk=32, fingerprint="f", core=core)
    return Mask(Grid(*shape), store.read, (), {}), store


def test_levels_of_a_run_that_was_killed_are_made_anew(tmp_path: Path) -> None:
    labels = random_labels((600, 400))
    mask, store = stored(tmp_path / "scene", labels)
    StoredLevels(store.folder / "further-levels").create([(9, 9), (3, 3), (1, 1)], [64] * 3, chunk=32)
    with with_levels(mask, store, SerialExecutor()) as prepared:
        np.testing.assert_array_equal(read_all(prepared)[0], halve_mode(labels))
        assert [level.shape for level in prepared.levels] == list(level_shapes((600, 400))[1:])


def test_a_part_whose_worker_died_fails_the_product(tmp_path: Path) -> None:
    class Deadly(SerialExecutor):
        def map(self, function: Any, items: Any, *, lost: Any) -> Iterator[Any]:
            return (lost(item, "its worker process died") for item in items)

    mask, store = stored(tmp_path / "scene", random_labels((600, 300)))
    with pytest.raises(FormatError, match="its worker process died"), with_levels(mask, store, Deadly()):
        pytest.fail("there are no levels to work with")
    assert not (store.folder / "further-levels").exists()


def a_tiling(shape: tuple[int, int]) -> Tiling:
    return Tiling(shape, blend_lattice(64, overlap=16, margin=0, multiple=16), (64, 64), 64)


def write_fake_polygons(read: Any, core: Window, path: Path, **_: Any) -> None:
    if core.x:
        assert read(core).shape == core.shape
    path.write_bytes(b"polygons")


def test_polygons_of_every_tile_are_there_for_the_writer_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "resolve", lambda dotted: write_fake_polygons)
    mask, store = stored(tmp_path / "scene", random_labels((200, 150)))
    tiling = a_tiling((200, 150))
    before = sorted(store.folder.rglob("*"))
    with with_tile_polygons(mask, store, tiling, ThreadExecutor(2)) as prepared:
        assert len(prepared.tile_polygons) == len(list(tiling)) > 1
        assert all(file.read_bytes() == b"polygons" for file in prepared.tile_polygons)
    assert sorted(store.folder.rglob("*")) == before


def test_a_tile_without_polygons_fails_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("too many\nvertices")

    monkeypatch.setattr(finishing, "resolve", lambda dotted: fail)
    mask, store = stored(tmp_path / "scene", random_labels((200, 150)))
    before = sorted(store.folder.rglob("*"))
    with (
        pytest.raises(FormatError, match="r000-c000: MemoryError: too many vertices; run") as refusal,
        with_tile_polygons(mask, store, a_tiling((200, 150)), SerialExecutor()),
    ):
        pytest.fail("there are no polygons to work with")
    assert "\n" not in str(refusal.value)
    assert sorted(store.folder.rglob("*")) == before


def test_parts_are_names_and_windows_that_travel(tmp_path: Path) -> None:
    work, part = FinishWork(), Part("level 1", Window(0, 0, 5, 5), 1, Store(tmp_path))
    there, same = pickle.loads(pickle.dumps((work, part)))
    assert (there, same.store.folder, same[:3]) == (work, tmp_path, part[:3])
    assert len(pickle.dumps((work, part))) < 500
