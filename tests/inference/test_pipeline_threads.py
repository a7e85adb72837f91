"""Laws of the pipeline inside a tile: order, bounds, endings, and what is read, cut, and halved."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, fake_model, segmented
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_segment_tile import BLENDS, lattice_of, picture

from tilesseg.errors import OutOfDeviceMemory, SourceError
from tilesseg.formats.source import Pixels
from tilesseg.inference.decoded_rows import RowCache, pixels_shown
from tilesseg.inference.patch_reader import PatchReader, Row
from tilesseg.inference.pipeline_threads import abreast, ahead, behind
from tilesseg.inference.segment_tile import SceneWork, segment_tile
from tilesseg.inference.worker_phases import Stopwatch
from tilesseg.planning.memory import batches_ahead
from tilesseg.planning.recipe import Blend, Recipe, call_of, raw_dtype
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.tiling import Tile, Tiling
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store


class Unlucky(Exception):
    """Planted."""


def counted(n: int, made: list[int]) -> Iterator[int]:
    for number in range(n):
        made.append(number)
        yield number


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_made_ahead_come_in_order_and_never_more_than_the_depth(depth: int) -> None:
    made: list[int] = []
    with ahead(counted(20, made), depth) as items:
        for taken, item in enumerate(items):
            assert item == taken
            assert len(made) <= taken + 1 + depth
    assert made == list(range(20))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_making_raises_is_raised_where_the_items_are_taken(depth: int) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Unlucky

    taken = []
    with pytest.raises(Unlucky), ahead(items(), depth) as made:
        taken += list(made)
    assert depth or not taken


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_loop_that_ends_early_ends_what_goes_before_and_behind(depth: int) -> None:
    made, taken = list[int](), list[int]()
    with pytest.raises(Unlucky), ahead(counted(10**9, made), depth) as items, behind(taken.append, depth) as give:
        for item in items:
            give(item)
            if item == 5:
                raise Unlucky
    assert len(made) <= 6 + depth + 1  # both have ended: nothing is made any more
    assert taken == list(range(len(taken)))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_is_given_is_taken_in_order_and_all_of_it_at_the_end(depth: int) -> None:
    taken: list[int] = []
    with behind(taken.append, depth) as give:
        for item in range(50):
            give(item)
    assert taken == list(range(50))


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("at", [0, 20, 49])
def test_what_taking_raises_is_raised_in_the_loop_which_never_waits_for_ever(depth: int, at: int) -> None:
    def take(item: int) -> None:
        if item == at:
            raise Unlucky

    with pytest.raises(Unlucky), behind(take, depth) as give:
        for item in range(50):
            give(item)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_results_come_in_the_order_of_their_items_and_so_many_are_made_at_a_time(width: int) -> None:
    gate, now, most = threading.Lock(), 0, 0

    def squared(item: int) -> int:
        nonlocal now, most
        with gate:
            now += 1
            most = max(most, now)
        time.sleep(0.002 * (item % 3))
        with gate:
            now -= 1
        return item**2

    made: list[int] = []
    with abreast(squared, counted(30, made), width) as results:
        for number, result in enumerate(results):
            assert result() == number**2
            assert len(made) <= number + width
    assert (number, most) == (29, width)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("at", [0, 5, 29])
def test_what_is_raised_abreast_is_raised_in_its_turn_and_nothing_goes_on_behind_it(width: int, at: int) -> None:
    under_way: list[int] = []

    def fail(item: int) -> int:
        under_way.append(item)
        time.sleep(0.001)
        under_way.remove(item)
        if item == at:
            raise Unlucky
        return item

    taken, made = list[int](), list[int]()
    with pytest.raises(Unlucky), abreast(fail, counted(30, made), width) as results:
        for result in results:
            taken.append(result())
    assert (taken, under_way) == (list(range(at)), []) and len(made) <= at + width


def test_threads_are_used_again() -> None:
    before = _ours()  # of tests before
    for _ in range(20):
        with ahead(iter(range(3)), 1) as items, behind(lambda item: None, 1) as give:
            for item in items:
                give(item)
    more = _ours() - before
    assert len(more) <= 4, more


def _ours() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("tilesseg-")}


@dataclass(frozen=True)
class Counting(ArraySource):
    """Remembers what was read of it, and refuses what lies outside; `block` rows are decoded together."""

    reads: list[Window] = field(default_factory=list)
    block: int = 1

    storage_block = property(lambda self: (self.block, self.values.shape[2]))  # type: ignore[assignment]

    def read(self, window: Window) -> Pixels:
        assert self.grid.window.contains(window)
        self.reads.append(window)
        return ArraySource.read(self, window)

    def times(self) -> NDArray[np.int64]:
        """How often each pixel was read."""
        found = np.zeros(self.grid.shape, int)
        for window in self.reads:
            found[window.slices()] += 1
        return found


@settings(max_examples=200)
@given(data=st.data())
def test_each_pixel_is_read_once_and_cut_as_a_read_of_the_patch_would_give_it(data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    blend = draw(st.sampled_from(BLENDS))
    patch = draw(st.sampled_from([14, 16, 20, 24]))
    lattice = lattice_of(blend, patch=patch, overlap=draw(st.sampled_from([0, 2, 6, 10, patch - 2])))
    plain = picture(shape, seed=draw(st.integers(0, 99)), holes=draw(st.booleans()))
    source = Counting(plain.values, plain.valid, block=draw(st.sampled_from([1, 4, 7, 16, 60])))
    flags = np.random.default_rng(draw(st.integers(0, 99))).random([-(-side // lattice.stride) for side in shape]) < 0.3
    cells = draw(st.sampled_from([None, RoiCells.of(flags, stride=lattice.stride, label=255)]))
    shard = draw(st.integers(5, 20))
    tiles = list(Tiling(shape, lattice, (shard * draw(st.integers(1, 5)), shard * draw(st.integers(1, 5))), shard))
    tile = draw(st.sampled_from(tiles))
    reader = read_all(source, tile, cells)
    times = source.times()
    assert times.max(initial=0) <= 1
    needed = np.zeros(shape, int)
    for row in tile.patch_rows:
        needed[pixels_shown(row.window, source.grid.window).slices()] = 1
    assert (times <= needed).all()
    if cells is None:
        assert (times == needed).all()
    assert reader.pixels == times.sum()


def read_all(source: Counting, tile: Tile, cells: RoiCells | None) -> PatchReader:
    """A tile's batches, each patch compared with what a read of its own gives."""
    spec = fake_model(fill=7.0).spec
    recipe = Recipe("gaussian", spec.normalisation(), 3, cells=cells)
    reader = PatchReader(tile, source, spec, recipe, Stopwatch())
    patches = rows = 0
    for batch in reader.batches():
        values = iter(() if batch.values is None else batch.values)
        for step in batch.steps:
            if isinstance(step, Row):
                rows += 1
                continue
            pixels = ArraySource.read(source, step.window)
            assert (next(values) == np.where(pixels.valid, pixels.values, 7)).all()
            patches += 1
        assert not any(one.any() for one in values)  # behind the last patch
        reader.give_back(batch)
    assert patches == reader.predicted
    assert rows == len(list(tile.patch_rows))
    return reader


