"""One or several raster files as one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff import overviews
from tilesseg.formats.geotiff.band_stack import RasterLayer
from tilesseg.formats.geotiff.geotiff_description import describe_file, source_notes
from tilesseg.formats.geotiff.raster_properties import decoded_block
from tilesseg.formats.geotiff.strip_stream import find_strip, strip_rows
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.reading.georeference import describe_grid
from tilesseg.formats.reading.resample import resample, source_window
from tilesseg.formats.reading.source_checks import file_state, refuse_outside, selection
from tilesseg.formats.reading.statistics_sample import SIDE, sample_rows, sample_windows, sampled_windows
from tilesseg.formats.reading.thumbnail import decimate, thumbnail_shape
from tilesseg.formats.reading.validity import UNSCALED, Scaling, finish, stacked
from tilesseg.formats.source import Pixels, Raw, Source
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One band of the image: where it lies and what makes its values physical."""

    name: str | None
    layer: int
    index: int
    """In its file, alpha not counted, from 0."""
    scale: float
    offset: float

    @property
    def scaling(self) -> Scaling:
        return self.scale, self.offset


@dataclass(frozen=True, slots=True)
class GeoTiffSource:
    """One or several raster files as one image; see `formats.Source`.

    Valid are the pixels that the dataset masks of all files in use call valid and that are finite in every
    selected band. A file's own mask counts all its bands: with a nodata value, a pixel is nodata where every
    band has it.
    """

    layers: tuple[RasterLayer, ...]
    grid: Grid
    all_bands: tuple[RasterBand, ...]
    selected: tuple[int, ...]
    levels: tuple[Source, ...] = ()  # overviews may be anything, nearest pixels too

    @property
    def native(self) -> Grid:
        return self.grid

    @property
    def bands(self) -> tuple[str | None, ...]:
        return tuple(band.name for band in self.all_bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        chosen = [self.all_bands[i] for i in self.selected]
        if any(band.scaling != UNSCALED or not self.layers[band.layer].native for band in chosen):
            return np.dtype(np.float32)
        return np.result_type(*self._raw_types(self.selected))

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        return tuple(self._raw_types(range(len(self.all_bands))))

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        return tuple(band.scaling for band in self.all_bands)

    @property
    def masks(self) -> tuple[int, ...]:
        """A plane for each of the files in use, in their order."""
        in_use = self._in_use
        return tuple(in_use.index(self.all_bands[i].layer) for i in self.selected)

    @property
    def storage_block(self) -> tuple[int, int]:
        """Of all files in use the largest; a coarser file's in the image's pixels."""
        blocks = []
        for layer in (self.layers[number] for number in self._in_use):
            (height, width), (y, x) = decoded_block(layer.file), layer.scale
            blocks.append((min(self.grid.height, ceil(height / y)), min(self.grid.width, ceil(width / x))))
        heights, widths = zip(*blocks, strict=True)
        return max(heights), max(widths)

    def select(self, indices: Sequence[int]) -> GeoTiffSource:
        """The same image, reading these bands in this order.

        Raises:
            SourceError: no band, or one that the image does not have.
        """
        return replace(self, selected=selection(indices, len(self.all_bands), image=self._path))

    def read(self, window: Window) -> Pixels:
        """Read any window; see `formats.Source.read`."""
        return read_reflected(window, self.grid.window, self._read_inside)

    def read_raw(self, window: Window) -> Raw:
        """What the files hold; see `formats.Source.read_raw`."""
        refuse_outside(window, self.grid.window)
        values, planes = self._planes(window)
        return Raw(values, stacked(planes))

    def rows(self, height: int) -> Iterator[Raw]:
        """Bands of rows; see `formats.Source.rows`. One-strip files are undone piece by piece where they can be."""
        for values, planes in self._row_planes(height):
            yield Raw(values, stacked(planes))

    def sample(self) -> NDArray[np.float64]:
        """Values for statistics; see `formats.Source.sample`."""
        try:
            sampled = self._sample_overview()
        except SourceError:  # a damaged overview costs nothing: full resolution is there
            sampled = None
        return self._sample_windows() if sampled is None else sampled

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view for people to look at; see `formats.Source.thumbnail`."""
        shape = thumbnail_shape(self.grid.shape, size)
        level = self._overview_above(shape)
        heights, widths = zip(*(layer.file.facts.storage_block for layer in self.layers), strict=True)
        block = max(heights), max(widths)
        if level is None:
            return decimate(self._read_inside, self.grid.shape, shape, block=block, empty=self._empty(shape))
        read = partial(self._on_file()._read_inside, level=level.number)
        return decimate(read, level.shape, shape, block=block, empty=self._empty(shape))

    def identity(self) -> dict[str, Any]:
        """`[size, mtime in ns]` of every file, None where it cannot be had (missing, or remote)."""
        files = dict.fromkeys(name for layer in self.layers for name in layer.file.facts.files)
        return {name: file_state(name) for name in files}

    def describe(self) -> dict[str, Any]:
        """What `tilesseg inspect` prints."""
        bands = [
            {
                "name": band.name,
                "dtype": self.layers[band.layer].file.facts.dtypes[band.index],
                "scale": band.scale,
                "offset": band.offset,
                "file": self.layers[band.layer].file.path,
            }
            for band in self.all_bands
        ]
        return {
            **describe_grid(self.grid),
            "bands": bands,
            "files": [describe_file(layer) for layer in self.layers],
            "notes": source_notes(self.layers),
        }

    @property
    def _path(self) -> str:
        return self.layers[0].file.path

    def _overview_above(self, shape: tuple[int, int]) -> overviews.OverviewLevel | None:
        if len(self.layers) > 1:
            return None
        try:
            return overviews.overview_above(self.layers[0].file, shape)
        except SourceError:  # a damaged overview costs nothing: full resolution is there
            return None

    def _on_file(self) -> GeoTiffSource:
        """The file's own pixels, not resampled: what its overviews are made of."""
        return replace(self, layers=(replace(self.layers[0], scale=(1.0, 1.0), offset=(0.0, 0.0)),))

    def _empty(self, shape: tuple[int, int]) -> Pixels:
        return Pixels(np.zeros((len(self.selected), *shape), self.dtype), np.zeros(shape, np.bool_))

    @property
    def _in_use(self) -> list[int]:
        """Numbers of the layers that the selected bands come from."""
        return sorted({self.all_bands[i].layer for i in self.selected})

    def _of_layer(self, number: int) -> list[RasterBand]:
        """Its selected bands."""
        return [self.all_bands[i] for i in self.selected if self.all_bands[i].layer == number]

    def _raw_types(self, indices: Sequence[int]) -> list[np.dtype[Any]]:
        return [_raw_type(self.layers[band.layer], band) for band in (self.all_bands[i] for i in indices)]

    def _read_inside(self, window: Window, level: int | None = None) -> Pixels:
        return self._finished(*self._planes(window, level))

    def _finished(self, values: NDArray[Any], planes: list[NDArray[np.bool_]]) -> Pixels:
        scalings = [self.all_bands[i].scaling for i in self.selected]
        return finish(values, planes, scalings=scalings, dtype=self.dtype)

    def _row_planes(self, height: int) -> Iterator[tuple[NDArray[Any], list[NDArray[np.bool_]]]]:
        """As `_planes`, for one band of rows after the other."""
        streams = [_layer_rows(self.layers[n], self._of_layer(n), self.grid, height) for n in self._in_use]
        return (self._joined(parts) for parts in zip(*streams, strict=True))

    def _planes(self, window: Window, level: int | None = None) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
        """Raw values `(channel, y, x)`, and the masks `(y, x)` of the layers in use."""
        return self._joined([_read_layer(self.layers[n], self._of_layer(n), window, level) for n in self._in_use])

    def _joined(
        self, parts: Sequence[tuple[NDArray[Any], NDArray[np.bool_]]]
    ) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
        """What the layers in use gave, as one array in the order of the selected bands."""
        if len(parts) == 1:
            return parts[0][0], [parts[0][1]]  # the usual case: one file, without a copy
        shape = parts[0][0].shape[1:]
        values = np.empty((len(self.selected), *shape), np.result_type(*self._raw_types(self.selected)))
        for number, (layer_values, _) in zip(self._in_use, parts, strict=True):
            channels = [k for k, i in enumerate(self.selected) if self.all_bands[i].layer == number]
            for k, channel in zip(channels, layer_values, strict=True):
                values[k] = channel
        return values, [valid for _, valid in parts]

    def _sample_overview(self) -> NDArray[np.float64] | None:
        if len(self.layers) > 1:
            return None
        level = overviews.overview_within(self.layers[0].file, len(self.selected))
        if level is None:
            return None
        values, valid = self._on_file()._read_inside(Window(0, 0, *level.shape), level.number)
        return values[:, valid].astype(np.float64)

    def _sample_windows(self) -> NDArray[np.float64]:
        if _streams(self.layers):
            windows = sampled_windows(self.grid.shape, len(self.selected), block_bytes=1)
            return sample_rows(windows, (self._finished(*part) for part in self._row_planes(SIDE)))
        files = [layer.file for layer in self.layers]
        return sample_windows(overviews.windows(files, self.grid.shape, len(self.selected)), self._read_inside)


_: type[Source] = GeoTiffSource


def _streams(layers: Sequence[RasterLayer]) -> bool:
    """Whether the image is one compressed strip that can be undone piece by piece."""
    if len(layers) > 1 or not layers[0].native or not layers[0].file.facts.one_strip:
        return False
    return find_strip(layers[0].file) is not None


def _raw_type(layer: RasterLayer, band: RasterBand) -> np.dtype[Any]:
    return np.dtype(layer.file.facts.dtypes[band.index] if layer.native else np.float32)


def _read_layer(
    layer: RasterLayer, bands: Sequence[RasterBand], window: Window, level: int | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    file, indices = layer.file, [band.index for band in bands]
    dtype = np.result_type(*(file.facts.dtypes[index] for index in indices))
    if layer.native:
        return file.read(indices, window, dtype=dtype, level=level)
    shape = file.facts.grid.shape
    source = source_window(window, layer.scale, shape, offset=layer.offset, method=layer.method)
    values, valid = file.read(indices, source, dtype=dtype)
    if dtype.kind == "f":
        valid = valid & np.isfinite(values).all(axis=0)
    return resample(
        values, valid, window,
        scale=layer.scale, source=source, shape=shape, offset=layer.offset, method=layer.method,
    )  # fmt: skip


def _layer_rows(
    layer: RasterLayer, bands: Sequence[RasterBand], grid: Grid, height: int
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    strip = find_strip(layer.file) if layer.native and layer.file.facts.one_strip else None
    if strip is not None:
        yield from strip_rows(layer.file, strip, [band.index for band in bands], height)
        return
    for y in range(0, grid.height, height):
        yield _read_layer(layer, bands, Window(y, 0, min(height, grid.height - y), grid.width))
