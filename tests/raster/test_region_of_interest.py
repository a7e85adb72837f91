"""The laws of looking at some cells only: what is seen is the same mask, what is not is neither read nor predicted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, FakeModel, fake_model, segmented
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter
from test_segment_tile import BLENDS, lattice_of, picture

from tilesseg.events import TileDone
from tilesseg.formats.source import Pixels
from tilesseg.inference.segment_tile import skip_tile
from tilesseg.planning.recipe import Blend, Recipe
from tilesseg.raster.region_of_interest import Region, RoiCells, roi_cells, roi_work
from tilesseg.raster.tiling import Lattice, Tiling
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store


@dataclass(frozen=True)
class WatchedSource(ArraySource):
    """Remembers what was read of it."""

    reads: Any = None

    def read(self, window: Window) -> Pixels:
        self.reads.append(window)
        return ArraySource.read(self, window)

    @classmethod
    def watching(cls, source: ArraySource) -> WatchedSource:
        return cls(source.values, source.valid, [])

    def seen(self) -> NDArray[np.bool_]:
        seen = np.zeros(self.grid.shape, bool)
        for window in self.reads:
            seen[window.intersect(self.grid.window).slices()] = True
        return seen


def run(
    folder: Path,
    source: ArraySource,
    model: FakeModel,
    lattice: Lattice,
    *,
    blend: Blend,
    cells: RoiCells | None,
    core: tuple[int, int] | None = None,
    shard: int = 8,
    batch: int = 1,
    order: int = 0,
    scores: tuple[int, ...] = (),
) -> tuple[Store, list[TileDone]]:
    shape = source.grid.shape
    core = core or tuple(-(-side // shard) * shard for side in shape)  # type: ignore[assignment]
    store = Store(folder)
    store.create(shape=shape, shard=shard, chunk=shard, fingerprint="a", scores=[f"s{k}" for k in scores])
    tiles = list(Tiling(shape, lattice, core, shard))  # type: ignore[arg-type]
    np.random.default_rng(order).shuffle(tiles)  # type: ignore[arg-type]
    recipe = Recipe(blend, model.spec.normalisation(), batch, scores, cells)
    records = [
        segmented(tile, source=source, model=model, store=store, recipe=recipe)
        if cells is None or cells.touches(tile.core)
        else skip_tile(tile, cells, grid=source.grid, store=store, scores=len(scores))
        for tile in tiles
    ]
    return store, records


def some(shape: tuple[int, int], stride: int, *, seed: int = 0, share: float = 0.4, label: int = 255) -> RoiCells:
    rows, columns = (-(-side // stride) for side in shape)
    return RoiCells.of(np.random.default_rng(seed).random((rows, columns)) < share, stride=stride, label=label)


def pixels_of(cells: RoiCells, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The oracle: every cell painted pixel by pixel."""
    whole = cells.in_roi.repeat(cells.stride, axis=0).repeat(cells.stride, axis=1)
    return whole[: shape[0], : shape[1]]


