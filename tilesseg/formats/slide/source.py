"""A slide as an image: one level of its pyramid on its grid, and the coarser ones below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.reading.source_checks import file_state, refuse_outside, selection
from tilesseg.formats.reading.statistics_sample import PIXELS, VALUES, sample_windows, sampled_windows
from tilesseg.formats.reading.thumbnail import decimate, thumbnail_shape
from tilesseg.formats.reading.validity import UNSCALED, Scaling, finish, stacked
from tilesseg.formats.slide.slide_description import describe_slide
from tilesseg.formats.slide.slide_reader import LevelReader, level_grid
from tilesseg.formats.source import Pixels, Raw, Source
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class SlideSource:
    """One level of a slide; see `formats.Source`.

    A pixel is nodata where the scanner left it out: where it is transparent, or its tile is not in the file.
    """

    reader: LevelReader
    selected: tuple[int, ...]
    level: int = 0
    scale: Scaling = UNSCALED
    """Scale and offset of all bands, as the user gave them."""

    @property
    def grid(self) -> Grid:
        return level_grid(self.reader.facts, self.level)

    @property
    def native(self) -> Grid:
        return level_grid(self.reader.facts, 0)

    @property
    def levels(self) -> tuple[SlideSource, ...]:
        """See `formats.Source.levels`."""
        return tuple(replace(self, level=k) for k in range(self.level + 1, len(self.reader.facts.levels)))

    @property
    def bands(self) -> tuple[str | None, ...]:
        return self.reader.facts.names

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.reader.facts.dtype if self.scale == UNSCALED else np.float32)

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        return (np.dtype(self.reader.facts.dtype),) * len(self.bands)

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        return (self.scale,) * len(self.bands)

    @property
    def masks(self) -> tuple[int, ...]:
        told = self.reader.facts.masks
        in_use = sorted({told[i] for i in self.selected})
        return tuple(in_use.index(told[i]) for i in self.selected)

    @property
    def storage_block(self) -> tuple[int, int]:
        (height, width), (most_y, most_x) = self._level.storage_block, self._level.shape
        return min(height, most_y), min(width, most_x)

    def select(self, indices: Sequence[int]) -> SlideSource:
        """The same image, reading these bands in this order.

        Raises:
            SourceError: no band, or one that the image does not have.
        """
        return replace(self, selected=selection(indices, len(self.bands), image=self.reader.facts.path))

    def read(self, window: Window) -> Pixels:
        """Read any window; see `formats.Source.read`."""
        return read_reflected(window, self._inside, self._read_inside)

    def read_raw(self, window: Window) -> Raw:
        """What the file holds; see `formats.Source.read_raw`."""
        refuse_outside(window, self._inside)
        values, planes = self.reader.read(self.level, window, self.selected)
        return Raw(values, stacked(planes))

    def rows(self, height: int) -> Iterator[Raw]:
        """Bands of rows; see `formats.Source.rows`."""
        for y in range(0, self._inside.height, height):
            yield self.read_raw(Window(y, 0, min(height, self._inside.height - y), self._inside.width))

    def sample(self) -> NDArray[np.float64]:
        """Values for statistics; see `formats.Source.sample`."""
        most = min(PIXELS, VALUES // len(self.selected))
        for level in self.levels:  # the finest that is small enough
            if most // 64 <= level._inside.area <= most:
                try:
                    return sample_windows([level._inside], level._read_inside)
                except SourceError:  # a damaged level costs nothing: full resolution is there
                    break
        block_bytes = self.storage_block[0] * self.storage_block[1] * self.dtype.itemsize
        windows = sampled_windows(self._inside.shape, len(self.selected), block_bytes=block_bytes)
        return sample_windows(windows, self._read_inside)

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view for people to look at; see `formats.Source.thumbnail`."""
        shape = thumbnail_shape(self._inside.shape, size)
        enough = [one for one in self.levels if one._inside.height >= shape[0] and one._inside.width >= shape[1]]
        seen = enough[-1] if enough else self
        empty = Pixels(np.zeros((len(self.selected), *shape), self.dtype), np.zeros(shape, np.bool_))
        return decimate(seen._read_inside, seen._inside.shape, shape, block=seen.storage_block, empty=empty)

    def identity(self) -> dict[str, Any]:
        """`[size, mtime in ns]` of every file, None where it is missing."""
        return {name: file_state(name) for name in self.reader.facts.files}

    def describe(self) -> dict[str, Any]:
        """What `tilesseg inspect` prints."""
        return describe_slide(self.reader.facts, self.level, scale=self.scale)

    @property
    def _level(self) -> Any:
        return self.reader.facts.levels[self.level]

    @property
    def _inside(self) -> Window:
        return Window(0, 0, *self._level.shape)

    def _read_inside(self, window: Window) -> Pixels:
        values, planes = self.reader.read(self.level, window, self.selected)
        return finish(values, planes, scalings=[self.scale] * len(self.selected), dtype=self.dtype)


_: type[Source] = SlideSource