def test_whole_blocks_are_read_where_the_image_has_them() -> None:
    source = Counting(*picture((400, 40)).__dict__.values(), block=32)  # type: ignore[arg-type]
    lattice = lattice_of("crop", patch=48)
    read_all(source, next(iter(Tiling((400, 40), lattice, (400, 40), 40))), None)
    assert all(window.y % 32 == 0 and (window.y_stop % 32 == 0 or window.y_stop == 400) for window in source.reads)
    assert len(source.reads) > 5


def test_a_gap_that_nobody_needs_is_not_read() -> None:
    source = Counting(*picture((100, 10)).__dict__.values())  # type: ignore[arg-type]
    cache = RowCache(source, [Window(0, 0, 10, 10), Window(0, 0, 0, 0), Window(70, 2, 10, 4)], surplus=10)
    for number in range(3):
        cache.advance(number)
    assert source.reads == [Window(0, 0, 10, 10), Window(70, 2, 10, 4)]


@pytest.mark.parametrize(("threads", "parallel_batches"), [(True, 1), (True, 2), (True, 3), (False, 2)])
@pytest.mark.parametrize("blend", BLENDS)
def test_batches_cross_rows_and_have_one_shape_and_only_the_last_is_padded(
    tmp_path: Path, blend: Blend, threads: bool, parallel_batches: int
) -> None:
    source, model, lattice = picture((70, 45), holes=True), fake_model("Positional", margin=3), lattice_of(blend)
    shapes: list[tuple[int, ...]] = []

    def network(patches: NDArray[Any]) -> NDArray[Any]:
        shapes.append(patches.shape)
        return inner(patches)

    recipe = Recipe(blend, model.spec.normalisation(), 4)
    inner = model.network(call_of(lattice, recipe, dtype=source.dtype, spec=model.spec))
    masks = []
    for name in "ab":
        store = Store(tmp_path / name)
        store.create(shape=(70, 45), shard=45, chunk=45, fingerprint="a")
        tile = next(iter(Tiling((70, 45), lattice, (90, 45), 45)))
        if name == "a":
            work = SceneWork(source, network, model.spec, store, recipe, parallel_batches)
            told = segment_tile(tile, work, threads=threads)
        else:
            alone = Recipe(blend, recipe.normalisation, 1)
            segmented(tile, source=source, model=model, store=store, recipe=alone)
        masks.append(store.read(source.grid.window))
    assert set(shapes) == {(4, 1, 16, 16)}
    assert len(shapes) == -(-told.patches // 4)
    assert (masks[0] == masks[1]).all()
    assert told.seconds["predict"] + told.seconds["wait"] == pytest.approx(told.wall, abs=1e-3)
    assert set(told.seconds) == {"read", "wait", "predict", "blend", "write"}


@pytest.mark.parametrize("parallel_batches", [1, 3])
@pytest.mark.parametrize(("fits", "batch", "sizes"), [(8, 0, {5}), (4, 3, {5, 3}), (1, 1, {5, 3, 2, 1})])
def test_out_of_device_memory_halves_the_batch_for_the_tile_and_the_record_says_so(
    tmp_path: Path, fits: int, batch: int, sizes: set[int], parallel_batches: int
) -> None:
    source, model, lattice = picture((60, 60)), fake_model("Positional", margin=3), lattice_of("gaussian")
    recipe = Recipe("gaussian", model.spec.normalisation(), 5)
    inner = model.network(call_of(lattice, recipe, dtype=source.dtype, spec=model.spec))
    asked: list[int] = []

    def network(patches: NDArray[Any]) -> NDArray[Any]:
        asked.append(len(patches))
        if len(patches) > fits:
            raise OutOfDeviceMemory("no room")
        return inner(patches)

    masks = []
    for name, used in (("small", network), ("planned", inner)):
        store = Store(tmp_path / name)
        store.create(shape=(60, 60), shard=60, chunk=60, fingerprint="a")
        tile = next(iter(Tiling((60, 60), lattice, (60, 60), 60)))
        told = segment_tile(tile, SceneWork(source, used, model.spec, store, recipe, parallel_batches))
        assert told.batch == (batch if name == "small" else 0)
        masks.append(store.read(source.grid.window))
    assert (masks[0] == masks[1]).all()
    assert set(asked) == sizes
    if parallel_batches == 1:
        assert asked == sorted(asked, reverse=True)  # what did not fit is not tried again


def test_no_memory_for_a_single_patch_fails_the_tile(tmp_path: Path) -> None:
    def network(patches: NDArray[Any]) -> NDArray[Any]:
        raise OutOfDeviceMemory("no room")

    store, model = Store(tmp_path), fake_model("Constant")
    store.create(shape=(32, 32), shard=32, chunk=32, fingerprint="a")
    tile = next(iter(Tiling((32, 32), lattice_of("gaussian"), (32, 32), 32)))
    recipe = Recipe("gaussian", model.spec.normalisation(), 4)
    with pytest.raises(OutOfDeviceMemory):
        segment_tile(tile, SceneWork(picture((32, 32)), network, model.spec, store, recipe))


@pytest.mark.parametrize("threads", [True, False])
def test_what_reading_and_writing_raise_fails_the_tile(
    tmp_path: Path, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged(ArraySource):
        def read(self, window: Window) -> Pixels:
            if window.y_stop > 20:
                raise SourceError("rows 20–29 are damaged")
            return ArraySource.read(self, window)

    store, model, lattice = Store(tmp_path), fake_model("Constant"), lattice_of("gaussian")
    store.create(shape=(60, 60), shard=20, chunk=20, fingerprint="a")
    parts = {"model": model, "store": store, "recipe": Recipe("gaussian", model.spec.normalisation(), 1)}
    tile = next(iter(Tiling((60, 60), lattice, (60, 60), 20)))
    good = picture((60, 60))
    with pytest.raises(SourceError, match="damaged"):
        segmented(tile, source=Damaged(good.values, good.valid), threads=threads, **parts)  # type: ignore[arg-type]

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tilesseg.formats.zarr.sharded_array.Sharded.write", full)
    with pytest.raises(OSError, match="No space"):
        segmented(tile, source=good, threads=threads, **parts)  # type: ignore[arg-type]
    assert not store.done()


@pytest.mark.parametrize(
    ("dtype", "fill", "raw"),
    [
        ("uint8", 0, "uint8"), ("uint8", 255, "uint8"), ("uint8", -1, "float32"), ("uint8", 0.5, "float32"),
        ("uint16", 65536, "float32"), ("int16", -1, "int16"), ("int32", 0.5, "float64"), ("int32", 7, "int32"),
        ("float16", 0.1, "float32"), ("float32", 0.1, "float32"), ("float64", 0.1, "float64"), ("bool", 0, "float32"),
    ],
)  # fmt: skip
def test_raw_patches_have_the_images_type_where_it_holds_the_fill(dtype: str, fill: float, raw: str) -> None:
    assert raw_dtype(np.dtype(dtype), fill) == np.dtype(raw)


@pytest.mark.parametrize(
    ("size", "patch_bytes", "row", "depth"),
    [(1, 3e6, 8, 8), (4, 3e6, 8, 2), (1, 3e7, 8, 2), (1, 1e5, 1, 2), (1, 8e6, 20, 8)],
)
def test_a_row_of_patches_waits_at_most_and_two_batches_at_least(
    size: int, patch_bytes: float, row: int, depth: int
) -> None:
    assert batches_ahead(size, patch_bytes=int(patch_bytes), row=row) == depth
