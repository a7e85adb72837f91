"""One or several raster files as one image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats import Pixels, Source, read_reflected
from tilesseg.formats.geotiff import raster_sample
from tilesseg.formats.geotiff.description import describe_file, describe_grid, source_notes
from tilesseg.formats.geotiff.raster_stack import Layer
from tilesseg.formats.geotiff.thumbnail import decimate, thumbnail_shape
from tilesseg.grid import Grid
from tilesseg.resample import resample, source_window
from tilesseg.window import Window


@dataclass(frozen=True, slots=True)
class Band:
    """One band of the image: where it lies and what makes its values physical."""

    name: str | None
    layer: int
    index: int
    """In its file, alpha not counted, from 0."""
    scale: float
    offset: float

    @property
    def scaled(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class GeoTiffSource:
    """One or several raster files as one image; see `formats.Source`.

    Valid are the pixels that the dataset masks of all files in use call valid and that are finite in every
    selected band. A file's own mask counts all its bands: with a nodata value, a pixel is nodata where every
    band has it.
    """

    layers: tuple[Layer, ...]
    grid: Grid
    all_bands: tuple[Band, ...]
    selected: tuple[int, ...]

    @property
    def bands(self) -> tuple[str | None, ...]:
        return tuple(band.name for band in self.all_bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        chosen = [self.all_bands[i] for i in self.selected]
        if any(band.scaled or not self.layers[band.layer].native for band in chosen):
            return np.dtype(np.float32)
        return np.result_type(*(self.layers[band.layer].file.facts.dtypes[band.index] for band in chosen))

    def select(self, indices: Sequence[int]) -> GeoTiffSource:
        """The same image, reading these bands in this order.

        Raises:
            SourceError: no band, or one that the image does not have.
        """
        wrong = [i for i in indices if not 0 <= i < len(self.all_bands)]
        if wrong or not indices:
            asked = f"band {wrong[0]}" if wrong else "no band"
            raise SourceError(f"{self._path}: {asked} asked for, the image has 0 to {len(self.all_bands) - 1}")
        return replace(self, selected=tuple(indices))

    def read(self, window: Window) -> Pixels:
        """Read any window; see `formats.Source.read`."""
        return read_reflected(window, self.grid.window, self._read_inside)

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
        heights, widths = zip(*(layer.file.facts.cell for layer in self.layers), strict=True)
        cell = max(heights), max(widths)
        if level is None:
            return decimate(self._read_inside, self.grid.shape, shape, cell=cell, empty=self._empty(shape))
        read = partial(self._on_file()._read_inside, level=level.number)
        return decimate(read, level.shape, shape, cell=cell, empty=self._empty(shape))

    def identity(self) -> dict[str, Any]:
        """`[size, mtime in ns]` of every file, None where it cannot be had (missing, or remote)."""
        files = dict.fromkeys(name for layer in self.layers for name in layer.file.facts.files)
        return {name: _stat(name) for name in files}

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

    def _overview_above(self, shape: tuple[int, int]) -> raster_sample.Level | None:
        if len(self.layers) > 1:
            return None
        try:
            return raster_sample.overview_above(self.layers[0].file, shape)
        except SourceError:  # a damaged overview costs nothing: full resolution is there
            return None

    def _on_file(self) -> GeoTiffSource:
        """The file's own pixels, not resampled: what its overviews are made of."""
        return replace(self, layers=(replace(self.layers[0], scale=(1.0, 1.0), offset=(0.0, 0.0)),))

    def _empty(self, shape: tuple[int, int]) -> Pixels:
        return Pixels(np.zeros((len(self.selected), *shape), self.dtype), np.zeros(shape, np.bool_))

    def _read_inside(self, window: Window, level: int | None = None) -> Pixels:
        dtype = self.dtype
        values: NDArray[Any] | None = None
        valid: NDArray[np.bool_] | None = None
        for number, layer in enumerate(self.layers):
            channels = [k for k, i in enumerate(self.selected) if self.all_bands[i].layer == number]
            if not channels:
                continue
            bands = [self.all_bands[self.selected[k]] for k in channels]
            raw, layer_valid = _read_layer(layer, bands, window, level)
            valid = layer_valid if valid is None else valid & layer_valid
            if len(channels) == len(self.selected) and not any(band.scaled for band in bands):
                values = raw  # the usual case: one file as it is, without a copy
                break
            values = np.empty((len(self.selected), *window.shape), dtype) if values is None else values
            for k, band, channel in zip(channels, bands, raw, strict=True):
                values[k] = _physical(channel, band)
        assert values is not None and valid is not None  # there is always a selected band
        if dtype.kind == "f":
            for channel in values:
                valid = valid & np.isfinite(channel)
        return Pixels(values, valid)

    def _sample_overview(self) -> NDArray[np.float64] | None:
        if len(self.layers) > 1:
            return None
        level = raster_sample.overview_within(self.layers[0].file, len(self.selected))
        if level is None:
            return None
        values, valid = self._on_file()._read_inside(Window(0, 0, *level.shape), level.number)
        return values[:, valid].astype(np.float64)

    def _sample_windows(self) -> NDArray[np.float64]:
        files = [layer.file for layer in self.layers]
        parts, failure = [], None
        for window in raster_sample.windows(files, self.grid.shape, len(self.selected)):
            try:
                values, valid = self._read_inside(window)
            except SourceError as error:
                failure = error
                continue
            parts.append(values[:, valid].astype(np.float64))
        if not parts:
            raise SourceError(f"nothing of the image could be read; the last attempt: {failure}") from failure
        return np.concatenate(parts, axis=1)


_: type[Source] = GeoTiffSource


def _read_layer(
    layer: Layer, bands: Sequence[Band], window: Window, level: int | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    file, indices = layer.file, [band.index for band in bands]
    dtype = np.result_type(*(file.facts.dtypes[index] for index in indices))
    if layer.native:
        return file.read(indices, window, dtype=dtype, level=level)
    shape = file.facts.grid.shape
    source = source_window(window, layer.scale, shape, offset=layer.offset)
    values, valid = file.read(indices, source, dtype=dtype)
    if dtype.kind == "f":
        valid = valid & np.isfinite(values).all(axis=0)
    return resample(values, valid, window, scale=layer.scale, source=source, shape=shape, offset=layer.offset)


def _physical(channel: NDArray[Any], band: Band) -> NDArray[Any]:
    if not band.scaled:
        return channel
    exact = channel.astype(np.float64)
    with np.errstate(all="ignore"):  # what is no longer finite is invalid
        exact *= band.scale
        exact += band.offset
        return exact.astype(np.float32)


def _stat(name: str) -> list[int] | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
