"""An opened image, one class for all formats, over the small reader that a format gives.

A format knows the facts of its files (`ImageFacts`) and reads a window of them (`Reader`). The choice of bands, scale
and offset, validity, edge padding, statistics, views and the description belong to `Image`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.damage import Parts, from_coarser, read_by_block
from tilesseg.formats.reading.band_planes import (
    ImageBand,
    Planes,
    mask_count,
    masks_of,
    planes_of,
    values_and_masks,
    voting,
)
from tilesseg.formats.reading.crs import crs_name
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.reading.statistics_sample import Readable, sample_image
from tilesseg.formats.reading.thumbnail import decimate, thumbnail_shape
from tilesseg.formats.reading.validity import UNSCALED, Scaling, finish, stacked
from tilesseg.formats.source import AlphaBand, Pixels, Raw, SalvagedPixels, SalvagedRaw, Source, file_state
from tilesseg.paths import container, is_address, unsigned, without_secrets
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window

Shape = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Everything that is known of an image once it is open."""

    path: str
    """Name of the image in messages."""
    grid: Grid
    bands: tuple[ImageBand, ...]
    """Bands that carry data: no alpha, no mask."""
    files: tuple[str, ...]
    """Every file with pixels of the image, or with metadata of them."""
    native: Grid | None = None
    """Grid of the image's own finest pixels, where another one is read."""
    canvas: Shape | None = None
    """Shape of the canvas of which the image is a part, see `Source.canvas`."""
    notes: tuple[str, ...] = ()
    """Sentences on unusual facts, for the description."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of the description: pixel size, objective, levels."""
    alpha: tuple[AlphaBand, ...] = ()
    """Bands that the files tag as alpha, and that are read as the mask."""


@dataclass(frozen=True, slots=True)
class Reader(ABC):
    """The reading of one picture of one format. Picklable; safe to use from several threads at once."""

    facts: ImageFacts
    levels: tuple[Reader, ...] = field(default=(), kw_only=True)
    """Coarser pictures of the same bands from which pixels may be computed, finest first; see `Source.levels`."""
    overviews: tuple[Reader, ...] = field(default=(), kw_only=True)
    """Coarser pictures for views alone, finest first, where there are no `levels`."""

    @abstractmethod
    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """Read a window that lies in the picture.

        Args:
            window: pixels of `facts.grid`.
            bands: indices into `facts.bands`.

        Raises:
            SourceError: the pixels cannot be read; names file and window.
        """

    @abstractmethod
    def storage_block(self, bands: Sequence[int]) -> Shape:
        """Height and width of the block that is decoded for a single pixel of these bands."""

    def damage_block(self, bands: Sequence[int]) -> Shape:
        """Height and width of the blocks that are damaged as a whole, counted from the picture's corner.

        Whether a part of such a block can be read does not depend on the window that is read.
        """
        return self.storage_block(bands)

    def salvage(self, window: Window, bands: Sequence[int]) -> Parts:
        """Read a window that `read` refuses, as far as its blocks can be decoded.

        Raises:
            SourceError: the file is out of reach, see `formats.damage`.
        """
        chosen = [self.facts.bands[i] for i in bands]
        return read_by_block(
            lambda part: values_and_masks(self.read(part, bands)),
            window,
            block=self.damage_block(bands),
            shape=self.facts.grid.shape,
            channels=len(bands),
            masks=mask_count(chosen),
            dtype=np.result_type(*(band.raw_dtype for band in chosen)),
        )

    def refuse_damaged(self, bands: Sequence[int]) -> None:
        """Refuse a picture that is stored as a single block, and damaged: nothing of it could be trusted.

        Raises:
            SourceError: names the file and the damage.
        """
        return None

    @property
    def coarser(self) -> tuple[Reader, ...]:
        """Coarser pictures, finest first, from which the user may have damaged pixels replaced."""
        return self.levels or self.overviews

    @abstractmethod
    def describe_files(self) -> list[dict[str, Any]]:
        """Storage of each file, as JSON data: path, driver, size, storage, compression, overviews, mask, nodata."""

    def rows(self, height: int, bands: Sequence[int]) -> Iterator[Planes]:
        """The whole picture in strips of `height` rows, from top to bottom; the last one may be shorter."""
        tall, wide = self.facts.grid.shape
        for y in range(0, tall, height):
            yield self.read(Window(y, 0, min(height, tall - y), wide), bands)

    def counted_notes(self, bands: Sequence[int]) -> list[str]:
        """Sentences on unusual facts of these bands that have to be counted, for the description."""
        return []

    def block_bytes(self, bands: Sequence[int]) -> int:
        """Bytes that are decoded of one band when one pixel is read."""
        height, width = np.minimum(self.storage_block(bands), self.facts.grid.shape).tolist()
        return int(height * width) * max(np.dtype(self.facts.bands[i].dtype).itemsize for i in bands)

    @property
    def streamed(self) -> bool:
        """Whether any read decodes the picture from its beginning, so that one pass costs no more than a window."""
        return False

    @property
    def unresampled(self) -> Reader:
        """The picture from which views are made: the file's own pixels of a resampled image."""
        return self

    def overview_above(self, shape: Shape) -> Reader | None:
        """The coarsest picture that is not smaller than `shape`, this one left out."""
        large = [one for one in self.levels or self.overviews if np.all(np.array(one.facts.grid.shape) >= shape)]
        return large[-1] if large else None


