"""The laws of `segment_tile`: tiling never changes the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, FakeModel, fake_model, segmented
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesseg.errors import NetworkFailed
from tilesseg.events import TileDone
from tilesseg.formats.zarr.shard_sum import ShardSum
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.inference.blending import profile
from tilesseg.inference.segment_tile import skip_tile
from tilesseg.planning.recipe import Blend, Recipe
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.tiling import Lattice, Tiling, blend_lattice, crop_lattice
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store

BLENDS: tuple[Blend, ...] = ("gaussian", "linear", "hann", "crop")
AWKWARD = [(1, 1), (1, 33), (33, 1), (7, 5), (16, 16), (17, 17), (16, 17), (31, 37), (53, 24), (64, 64)]


def lattice_of(blend: Blend, *, patch: int = 16, overlap: int = 6, margin: int = 0) -> Lattice:
    if blend == "crop":
        return crop_lattice(patch, margin=max(margin, 3), multiple=2)
    return blend_lattice(patch, overlap=overlap, margin=margin, multiple=2)


def run(
    folder: Path,
    source: ArraySource,
    model: FakeModel,
    lattice: Lattice,
    *,
    blend: Blend,
    core: tuple[int, int] | None = None,
    shard: int = 8,
    batch: int = 1,
    order: int = 0,
) -> tuple[NDArray[np.uint8], list[TileDone]]:
    """The mask of an image, and the records of its tiles; one core holds everything by default."""
    shape = source.grid.shape
    core = core or tuple(-(-side // shard) * shard for side in shape)  # type: ignore[assignment]
    store = Store(folder)
    store.create(shape=shape, shard=shard, chunk=shard, fingerprint="a")
    tiling = Tiling(shape, lattice, core, shard)  # type: ignore[arg-type]
    tiles = list(tiling)
    np.random.default_rng(order).shuffle(tiles)  # type: ignore[arg-type]
    recipe = Recipe(blend, model.spec.normalisation(), batch)
    records = [segmented(tile, source=source, model=model, store=store, recipe=recipe) for tile in tiles]
    return store.read(source.grid.window), records


def picture(shape: tuple[int, int], *, seed: int = 0, holes: bool = False) -> ArraySource:
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) > 0.4 if holes else np.ones(shape, bool)
    return ArraySource(rng.integers(0, 250, (1, *shape)).astype(np.uint8), valid)


@settings(max_examples=120)
@given(data=st.data())
def test_tiling_never_changes_the_result(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    blend = draw(st.sampled_from(BLENDS))
    patch = draw(st.sampled_from([14, 16, 20, 24]))
    model = fake_model("Positional", margin=3)
    lattice = lattice_of(blend, patch=patch, overlap=draw(st.sampled_from([0, 2, 6, 10, patch - 2])))
    source = picture(shape, seed=draw(st.integers(0, 99)), holes=draw(st.booleans()))
    shard = draw(st.integers(5, 20))
    core = (shard * draw(st.integers(1, 5)), shard * draw(st.integers(1, 5)))
    folder = tmp_path_factory.mktemp("tiling")
    whole, _ = run(folder / "whole", source, model, lattice, blend=blend, shard=60)
    batch, order = draw(st.integers(1, 3)), draw(st.integers(0, 9))
    tiled, _ = run(
        folder / "tiled", source, model, lattice, blend=blend, core=core, shard=shard, batch=batch, order=order
    )
    assert (tiled == whole).all()


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("shape", AWKWARD)
def test_a_constant_model_gives_a_constant_mask_borders_included(
    tmp_path: Path, blend: Blend, shape: tuple[int, int]
) -> None:
    mask, _ = run(tmp_path, picture(shape), fake_model("Constant"), lattice_of(blend), blend=blend, core=(16, 8))
    assert (mask == 1).all()


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("shape", AWKWARD)
def test_an_identity_model_gives_a_label_image_back(tmp_path: Path, blend: Blend, shape: tuple[int, int]) -> None:
    source = picture(shape, seed=3)
    mask, _ = run(tmp_path, source, fake_model("Identity", classes=250), lattice_of(blend), blend=blend, core=(8, 24))
    assert (mask == source.values[0]).all()


@pytest.mark.parametrize("blend", BLENDS)
def test_valid_convolutions_shrink_the_prediction_and_not_the_mask(tmp_path: Path, blend: Blend) -> None:
    source = picture((37, 41), seed=4)
    model = fake_model("Identity", classes=250, patch={"shrink": 4, "multiple": 2})
    lattice = lattice_of(blend, margin=2)
    mask, _ = run(tmp_path, source, model, lattice, blend=blend, core=(16, 16))
    assert (mask == source.values[0]).all()


@pytest.mark.parametrize("blend", BLENDS)
def test_invalid_pixels_are_255_and_all_others_a_class(tmp_path: Path, blend: Blend) -> None:
    source = picture((40, 50), holes=True)
    mask, _ = run(tmp_path, source, fake_model("Identity", classes=250), lattice_of(blend), blend=blend, core=(16, 24))
    assert (mask[~source.valid] == 255).all()
    assert (mask[source.valid] == source.values[0][source.valid]).all()


@pytest.mark.parametrize("valid", [np.zeros((30, 30), bool), np.broadcast_to(np.False_, (30, 30))])
def test_an_all_nodata_image_is_all_255_and_nothing_is_predicted(tmp_path: Path, valid: NDArray[np.bool_]) -> None:
    source = ArraySource(np.zeros((1, 30, 30), np.uint8), valid)
    mask, records = run(tmp_path, source, fake_model("Broken"), lattice_of("gaussian"), blend="gaussian", core=(16, 16))
    assert (mask == 255).all()
    assert sum(record.patches for record in records) == 0 < sum(record.skipped for record in records)


def test_the_value_of_an_invalid_pixel_has_no_say(tmp_path: Path) -> None:
    source = picture((40, 40), holes=True)
    other = ArraySource(np.where(source.valid, source.values, 249 - source.values), source.valid)
    masks = [
        run(tmp_path / name, image, fake_model("Positional", fill=7.0), lattice_of("gaussian"), blend="gaussian")[0]
        for name, image in (("a", source), ("b", other))
    ]
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("fill", [-1.0, 0.5, 300.0])
def test_a_fill_that_the_images_type_cannot_hold_is_not_rounded(tmp_path: Path, fill: float) -> None:
    source = picture((40, 40), holes=True)
    wide = ArraySource(source.values.astype(np.float64), source.valid)
    masks = [
        run(tmp_path / name, image, fake_model("Positional", fill=fill), lattice_of("gaussian"), blend="gaussian")[0]
        for name, image in (("narrow", source), ("wide", wide))
    ]
    assert (masks[0] == masks[1]).all()


def test_a_tile_run_twice_equals_once(tmp_path: Path) -> None:
    source, model, lattice = picture((40, 40), seed=5), fake_model("Positional"), lattice_of("hann")
    once, _ = run(tmp_path, source, model, lattice, blend="hann", core=(16, 16))
    twice, _ = run(tmp_path, source, model, lattice, blend="hann", core=(16, 16), order=4)
    assert (once == twice).all()


def test_scores_that_are_not_finite_fail_the_tile(tmp_path: Path) -> None:
    source = ArraySource.of(np.full((1, 16, 16), 14, np.uint8))
    with pytest.raises(NetworkFailed, match="ValueError: the model gave scores that are not finite"):
        run(tmp_path, source, fake_model("Broken"), lattice_of("gaussian"), blend="gaussian")


@pytest.mark.parametrize("blend", BLENDS)
def test_the_records_count_every_pixel_once(tmp_path: Path, blend: Blend) -> None:
    source = picture((45, 38), holes=True)
    mask, records = run(
        tmp_path, source, fake_model("Identity", classes=250), lattice_of(blend), blend=blend, core=(16, 8)
    )
    counts: dict[str, int] = {}
    for record in records:
        for label, n in record.counts.items():
            counts[label] = counts.get(label, 0) + n
    labels, n = np.unique(mask, return_counts=True)
    assert counts == {str(label): int(count) for label, count in zip(labels, n, strict=True)}


@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("blend", BLENDS)
def test_a_pixel_has_the_class_of_the_mean_of_all_its_patches_by_their_weights(
    tmp_path: Path, blend: Blend, margin: int
) -> None:
    """Against sums over whole arrays; scores that differ from patch to patch tell one blend from another."""
    source, model = picture((45, 38), seed=2), fake_model("Positional")
    lattice = lattice_of(blend, margin=margin)
    mask, records = run(tmp_path, source, model, lattice, blend=blend, core=(16, 8), batch=2)
    line = profile(blend, lattice.support).astype(np.float64)
    sums, total = np.zeros((3, 45, 38)), np.zeros((45, 38))
    (tile,) = Tiling((45, 38), lattice, (48, 40), 8)
    for patch in (patch for row in tile.patch_rows for patch in row.patches):
        scores = model.predict(source.read(patch.window).values[None].astype(np.float32))[0]
        part = patch.support.intersect(source.grid.window)
        weights = np.outer(line, line)[part.slices(patch.support)]
        sums[:, *part.slices()] += weights * scores[:, *part.slices(patch.window)]
        total[part.slices()] += weights
    means = sums / total
    first, second = np.sort(means, axis=0)[::-1][:2]
    clear = first - second > 1e-5  # rounding decides the others
    assert clear.mean() > 0.99 and (means.argmax(axis=0) == mask)[clear].all()
    assert {record.attempts for record in records} == {1}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("blend", BLENDS)
def test_a_record_counts_the_patches_on_which_a_valid_pixel_depends_and_the_others(
    tmp_path: Path, blend: Blend, batch: int
) -> None:
    source, core = picture((70, 61), holes=True), (24, 16)
    source.valid[:40, :30] = False
    source.valid[5, 29] = True
    lattice = lattice_of(blend)
    _, records = run(
        tmp_path, source, fake_model("Identity", classes=250), lattice, blend=blend, core=core, batch=batch
    )
    tiling = Tiling((70, 61), lattice, core, 8)
    for record in records:
        tile = tiling.named(record.tile)
        patches = [patch for row in tile.patch_rows for patch in row.patches]
        needed = [patch for patch in patches if source.valid[patch.support.intersect(tile.core).slices()].any()]
        assert (record.patches, record.skipped) == (len(needed), len(patches) - len(needed))
        seen = np.zeros((70, 61), bool)
        for row in tile.patch_rows:
            seen[row.window.intersect(source.grid.window).slices()] = True
        assert record.read == seen.sum()
    assert sum(record.skipped for record in records) > 0 and any(not record.patches for record in records)


def test_a_tile_outside_the_region_of_interest_is_stored_without_reading_and_counted(tmp_path: Path) -> None:
    tiling = Tiling((70, 61), lattice_of("gaussian"), (24, 16), 8)
    cells = RoiCells.of(np.zeros((9, 8), bool), stride=10, label=255)
    store = Store(tmp_path)
    store.create(shape=(70, 61), shard=8, chunk=8, fingerprint="a", scores=["x"])
    tile = tiling.named("r002-c003")
    record = skip_tile(tile, cells, grid=Grid(70, 61), store=store, scores=1)
    assert (record.patches, record.read, record.pixels, record.outside) == (0, 0, tile.core.area, tile.core.area)
    assert record.skipped == sum(len(row.patches) for row in tile.patch_rows) > 0
    assert record.counts == {"255": tile.core.area} and record.areas == {}
    for plane in (store.read(Window(0, 0, 70, 61)), store.read_scores(0, Window(0, 0, 70, 61))):
        assert (plane[tile.core.slices()] == 255).all() and (plane == 254).sum() == 70 * 61 - tile.core.area


def test_a_core_is_written_in_whole_shards_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Window] = []

    def write(self: Sharded, window: Window, values: Any, *, plane: tuple[int, ...] = ()) -> list[ShardSum]:
        writes.append(window)
        return []

    monkeypatch.setattr(Sharded, "write", write)
    monkeypatch.setattr(Store, "levels", ())
    monkeypatch.setattr(Store, "read", lambda self, window: np.zeros(window.shape, np.uint8))
    run(tmp_path, picture((50, 30)), fake_model("Constant"), lattice_of("gaussian"), blend="gaussian", core=(40, 16))
    assert all(one.y % 8 == 0 and (one.y_stop % 8 == 0 or one.y_stop == 50) for one in writes)
    cells = [(y, one.x) for one in writes for y in range(one.y, one.y_stop)]
    assert len(cells) == len(set(cells)) == 50 * 2
