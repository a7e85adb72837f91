"""Laws of the lattice and of the tiles, over random geometries."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tilesseg.errors import JobError
from tilesseg.planning.machine import Compute, PatchSpeed
from tilesseg.planning.tile_size import best_cut, choose_shard, cuts
from tilesseg.raster.tiling import Lattice, Tiling, blend_lattice, crop_lattice, tile_name, tile_position
from tilesseg.raster.window import Window

sizes = st.integers(1, 60)
shapes = st.tuples(sizes, sizes)


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    """Crop and blended lattices with every kind of margin."""
    multiple = draw(st.sampled_from([1, 2, 4, 8]))
    margin = draw(st.integers(0, 9))
    lead = -(-margin // multiple) * multiple
    if draw(st.booleans()):
        patch = lead + margin + multiple * draw(st.integers(1, 4)) + draw(st.integers(0, 3))
        return crop_lattice(patch, margin=margin, multiple=multiple)
    overlap = 2 * max(lead, multiple) + draw(st.integers(0, 5))
    return blend_lattice(
        overlap + multiple * draw(st.integers(1, 6)), overlap=overlap, margin=margin, multiple=multiple
    )


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    shard = draw(st.integers(4, 24))
    core = (shard * draw(st.integers(1, 4)), shard * draw(st.integers(1, 4)))
    return Tiling(draw(shapes), draw(lattices()), core, shard)


@pytest.mark.parametrize("lead", [2, 4])
def test_a_lattice_whose_lead_leaves_cells_without_a_trusted_prediction_is_refused(lead: int) -> None:
    assert Lattice(16, 8, 3, before=3, after=5).support == 8
    with pytest.raises(ValueError, match="without a trusted prediction"):
        Lattice(16, 8, lead, before=3, after=5)


@given(tilings())
def test_what_a_tile_reads_is_what_its_patches_cover_in_the_image(tiling: Tiling) -> None:
    for tile in tiling:
        windows = [patch.window for row in tile.patch_rows for patch in row.patches]
        top, left = min(one.y for one in windows), min(one.x for one in windows)
        bottom, right = max(one.y_stop for one in windows), max(one.x_stop for one in windows)
        image = Window(0, 0, *tiling.shape)
        assert tile.outer == Window.from_bounds(top, left, bottom, right).intersect(image)


@given(tilings())
def test_cores_cover_every_pixel_exactly_once(tiling: Tiling) -> None:
    hits = np.zeros(tiling.shape, int)
    for tile in tiling:
        hits[tile.core.slices()] += 1
    assert (hits == 1).all()
    assert len(list(tiling)) == len(tiling)


@given(tilings())
def test_a_tile_computes_exactly_the_patches_whose_support_touches_its_core(tiling: Tiling) -> None:
    lattice, (height, width) = tiling.lattice, tiling.shape
    everything = [
        Window(lattice.origin(ky), lattice.origin(kx), lattice.patch, lattice.patch)
        for ky in range(lattice.cells(height))
        for kx in range(lattice.cells(width))
    ]
    for tile in tiling:
        wanted = [w for w in everything if w.inset(lattice.before, lattice.after).touches(tile.core)]
        assert [patch.window for row in tile.patch_rows for patch in row.patches] == wanted


@given(tilings())
def test_every_pixel_lies_in_the_support_of_a_patch_and_with_crop_of_exactly_one(tiling: Tiling) -> None:
    for tile in tiling:
        hits = np.zeros(tiling.shape, int)
        for row in tile.patch_rows:
            for patch in row.patches:
                hits[patch.support.intersect(tile.core).slices()] += 1
        covered = hits[tile.core.slices()]
        assert (covered >= 1).all()
        assert not tiling.lattice.exclusive or (covered == 1).all()


@given(tilings())
def test_a_row_is_final_before_any_later_patch_could_touch_it(tiling: Tiling) -> None:
    for tile in tiling:
        rows = list(tile.patch_rows)
        for row, after in pairwise(rows):
            assert all(max(patch.support.y, tile.core.y) >= row.until for patch in after.patches)
            assert row.window.y_stop >= row.until
        assert rows[-1].until == tile.core.y_stop
        assert [row.until for row in rows] == sorted(row.until for row in rows)


@given(lattices())
def test_every_patch_begins_at_a_multiple_of_the_stride_from_the_image_origin(lattice: Lattice) -> None:
    assert (lattice.origin(3) - lattice.origin(2), lattice.origin(0)) == (lattice.stride, -lattice.lead)


@given(tilings())
def test_the_work_factor_counts_what_the_tiles_predict(tiling: Tiling) -> None:
    predicted = [patch.window for tile in tiling for row in tile.patch_rows for patch in row.patches]
    assert tiling.patches == len(predicted)
    assert tiling.work_factor == pytest.approx(sum(w.area for w in predicted) / np.prod(tiling.shape))
    counts = Counter(predicted)
    assert tiling.recompute_factor == pytest.approx(len(predicted) / len(counts))


@given(tilings())
def test_a_tile_reads_the_part_of_its_patches_that_lies_in_the_image(tiling: Tiling) -> None:
    image = Window(0, 0, *tiling.shape)
    for tile in tiling:
        reads = [patch.window.intersect(image) for row in tile.patch_rows for patch in row.patches]
        corners = np.array([(read.y, read.x, read.y_stop, read.x_stop) for read in reads])
        assert tile.outer == Window.from_bounds(*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0))
        assert tile.outer.contains(tile.core)


@given(tilings())
def test_the_rows_above_the_next_patches_are_complete_at_once(tiling: Tiling) -> None:
    for tile in tiling:
        for row, after in pairwise(tile.patch_rows):
            assert row.until == min(max(after.patches[0].support.y, tile.core.y), tile.core.y_stop)


def test_a_lattice_trusts_each_pixel_of_a_stride_cell() -> None:
    whole = Lattice(8, stride=8, lead=0, before=0, after=0)
    assert (whole.support, whole.discarded, whole.exclusive) == (8, 0, True)
    edge = Lattice(8, stride=1, lead=3, before=3, after=4)
    assert (edge.support, edge.discarded, edge.exclusive) == (1, 3, True)
    for stride in (0, 9):
        with pytest.raises(ValueError, match="not within 1 … patch 8"):
            Lattice(8, stride=stride, lead=0, before=0, after=0)
    for lead, after in ((2, 4), (3, 5), (4, 4)):
        with pytest.raises(ValueError, match="without a trusted prediction"):
            Lattice(8, stride=1, lead=lead, before=3, after=after)


def test_a_core_that_is_not_whole_shards_is_a_mistake() -> None:
    lattice = blend_lattice(64, overlap=16, margin=0, multiple=1)
    for core in ((100, 150), (150, 100)):
        with pytest.raises(ValueError, match="not a whole number of shards of 100"):
            Tiling((900, 900), lattice, core, 100)


def test_the_price_of_overlap_is_the_area_of_a_patch_for_that_of_a_stride() -> None:
    lattice = blend_lattice(64, overlap=16, margin=0, multiple=1)
    assert Tiling((100, 100), lattice, (100, 100), 100).overlap_factor == (64 / 48) ** 2


@given(tilings())
def test_a_tile_is_found_by_its_name(tiling: Tiling) -> None:
    assert all(tiling.named(tile.name) == tile for tile in tiling)


def test_names_are_row_and_column() -> None:
    tiling = Tiling((2000, 3000), blend_lattice(64, overlap=16, margin=0, multiple=1), (100, 100), 100)
    assert tiling.tile(12, 3).name == "r012-c003"
    assert tiling.named("r012-c003").core == Window(1200, 300, 100, 100)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_name_and_its_row_and_column_say_the_same(row: int, column: int) -> None:
    assert tile_position(tile_name(row, column)) == (row, column)


@pytest.mark.parametrize("name", ["", "nonsense", "r-1-c0", "r00x-c001", "r001-c001.json", "r٣-c٣"])
def test_what_is_no_name_of_a_tile_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ValueError, match="r012-c034"):
        tile_position(name)


def test_the_recompute_factor_is_one_for_crop_and_below_1_10_for_gaussian_512_64_on_32768() -> None:
    shape = (32768, 32768)
    crop = crop_lattice(1216, margin=96, multiple=16)
    shard, _ = choose_shard(crop)
    best = best_cut([*cuts(shape, crop, shard=shard, compute=Compute("cpu", 1, 2))])
    assert Tiling(shape, crop, (best.height, best.width), shard).recompute_factor == 1.0
    gaussian = blend_lattice(512, overlap=64, margin=0, multiple=16)
    shard, _ = choose_shard(gaussian)
    for slots in (1, 2, 3, 4):
        best = best_cut([*cuts(shape, gaussian, shard=shard, compute=Compute("cpu", 1, slots))])
        assert Tiling(shape, gaussian, (best.height, best.width), shard).recompute_factor <= 1.10


@given(shapes, lattices(), st.integers(1, 5))
def test_a_chosen_core_is_whole_shards_and_no_larger_than_needed(
    shape: tuple[int, int], lattice: Lattice, slots: int
) -> None:
    shard, chunk = choose_shard(lattice, about=16)
    best = best_cut([*cuts(shape, lattice, shard=shard, compute=Compute("cpu", 1, slots), largest=(64, 64))])
    core = best.height, best.width
    assert shard % chunk == 0
    assert all(side % shard == 0 and side < size + shard for side, size in zip(core, shape, strict=True))
    tiling = Tiling(shape, lattice, core, shard)
    assert (best.patches, best.tiles) == (tiling.patches, len(tiling))
    if lattice.exclusive:
        assert tiling.recompute_factor == 1.0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_where_there_are_shards_enough_no_slot_has_fewer_than_four_tiles_but_for_slivers(
    rows: int, columns: int, slots: int
) -> None:
    assume(rows * columns >= 16 * slots)
    lattice = crop_lattice(24, margin=4, multiple=4)
    shape = (rows * lattice.stride, columns * lattice.stride)
    best = best_cut([*cuts(shape, lattice, shard=lattice.stride, compute=Compute("cpu", 1, slots))])
    assert rows * columns / best.largest >= 0.8 * 4 * slots


@pytest.mark.parametrize(("seconds", "sides"), [(0.001, (32768, 8192)), (0.1, (8192, 8192)), (4.0, (1024, 8192))])
def test_a_tile_takes_one_to_sixty_seconds(seconds: float, sides: tuple[int, int]) -> None:
    lattice = crop_lattice(1216, margin=96, multiple=16)
    speed = PatchSpeed(lattice.patch, lattice.patch**2 / 1e6 / seconds, memory_mb=100.0)
    best = best_cut([*cuts((131072, 131072), lattice, shard=1024, compute=Compute("cpu", 1, 2, speeds=(speed,)))])
    assert best.tile_seconds is not None and (seconds < 0.002 or 1 <= best.tile_seconds <= 60)
    assert (best.height, best.width) == sides


@given(lattices(), st.integers(1, 40))
def test_shards_divide_a_core_that_is_given(lattice: Lattice, count: int) -> None:
    unit = lattice.stride if lattice.exclusive else 64
    shard, chunk = choose_shard(lattice, core=count * unit, about=200)
    assert (count * unit % shard, shard % unit, shard % chunk) == (0, 0, 0)
    assert shard <= max(200, unit)
    if unit > 1:
        with pytest.raises(JobError, match=f"core {count * unit + 1} is not a multiple of {unit}"):
            choose_shard(lattice, core=count * unit + 1)


def test_the_valid_unet_of_depth_4_keeps_its_stride_on_the_multiple() -> None:
    lattice = crop_lattice(572, margin=92, multiple=16)
    assert (lattice.stride, lattice.lead) == (384, 96)
    assert lattice.before >= 92 and lattice.after >= 92


def test_the_smallest_lattices_are_no_mistakes() -> None:
    assert crop_lattice(3, margin=1, multiple=1) == Lattice(3, stride=1, lead=1, before=1, after=1)
    assert blend_lattice(4, overlap=3, margin=0, multiple=1).stride == 1
    assert blend_lattice(48, overlap=16, margin=8, multiple=8) == Lattice(48, stride=32, lead=8, before=8, after=8)


def test_patches_of_a_blended_lattice_reach_half_their_overlap_beyond_the_image() -> None:
    assert blend_lattice(512, overlap=64, margin=0, multiple=16).lead == 32
    assert blend_lattice(512, overlap=96, margin=0, multiple=32).lead == 32


def test_an_overlap_that_leaves_less_than_the_multiple_is_refused_with_one_that_leaves_it() -> None:
    for overlap in (62, 64, 70):
        with pytest.raises(JobError, match="take overlap 48"):
            blend_lattice(64, overlap=overlap, margin=0, multiple=16)
    with pytest.raises(JobError, match="take overlap 3"):
        blend_lattice(4, overlap=4, margin=0, multiple=1)


def test_an_overlap_that_leaves_the_multiple_is_refused_with_one_that_fits() -> None:
    with pytest.raises(JobError, match=r"overlap 100 has a stride of 412.*multiples of 16.*take overlap 96"):
        blend_lattice(512, overlap=100, margin=0, multiple=16)
    assert blend_lattice(512, overlap=96, margin=0, multiple=16).stride == 416


def test_an_overlap_below_two_margins_is_refused_with_one_that_fits() -> None:
    with pytest.raises(JobError, match="overlap 44 does not cover the 92 px") as refusal:
        blend_lattice(572, overlap=44, margin=92, multiple=16)
    suggested = int(str(refusal.value).split("take overlap ")[1].split()[0])
    assert suggested == 188, "the least, which keeps the margins of 92 and the multiple of 16"
    assert blend_lattice(572, overlap=suggested, margin=92, multiple=16).stride == 572 - suggested


def test_a_patch_of_nothing_but_margin_is_refused() -> None:
    with pytest.raises(
        JobError, match="patch 192 leaves nothing between two margins of 96; take a patch of at least 208"
    ):
        crop_lattice(192, margin=96, multiple=16)
    assert crop_lattice(208, margin=96, multiple=16).stride == 16