@settings(max_examples=100)
@given(data=st.data())
def test_with_cells_tiling_never_changes_the_result_and_what_is_seen_is_the_mask_without(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    draw = data.draw
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    blend = draw(st.sampled_from(BLENDS))
    patch = draw(st.sampled_from([14, 16, 20, 24]))
    model = fake_model("Positional", margin=3)
    lattice = lattice_of(blend, patch=patch, overlap=draw(st.sampled_from([0, 2, 6, 10, patch - 2])))
    source = picture(shape, seed=draw(st.integers(0, 99)), holes=draw(st.booleans()))
    label = draw(st.sampled_from([0, 255]))
    cells = some(shape, lattice.stride, seed=draw(st.integers(0, 99)), share=draw(st.floats(0, 1)), label=label)
    shard = draw(st.integers(5, 20))
    core = (shard * draw(st.integers(1, 5)), shard * draw(st.integers(1, 5)))
    folder = tmp_path_factory.mktemp("cells")
    full, _ = run(folder / "full", source, model, lattice, blend=blend, cells=None, shard=60)
    whole, _ = run(folder / "whole", source, model, lattice, blend=blend, cells=cells, shard=60)
    tiled, records = run(
        folder / "tiled", source, model, lattice, blend=blend, cells=cells, core=core, shard=shard,
        batch=draw(st.integers(1, 3)), order=draw(st.integers(0, 9)),
    )  # fmt: skip
    mask, seen = tiled.read(source.grid.window), pixels_of(cells, shape)
    assert (mask == whole.read(source.grid.window)).all()
    assert (mask[seen] == full.read(source.grid.window)[seen]).all()
    assert (mask[~seen] == label).all()
    assert sum(record.outside for record in records) == np.count_nonzero(~seen)
    work = roi_work(cells, Tiling(shape, lattice, core, shard))
    predicted = sum(record.patches for record in records)
    assert predicted == work.patches if source.valid.all() else predicted <= work.patches
    assert sum(cells.touches(tile.core) for tile in Tiling(shape, lattice, core, shard)) == work.tiles


@pytest.mark.parametrize("blend", BLENDS)
def test_a_row_of_patches_that_is_not_looked_at_is_not_read_and_of_others_only_the_columns_needed(
    tmp_path: Path, blend: Blend
) -> None:
    lattice, source = lattice_of(blend), WatchedSource.watching(picture((200, 200)))
    stride = lattice.stride
    flags = np.zeros([-(-200 // stride)] * 2, bool)
    flags[3, 4] = True
    cells = RoiCells.of(flags, stride=stride, label=255)
    _, records = run(tmp_path, source, fake_model("Constant"), lattice, blend=blend, cells=cells)
    rows, columns = np.nonzero(source.seen())
    near = lattice.patch  # a patch that touches the cell begins and ends less than this away from it
    assert 3 * stride - near < rows.min() and rows.max() < 4 * stride + near
    assert 4 * stride - near < columns.min() and columns.max() < 5 * stride + near
    assert [record.read for record in records] == [sum(w.intersect(source.grid.window).area for w in source.reads)]
    assert records[0].outside == 200 * 200 - cells.pixels((200, 200))


@pytest.mark.parametrize("blend", BLENDS)
def test_a_tile_of_which_nothing_is_looked_at_is_neither_read_nor_predicted(tmp_path: Path, blend: Blend) -> None:
    source = WatchedSource.watching(picture((96, 96)))
    lattice = lattice_of(blend)
    flags = np.zeros([-(-96 // lattice.stride)] * 2, bool)
    flags[0, 0] = True
    cells = RoiCells.of(flags, stride=lattice.stride, label=255)
    store, records = run(tmp_path, source, fake_model("Constant"), lattice, blend=blend, cells=cells, core=(32, 32))
    skipped = [record for record in records if record.outside == record.pixels]
    assert len(skipped) == 8 and all(record.read == record.patches == 0 < record.skipped for record in skipped)
    assert not source.seen()[64:].any() and not source.seen()[:, 64:].any()
    assert (store.read(source.grid.window)[32:] == 255).all()


def test_an_invalid_pixel_takes_the_skip_value_too_and_255_where_it_is_seen(tmp_path: Path) -> None:
    source = picture((64, 64), holes=True)
    lattice = lattice_of("crop")
    cells = some((64, 64), lattice.stride, label=0)
    store, _ = run(tmp_path, source, fake_model("Constant"), lattice, blend="crop", cells=cells)
    mask, seen = store.read(source.grid.window), pixels_of(cells, (64, 64))
    assert (mask[~seen] == 0).all()
    assert (mask[seen] == np.where(source.valid[seen], 1, 255)).all()


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("core", [(64, 64), (16, 8)])
def test_a_pixel_that_is_not_looked_at_has_no_scores(tmp_path: Path, blend: Blend, core: tuple[int, int]) -> None:
    source, lattice = picture((64, 60)), lattice_of(blend)
    cells = some((64, 60), lattice.stride, label=0)
    store, _ = run(
        tmp_path, source, fake_model("Constant"), lattice, blend=blend, cells=cells, core=core, scores=(0, 1)
    )
    seen = pixels_of(cells, (64, 60))
    for number, value in ((0, 62), (1, 175)):
        assert (store.read_scores(number, source.grid.window) == np.where(seen, value, 255)).all()


def test_the_patches_seen_by_a_batch_do_not_change_what_is_not_seen(tmp_path: Path) -> None:
    source, lattice = picture((90, 70), holes=True), lattice_of("gaussian")
    cells = some((90, 70), lattice.stride, seed=5)
    one, _ = run(tmp_path / "1", source, fake_model("Positional"), lattice, blend="gaussian", cells=cells, batch=1)
    four, _ = run(tmp_path / "4", source, fake_model("Positional"), lattice, blend="gaussian", cells=cells, batch=4)
    assert (one.read(source.grid.window) == four.read(source.grid.window)).all()


@given(data=st.data())
def test_cells_are_plain_data_and_come_back(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    flags = np.random.default_rng(data.draw(st.integers(0, 9))).random(shape) < 0.5
    cells = RoiCells.of(flags, stride=8, label=255)
    adapter = TypeAdapter(RoiCells)
    back = adapter.validate_python(json.loads(json.dumps(adapter.dump_python(cells, mode="json"))))
    assert back == cells and (back.in_roi == flags).all()


def test_a_large_slides_cells_take_little_room_in_the_plan() -> None:
    flags = np.zeros((400, 600), bool)
    y, x = np.mgrid[:400, :600]
    flags[(y - 200) ** 2 + (x - 300) ** 2 < 150**2] = True
    assert len(RoiCells.of(flags, stride=256, label=255).bits) < 4000


@given(data=st.data())
def test_what_lies_inside_and_outside_is_every_pixel_of_a_window_once(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    cells = some(shape, data.draw(st.integers(1, 20)), seed=data.draw(st.integers(0, 99)))
    y, x = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    window = Window(y, x, data.draw(st.integers(0, shape[0] - y)), data.draw(st.integers(0, shape[1] - x)))
    counts = np.zeros((2, *shape), int)
    for in_roi in (False, True):
        for part in cells.inside(window, in_roi=in_roi):
            counts[int(in_roi)][part.slices()] += 1
    seen = pixels_of(cells, shape)
    expected = np.zeros(shape, bool)
    expected[window.slices()] = True
    assert (counts[1] == (seen & expected)).all() and (counts[0] == (~seen & expected)).all()
    assert cells.touches(window) == (seen & expected).any()
    assert cells.pixels(shape) == np.count_nonzero(seen)


@given(st.tuples(*[st.integers(-40, 80)] * 2), st.tuples(*[st.integers(0, 60)] * 2), st.integers(1, 20))
def test_a_window_that_overhangs_the_image_touches_the_region_only_in_the_image(
    corner: tuple[int, int], size: tuple[int, int], stride: int
) -> None:
    cells, window = some((50, 60), stride, seed=stride), Window(*corner, *size)
    in_roi = cells.in_roi.repeat(stride, axis=0).repeat(stride, axis=1)  # cells at the edge, up to their own ends
    assert cells.touches(window) == in_roi[window.intersect(Window(0, 0, *in_roi.shape)).slices()].any()


@given(data=st.data())
def test_a_cell_is_looked_at_iff_a_pixel_of_the_region_or_a_neighbour_overlaps_it(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    small = data.draw(st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1])))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(small) < data.draw(st.sampled_from([0.02, 0.3]))
    stride = data.draw(st.integers(1, 30))
    step = (shape[0] / small[0], shape[1] / small[1])
    found = roi_cells(Region(mask, step), shape=shape, stride=stride)
    grown = np.zeros((small[0] + 2, small[1] + 2), bool)
    for dy in range(3):
        for dx in range(3):
            grown[dy : dy + small[0], dx : dx + small[1]] |= mask
    grown = grown[1:-1, 1:-1]
    for i, j in np.ndindex(found.shape):
        y0, y1 = i * stride, min((i + 1) * stride, shape[0])
        x0, x1 = j * stride, min((j + 1) * stride, shape[1])
        rows = [r for r in range(small[0]) if r * step[0] < y1 - 1e-6 and (r + 1) * step[0] > y0 + 1e-6]
        columns = [c for c in range(small[1]) if c * step[1] < x1 - 1e-6 and (c + 1) * step[1] > x0 + 1e-6]
        assert found[i, j] == grown[np.ix_(rows, columns)].any()


def test_a_region_over_a_finer_image_than_the_grid_is_stretched_over_the_image() -> None:
    from tilesseg.raster.grid import Grid

    native = Grid(1000, 2000, transform=(0.25, 0, 0, 0, 0.25, 0), unit="micrometre")
    grid = replace(native.coarsen(2), height=500)
    region = Region.stretched(np.ones((10, 10), bool), grid=grid, native=native)
    assert region.step == (50.0, 100.0)


@pytest.mark.parametrize("label", [0, 255])
def test_the_record_of_a_tile_that_is_not_looked_at_counts_as_that_of_any_other(tmp_path: Path, label: int) -> None:
    from tilesseg.formats.geotiff.writer import utm_grid

    @dataclass(frozen=True)
    class Placed(ArraySource):
        grid = property(lambda self: utm_grid(self.values.shape[1:], resolution=10))  # type: ignore[assignment]

    source, lattice, model = Placed.of(picture((40, 40)).values), lattice_of("crop"), fake_model("Constant")
    cells = RoiCells.of(np.zeros([-(-40 // lattice.stride)] * 2, bool), stride=lattice.stride, label=label)
    tile = next(iter(Tiling((40, 40), lattice, (24, 24), 8)))
    store = Store(tmp_path)
    store.create(shape=(40, 40), shard=8, chunk=8, fingerprint="a")
    recipe = Recipe("crop", model.spec.normalisation(), 1, cells=cells)
    told = segmented(tile, source=source, model=model, store=store, recipe=recipe)
    skipped = skip_tile(tile, cells, grid=source.grid, store=store)
    same = {"seconds": {}, "peak_mb": 0.0, "started": 0.0, "wall": 0.0}
    assert replace(told, **same) == replace(skipped, **same)  # type: ignore[arg-type]
    assert skipped.counts == {str(label): 24 * 24}
    assert skipped.areas == {str(label): pytest.approx(24 * 24 * 100.0, rel=1e-3)}  # of the ground, not of the grid
