"""Which overview of a raster file serves for statistics or for a view, and which windows do where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.reading.statistics_sample import PIXELS, VALUES, sampled_windows
from tilesseg.raster.window import Window


class OverviewLevel(NamedTuple):
    """An overview: which one, from 0, and its shape."""

    number: int
    shape: tuple[int, int]


def windows(files: Sequence[RasterFile], shape: tuple[int, int], channels: int) -> list[Window]:
    """The windows to sample: fewer where there are very many channels, or where the files' strips are huge."""
    facts = [file.facts for file in files]
    size = max(prod(one.storage_block) * np.dtype(one.dtypes[0]).itemsize for one in facts)
    return sampled_windows(shape, channels, block_bytes=size)


def overview_within(file: RasterFile, channels: int) -> OverviewLevel | None:
    """The finest overview of at most a million pixels, or None where there is no useful one."""
    height, width = file.facts.grid.shape
    most = min(PIXELS, VALUES // channels)
    for number, factor in enumerate(file.facts.overviews):
        if most // 64 <= (height / factor) * (width / factor) <= most:
            return OverviewLevel(number, file.level_shape(number))
    return None


def overview_above(file: RasterFile, shape: tuple[int, int]) -> OverviewLevel | None:
    """The coarsest overview that is not smaller than `shape`."""
    found = None
    for number in range(len(file.facts.overviews)):
        level = OverviewLevel(number, file.level_shape(number))
        if level.shape[0] >= shape[0] and level.shape[1] >= shape[1]:
            found = level
    return found
