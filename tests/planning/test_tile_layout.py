"""How a scene is cut: the patch of a flexible model by what was measured, and what must never change."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import spec_data

from tilesseg.errors import JobError
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.planning.job import TilingOptions
from tilesseg.planning.machine import Compute, PatchSpeed, fitting, speed_at
from tilesseg.planning.tile_layout import LARGE, Layout, choose_layout, flexible, measured_patches, why_patch
from tilesseg.planning.tile_size import Cut

UNET: dict[str, Any] = {"multiple": 16, "stride_multiple": 16}
"""The sizes of a U-Net of depth 4, whose margin is 94."""
GAUSSIAN = TilingOptions(blend="gaussian", overlap=64)
FAST_WHERE_SMALL = {256: 14.2, 1088: 13.6, 2240: 11.8, 4288: 10.2}
"""OpenVINO in bf16 on two cores with AMX, Mpx/s by patch."""
FAST_WHERE_LARGE = {256: 1.4, 1216: 1.7, 2240: 1.97, 4288: 2.0}
"""The same in float32 on two without."""


def unet(**changes: Any) -> ModelSpec:
    return parse_spec(spec_data(bands=3, patch=UNET, margin=94, **changes), where="test")


def speeds(table: dict[int, float]) -> tuple[PatchSpeed, ...]:
    return tuple(PatchSpeed(patch, speed, 500.0) for patch, speed in table.items())


def cut(
    shape: tuple[int, int], asked: TilingOptions, table: dict[int, float], *, slots: int = 2, parallel_batches: int = 1
) -> Layout:
    compute = Compute("cpu", 1, slots, parallel_batches=parallel_batches, speeds=speeds(table))
    return choose_layout(shape, unet(), asked, compute=compute)


@pytest.mark.parametrize("table", [FAST_WHERE_SMALL, FAST_WHERE_LARGE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("side", [8192, 32768])
@pytest.mark.parametrize("parallel_batches", [1, 2])
def test_the_work_factor_is_at_most_1_20_for_crop_and_1_35_for_gaussian_with_overlap_64(
    side: int, table: dict[int, float], parallel_batches: int
) -> None:
    shape = (side, side)
    for slots in (1, 2, 4) if side > 8192 else (1, 2):
        crop = cut(shape, TilingOptions(), table, slots=slots, parallel_batches=parallel_batches).tiling(shape)
        assert (crop.work_factor <= 1.20, crop.recompute_factor) == (True, 1.0)
        assert (
            cut(shape, GAUSSIAN, table, slots=slots, parallel_batches=parallel_batches).tiling(shape).work_factor
            <= 1.35
        )


@pytest.mark.parametrize(
    ("shape", "table", "stride"),
    [
        ((8192, 8192), FAST_WHERE_LARGE, 4096),
        # Of those that are as fast but for a tenth, the one that predicts least.
        ((8192, 8192), FAST_WHERE_SMALL, 4096),
        # Three reach from edge to edge.
        ((8192, 8192), {256: 14.2, 1088: 13.6, 2240: 11.8, 3200: 11.0}, 2736),
        # 2048 would hang far over the edges, two of these do not.
        ((5000, 5000), FAST_WHERE_SMALL, 2512),
        # Twice as slow where it is large: what is predicted twice is cheaper.
        ((8192, 8192), {704: 14.0, 1216: 13.0, 2240: 6.0}, 1024),
        # Nothing is known of the usual patch, so nothing of what is better than it.
        ((8192, 8192), {704: 14.0}, 1024),
        # What lies beyond what was measured is not taken.
        ((8192, 8192), {704: 1.0, 1216: 2.0, 1728: 4.0}, 1376),
    ],
)
def test_the_patch_is_the_one_with_which_the_scene_is_soonest_done(
    shape: tuple[int, int], table: dict[int, float], stride: int
) -> None:
    layout = cut(shape, TilingOptions(), table)
    assert layout.lattice.stride == stride
    assert layout.shard % stride == 0 and layout.core[0] % stride == layout.core[1] % stride == 0


@pytest.mark.parametrize("asked", [TilingOptions(), GAUSSIAN], ids=["crop", "gaussian"])
def test_no_patch_that_was_measured_would_do_more_scene_in_a_second(asked: TilingOptions) -> None:
    shape, table = (6000, 9000), FAST_WHERE_SMALL
    chosen = cut(shape, asked, table)
    for patch in measured_patches(unet(), asked):
        if (speed := speed_at(patch, speeds(table))) is None:
            continue
        other = choose_layout(shape, unet(), asked.model_copy(update={"patch": patch}), compute=Compute("cpu", 1, 2))
        mine = speed_at(chosen.lattice.patch, speeds(table))
        assert mine is not None
        done = speed.mpx_per_s / other.tiling(shape).work_factor
        assert 1.02 * mine.mpx_per_s / chosen.tiling(shape).work_factor >= done


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"margin": None}, TilingOptions()),
        ({"patch": {**UNET, "preferred": 512}}, TilingOptions()),
        ({"patch": {"fixed": 512, "stride_multiple": 16}}, TilingOptions()),
        ({}, TilingOptions(patch=704)),
    ],
    ids=["global view", "preferred", "fixed", "asked for"],
)
def test_a_patch_that_somebody_states_is_never_changed(changes: dict[str, Any], asked: TilingOptions) -> None:
    spec = parse_spec({**spec_data(bands=3, patch=UNET, margin=94), **changes}, where="test")
    assert not flexible(spec, asked)
    plain, told = (
        choose_layout((8192, 8192), spec, asked, compute=Compute("cpu", 1, 2, speeds=known))
        for known in ((), speeds(FAST_WHERE_LARGE))
    )
    assert plain == told


def test_a_small_scene_has_the_usual_patch() -> None:
    below = LARGE // 4000 - 1
    assert cut((4000, below), TilingOptions(), FAST_WHERE_LARGE) == cut((4000, below), TilingOptions(), {})
    assert cut((4000, below + 1), TilingOptions(), FAST_WHERE_LARGE) != cut((4000, below + 1), TilingOptions(), {})


@pytest.mark.parametrize(("shape", "patch"), [((600, 20000), 816), ((20000, 300), 512), ((9, 30000), 464)])
def test_a_narrow_scene_has_a_smaller_patch_where_that_predicts_less(shape: tuple[int, int], patch: int) -> None:
    narrow = choose_layout(shape, unet(), TilingOptions(), compute=Compute("cpu", 1, 2))
    usual = choose_layout(shape, unet(), TilingOptions(patch=1216), compute=Compute("cpu", 1, 2))
    assert narrow.lattice.patch == patch
    assert narrow.tiling(shape).work_factor < 0.75 * usual.tiling(shape).work_factor
    assert narrow.tiling(shape).recompute_factor == 1.0


def test_a_core_that_does_not_fit_the_usual_stride_is_refused_whatever_was_measured() -> None:
    for table in ({}, FAST_WHERE_LARGE):
        with pytest.raises(JobError, match="core 2560 is not a multiple of 1024"):
            cut((8192, 8192), TilingOptions(core=2560), table)


def test_a_given_core_stays_and_the_stride_divides_it() -> None:
    layout = cut((8192, 8192), TilingOptions(core=3072), FAST_WHERE_LARGE)
    assert (layout.core, layout.lattice.stride) == ((3072, 3072), 3072)


def test_a_core_is_narrower_where_a_row_of_patches_would_take_too_much() -> None:
    wide, narrow = (
        choose_layout(
            (32768, 32768),
            parse_spec(spec_data(bands=bands, patch=UNET, margin=94), where="test"),
            TilingOptions(),
            compute=Compute("cpu", 1, 2),
            itemsize=itemsize,
        )
        for bands, itemsize in ((3, 1), (13, 2))
    )
    assert wide.core[1] == 8192
    assert narrow.core[1] * narrow.lattice.patch * 27 <= 128e6


def test_vast_scenes_are_stored_in_fewer_files() -> None:
    assert cut((8192, 8192), TilingOptions(), {}).shard == 1024
    assert cut((16384, 16384), TilingOptions(), {}).shard == 2048


def test_the_plan_says_which_patch_was_chosen_and_why() -> None:
    shape, known = (8192, 8192), speeds({704: 1.55, 1216: 1.7, 2240: 1.97})
    layout = choose_layout(shape, unet(), TilingOptions(), compute=Compute("cpu", 1, 2, speeds=known))
    assert why_patch(shape, layout, known) == (
        "patch 2240: 1.97 Mpx/s ÷ work 1.20 = 1.65 Mpx/s of the scene in one process, by measured speeds "
        "(704: 1.55, 1216: 1.7, 2240: 1.97 Mpx/s)"
    )
    assert why_patch(shape, layout, ()) is None


def test_speeds_between_two_sizes_are_interpolated_and_none_beyond() -> None:
    known = (PatchSpeed(512, 1.0, 100.0), PatchSpeed(2048, 3.0, 1600.0))
    found = [speed_at(patch, known) for patch in (511, 512, 1024, 2048, 2049)]
    assert found == [None, known[0], PatchSpeed(1024, 2.0, 400.0, inferred=True), known[1], None]
    assert speed_at(512, ()) is None


def test_slivers_at_the_edge_do_not_count_as_tiles() -> None:
    lattice = cut((8192, 8192), TilingOptions(), {}).lattice
    even = Cut((8192, 8192), lattice, 4096, 8192, (4, 4), (8,), Compute("cpu", 1, 2), None)
    sliver = Cut((8192, 8192), lattice, 7168, 8192, (7, 1), (8,), Compute("cpu", 1, 2), None)
    assert even.tiles_for_each_slot(1) and not sliver.tiles_for_each_slot(1)


@pytest.mark.parametrize("limit", [399.0, 400.0, 401.0, 899.0, 900.0, 1000.0, 2499.0, 2500.0])
def test_between_a_patch_that_fits_and_one_that_does_not_the_largest_that_fits_is_inferred(limit: float) -> None:
    known = [PatchSpeed(512, 1.0, 400.0), PatchSpeed(1024, 2.0, 900.0), PatchSpeed(2048, 3.0, 2500.0)]
    found = fitting(known, lambda one: one.memory_mb <= limit, step=16)
    fit = [one for one in known if one.memory_mb <= limit]
    assert [one for one in found if not one.inferred] == fit
    if not fit or fit == known:
        assert list(found) == fit
        return
    below, above = fit[-1], known[len(fit)]
    memory = {
        patch: below.memory_mb
        + (above.memory_mb - below.memory_mb) * (patch**2 - below.patch**2) / (above.patch**2 - below.patch**2)
        for patch in range(below.patch + 16, above.patch, 16)
    }
    best = max((patch for patch in memory if memory[patch] <= limit), default=None)
    assert [one.patch for one in found if one.inferred] == ([] if best is None else [best])
    if best is not None:
        assert found[-1].memory_mb == pytest.approx(memory[best])
        assert found[-1] == speed_at(best, known)