@dataclass(frozen=True, slots=True)
class Image:
    """An opened image, read by window; see `formats.Source`.

    Which pixels are valid: see `validity.joined`.
    """

    reader: Reader
    selected: tuple[int, ...]
    fill_damage: bool = False
    """Whether pixels that cannot be decoded are taken from a coarser level."""

    @classmethod
    def of(cls, reader: Reader) -> Image:
        """The image with all its bands selected."""
        return cls(reader, tuple(range(len(reader.facts.bands))))

    @property
    def grid(self) -> Grid:
        return self.reader.facts.grid

    @property
    def native(self) -> Grid:
        return self.reader.facts.native or self.grid

    @property
    def canvas(self) -> Shape | None:
        return self.reader.facts.canvas

    @property
    def levels(self) -> tuple[Image, ...]:
        return tuple(self._over(level) for level in self.reader.levels)

    @property
    def bands(self) -> tuple[str | None, ...]:
        return tuple(band.name for band in self.reader.facts.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        if any(band.resampled or band.scaling != UNSCALED for band in self._chosen):
            return np.dtype(np.float32)
        return np.result_type(*(band.raw_dtype for band in self._chosen))

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        return tuple(band.raw_dtype for band in self.reader.facts.bands)

    @property
    def file_dtypes(self) -> tuple[np.dtype[Any], ...]:
        return tuple(np.dtype(band.dtype) for band in self.reader.facts.bands)

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        return tuple(band.scaling for band in self.reader.facts.bands)

    @property
    def masks(self) -> tuple[int, ...]:
        in_use = sorted({band.mask for band in self._chosen})
        return tuple(in_use.index(band.mask) for band in self._chosen)

    @property
    def gaps(self) -> tuple[int | None, ...]:
        first = len(set(self.masks))
        in_use = sorted({band.gaps for band in self._chosen if band.gaps is not None})
        return tuple(None if band.gaps is None else first + in_use.index(band.gaps) for band in self._chosen)

    @property
    def nodata(self) -> tuple[float | None, ...]:
        return tuple(band.nodata for band in self.reader.facts.bands)

    @property
    def alpha(self) -> tuple[AlphaBand, ...]:
        return self.reader.facts.alpha

    @property
    def storage_block(self) -> Shape:
        height, width = self.reader.storage_block(self.selected)
        return min(self.grid.height, height), min(self.grid.width, width)

    def select(self, indices: Sequence[int]) -> Image:
        """The same image, reading these bands in this order.

        Raises:
            SourceError: no band, or one that the image does not have.
        """
        facts = self.reader.facts
        return replace(self, selected=_selection(indices, len(facts.bands), image=facts.path))

    def read(self, window: Window) -> Pixels:
        """Read any window; see `formats.Source.read`."""
        return read_reflected(window, self.grid.window, self._read_inside)

    def read_raw(self, window: Window) -> Raw:
        """Read the values of the files; see `formats.Source.read_raw`."""
        _refuse_outside(window, self.grid.window)
        return _raw(self.reader.read(window, self.selected))

    def salvage(self, window: Window) -> SalvagedPixels:
        """Read a window of a damaged image; see `formats.Source.salvage`."""
        values, masks, damage = self._salvaged(window)
        return SalvagedPixels(self._finished(planes_of(values, masks, self._chosen)), damage)

    def salvage_raw(self, window: Window) -> SalvagedRaw:
        """Read raw values of a damaged image; see `formats.Source.salvage_raw`."""
        values, masks, damage = self._salvaged(window)
        return SalvagedRaw(_raw(planes_of(values, masks, self._chosen)), damage)

    def refuse_damaged(self) -> None:
        """Refuse an image of a single, damaged block; see `formats.Source.refuse_damaged`."""
        self.reader.refuse_damaged(self.selected)

    def _salvaged(self, window: Window) -> Parts:
        _refuse_outside(window, self.grid.window)
        parts, bands = self.reader.salvage(window, self.selected), self.selected
        if not self.fill_damage:
            return parts
        levels = [
            (level.facts.grid.shape, lambda part, level=level: values_and_masks(level.read(part, bands)))
            for level in self.reader.coarser
        ]
        return from_coarser(parts, window, shape=self.grid.shape, levels=levels)

    def rows(self, height: int) -> Iterator[Raw]:
        """Strips of rows; see `formats.Source.rows`."""
        return map(_raw, self.reader.rows(height, self.selected))

    def sample(self, inside: RoiCells | None = None, unread: list[Window] | None = None) -> NDArray[np.float64]:
        """Values for statistics; see `formats.Source.sample`."""
        reader, bands = self.reader, self.selected
        rows = (lambda height: map(self._finished, reader.rows(height, bands))) if reader.streamed else None
        size = reader.block_bytes(bands) * len(bands)
        left_out = [] if unread is None else unread
        image = Readable(self.grid.shape, len(bands), self.storage_block, size, self._read_inside, rows, left_out)
        return sample_image(image, inside)

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view for people to look at; see `formats.Source.thumbnail`."""
        image = self._over(self.reader.unresampled)
        shape = thumbnail_shape(image.grid.shape, size)
        try:
            level = self._over(image.reader.overview_above(shape) or image.reader)
        except SourceError:  # a damaged overview, as above
            level = image
        empty = Pixels(np.zeros((len(self.selected), *shape), image.dtype), np.zeros(shape, np.bool_))
        return decimate(level._read_inside, level.grid.shape, shape, block=level.storage_block, empty=empty)

    def identity(self) -> dict[str, Any]:
        """State of every file, see `file_state`, by its path without signature."""
        files: dict[str, str] = {}
        for name in self.reader.facts.files:  # GDAL lists an address again, as `/vsicurl/…`
            holder = container(name)
            files.setdefault(holder if is_address(holder) else name, name)
        return {unsigned(name): file_state(name) for name in files.values()}

    def describe(self) -> dict[str, Any]:
        """Description of the image, as JSON data, for `tilesseg inspect`."""
        facts = self.reader.facts
        keys = ("name", "dtype", "scale", "offset", "file")
        return {
            **_describe_grid(facts.grid),
            **facts.properties,
            "bands": [{key: _shown(getattr(band, key)) for key in keys} for band in facts.bands],
            "files": [{**file, "path": _shown(file["path"])} for file in self.reader.describe_files()],
            "notes": [_shown(note) for note in (*facts.notes, *self.reader.counted_notes(self.selected))],
        }

    @property
    def _chosen(self) -> list[ImageBand]:
        return [self.reader.facts.bands[i] for i in self.selected]

    def _over(self, reader: Reader) -> Image:
        """The same bands of another picture."""
        return replace(self, reader=reader)

    def _read_inside(self, window: Window) -> Pixels:
        return self._finished(self.reader.read(window, self.selected))

    def _finished(self, planes: Planes) -> Pixels:
        scalings = [band.scaling for band in self._chosen]
        return finish(planes.values, planes.valid, voting(planes, self._chosen), scalings=scalings, dtype=self.dtype)


_: type[Source] = Image


def _raw(planes: Planes) -> Raw:
    return Raw(planes.values, stacked(masks_of(planes)))


def _shown(value: Any) -> Any:
    return without_secrets(value) if isinstance(value, str) else value


def _describe_grid(grid: Grid) -> dict[str, Any]:
    """Size of an image and its place in the world, as JSON data."""
    y, x = grid.resolution
    return {
        "height": grid.height,
        "width": grid.width,
        "crs": crs_name(grid.crs) if grid.crs else None,
        "transform": list(grid.transform),
        "resolution": {"y": y, "x": x, "unit": grid.unit},
    }


def _selection(indices: Sequence[int], count: int, *, image: str) -> tuple[int, ...]:
    """The requested bands, of an image that has `count`.

    Raises:
        SourceError: no band, or a band that the image does not have.
    """
    wrong = [i for i in indices if not 0 <= i < count]
    if wrong or not indices:
        requested = f"band {wrong[0]}" if wrong else "no band"
        because = f"its bands are 0 to {count - 1}"
        raise SourceError(cannot(f"read {requested} of {image}", because, "choose among them"))
    return tuple(indices)


def _refuse_outside(window: Window, inside: Window) -> None:
    """Refuse a window of raw pixels that leaves the image.

    Raises:
        ValueError: the window leaves the image.
    """
    if not inside.contains(window):
        raise ValueError(f"{window} leaves the image of {inside.height} × {inside.width}")
