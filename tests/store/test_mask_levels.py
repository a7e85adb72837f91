"""The coarser levels that tiles make: whole shards of one tile each, at the sizes of the mask's pyramid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesseg.raster.pyramid import level_shapes
from tilesseg.raster.window import Window
from tilesseg.store.mask_levels import StoredLevels, in_level, make_levels, tile_shards


@pytest.mark.parametrize(
    ("core", "shard", "sides"),
    [
        ((1024, 1024), 1024, (512,)),
        ((2048, 1024), 1024, (512,)),
        ((1024, 2048), 1024, (512,)),
        ((2048, 4096), 1024, (1024, 512)),
        ((30, 30), 30, (15,)),
        ((60, 60), 30, (30, 15)),
        ((60, 90), 30, (15,)),
        ((1021, 1021), 1021, ()),
        ((1021 * 2, 1021 * 2), 1021, ()),
    ],
)
def test_a_level_keeps_the_shard_size_while_a_core_is_whole_shards_of_it_and_then_half_of_it_once(
    core: tuple[int, int], shard: int, sides: tuple[int, ...]
) -> None:
    assert tile_shards(core, shard) == sides


@pytest.mark.parametrize("shard", [16, 30, 96, 1024, 1021])
@pytest.mark.parametrize("times", [(1, 1), (2, 2), (3, 4), (7, 7), (8, 8), (8, 12), (16, 16)])
def test_no_two_tiles_share_a_shard_of_a_level(shard: int, times: tuple[int, int]) -> None:
    height, width = (shard * number for number in times)
    for number, side in enumerate(tile_shards((height, width), shard), start=1):
        share = in_level(Window(3 * height, 5 * width, height, width), number)
        assert (share.height << number, share.width << number) == (height, width)
        assert not any(bound % side for bound in (share.y, share.x, share.height, share.width))
        assert shard // 2 <= side <= shard


def test_large_cores_make_few_files() -> None:
    assert tile_shards((8192, 8192), 1024) == (1024, 1024, 1024, 512)
    assert tile_shards((7168, 8192), 1024) == (512,)


def test_a_core_at_the_edge_has_the_odd_row_and_column_in_each_level() -> None:
    core = Window(32, 64, 17, 5)
    assert in_level(core, 0) == core
    assert in_level(core, 1) == Window(16, 32, 9, 3)
    assert in_level(core, 3) == Window(4, 8, 3, 1)


def test_levels_that_tiles_make_are_those_of_the_pyramid_from_the_first_halved_one(tmp_path: Path) -> None:
    shape = (1100, 1501)
    make_levels(tmp_path / "levels", shape=shape, shard=96, chunk=32, core=(192, 192))
    levels = StoredLevels(tmp_path / "levels").arrays()
    assert tuple(level.shape for level in levels) == level_shapes(shape)[1:3]
    assert [level.shard for level in levels] == [(96, 96), (48, 48)]
    assert [level.chunk for level in levels] == [(32, 32), (48, 48)], "no chunk of 32 divides a shard of 48"
    assert all((level.read(Window(0, 0, 50, 50)) == 254).all() for level in levels)


def test_levels_are_made_in_place_of_others_and_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    levels = StoredLevels(tmp_path / "levels")
    assert levels.arrays() == ()
    levels.create([(8 + number, 8) for number in range(12)], [8] * 12, chunk=8)
    assert [array.shape for array in levels.arrays()] == [(8 + number, 8) for number in range(12)]
    levels.create([(5, 5)], [8], chunk=8)
    assert [array.shape for array in levels.arrays()] == [(5, 5)]
    levels.remove()
    levels.remove()
    assert levels.arrays() == () == tuple(tmp_path.iterdir())
