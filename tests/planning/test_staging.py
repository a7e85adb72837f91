"""How often pixels are decoded is counted, not guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.planning import staging
from tilesseg.planning.staging import decode_factor
from tilesseg.raster.tiling import Tiling, blend_lattice, crop_lattice
from tilesseg.raster.window import Window


def counted(tiling: Tiling, block: tuple[int, int]) -> float:
    """Decode every block of every read, one by one, without a cache."""
    height, width = tiling.shape
    blocks = [
        Window(y, x, block[0], block[1]).intersect(Window(0, 0, height, width))
        for y in range(0, height, block[0])
        for x in range(0, width, block[1])
    ]
    reads = [row.window.intersect(Window(0, 0, height, width)) for tile in tiling for row in tile.patch_rows]
    return sum(one.area for read in reads for one in blocks if not one.intersect(read).empty) / (height * width)


@given(
    shape=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    block=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    core=st.integers(1, 4),
    crop=st.booleans(),
)
def test_without_a_cache_it_is_every_cell_of_every_read(
    shape: tuple[int, int], block: tuple[int, int], core: int, crop: bool
) -> None:
    lattice = crop_lattice(32, margin=4, multiple=4) if crop else blend_lattice(32, overlap=8, margin=0, multiple=8)
    tiling = Tiling(shape, lattice, (core * 24, core * 24), 24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "CACHE", 0)
        factor = decode_factor(tiling, block, pixel_bytes=1)
    assert factor == pytest.approx(counted(tiling, (min(block[0], shape[0]), min(block[1], shape[1]))))


def test_a_tiled_image_is_read_as_it_is_and_strips_under_many_columns_are_not() -> None:
    lattice = blend_lattice(512, overlap=128, margin=0, multiple=32)
    tiling = Tiling((32768, 32768), lattice, (4224, 4224), 1056)
    assert decode_factor(tiling, (512, 512), pixel_bytes=4) < 2
    assert decode_factor(tiling, (16, 32768), pixel_bytes=4) > 7
    assert decode_factor(tiling, (32768, 32768), pixel_bytes=4) > 64


def test_strips_under_one_column_of_tiles_are_read_as_they_are() -> None:
    tiling = Tiling((100_000, 4000), blend_lattice(512, overlap=128, margin=0, multiple=32), (4224, 4224), 1056)
    assert decode_factor(tiling, (16, 4000), pixel_bytes=4) < 1.3


def test_an_image_that_fits_into_the_cache_is_decoded_once() -> None:
    tiling = Tiling((2000, 2000), blend_lattice(64, overlap=16, margin=0, multiple=16), (96, 96), 48)
    assert decode_factor(tiling, (2000, 2000), pixel_bytes=4) == 1
