"""Zarr arrays as one image: one array of several bands, or several arrays of one band each; a staged copy, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.reading.georeference import describe_grid
from tilesseg.formats.reading.resample import Pair, resample, source_window
from tilesseg.formats.reading.source_checks import file_state, refuse_outside, selection
from tilesseg.formats.reading.statistics_sample import PIXELS, VALUES, sample_windows, sampled_windows
from tilesseg.formats.reading.thumbnail import decimate, thumbnail_shape
from tilesseg.formats.reading.validity import UNSCALED, Scaling, finish, stacked
from tilesseg.formats.source import Pixels, Raw, Source
from tilesseg.formats.zarr.zarr_array import ZarrArray
from tilesseg.formats.zarr.zarr_band import ZarrBand, describe_array, describe_band
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class ZarrLayer:
    """An array, and its value that means nodata."""

    array: ZarrArray
    nodata: float | None = None
    absent: bool = False
    """Whether pixels in chunks that are not stored are nodata, and not the array's fill value; then the bands that
    lie in it share their chunks."""


@dataclass(frozen=True, slots=True)
class ZarrSource:
    """Zarr arrays as one image; see `formats.Source`.

    An array has one mask, as a raster file has: a pixel is nodata where every band of the array has the nodata
    value. A staged copy holds its masks instead, and nothing that has not been copied can be read from it.
    """

    path: str
    grid: Grid
    all_bands: tuple[ZarrBand, ...]
    selected: tuple[int, ...]
    layers: tuple[ZarrLayer, ...]
    files: tuple[str, ...]
    """Everything that says what the arrays are."""
    valid: ZarrArray | None = None
    """`(mask, y, x)`, of a staged copy."""
    coarser: tuple[tuple[ZarrLayer, ...], ...] = ()
    """The same layers, coarser; for statistics and for views."""
    levels: tuple[ZarrSource, ...] = ()
    """See `formats.Source.levels`; where there are any, they serve for statistics and views, too."""
    finest: Grid | None = None
    """The image's own finest grid, where that is not read."""
    notes: tuple[str, ...] = ()
    step: Pair = (1.0, 1.0)
    """Size of one of the image's pixels in the arrays' pixels."""
    holes: tuple[tuple[Window, str], ...] = ()
    """Windows of a staged copy that could not be copied, and why."""

    @property
    def native(self) -> Grid:
        return self.finest or self.grid

    @property
    def bands(self) -> tuple[str | None, ...]:
        return tuple(band.name for band in self.all_bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        if not self._native or any(band.resampled or band.scaling != UNSCALED for band in self._chosen):
            return np.dtype(np.float32)
        return np.result_type(*(band.dtype for band in self._chosen))

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        return tuple(np.dtype(band.dtype if self._native else np.float32) for band in self.all_bands)

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        return tuple(band.scaling for band in self.all_bands)

    @property
    def masks(self) -> tuple[int, ...]:
        in_use = self._masks_in_use
        return tuple(in_use.index(band.mask) for band in self._chosen)

    @property
    def storage_block(self) -> tuple[int, int]:
        """The chunk, of several arrays the largest; in the image's pixels."""
        heights, widths = zip(*(self.layers[number].array.chunk for number in self._layers_in_use), strict=True)
        height, width = np.ceil(np.array([max(heights), max(widths)]) / self.step).astype(int)
        return min(self.grid.height, int(height)), min(self.grid.width, int(width))

    def select(self, indices: Sequence[int]) -> ZarrSource:
        """The same image, reading these bands in this order.

        Raises:
            SourceError: no band, or one that the image does not have.
        """
        selected = selection(indices, len(self.all_bands), image=self.path)
        return replace(self, selected=selected, levels=tuple(level.select(selected) for level in self.levels))

    def with_holes(self, holes: Sequence[tuple[Window, str]]) -> ZarrSource:
        """The same image, of which these windows cannot be read, for these reasons."""
        return replace(self, holes=tuple(holes))

    def read(self, window: Window) -> Pixels:
        """Read any window; see `formats.Source.read`."""
        return read_reflected(window, self.grid.window, self._read_inside)

    def read_raw(self, window: Window) -> Raw:
        """What the arrays hold; see `formats.Source.read_raw`."""
        refuse_outside(window, self.grid.window)
        values, planes = self._planes(window)
        return Raw(values, stacked(planes))

    def rows(self, height: int) -> Iterator[Raw]:
        """Bands of rows; see `formats.Source.rows`."""
        for y in range(0, self.grid.height, height):
            yield self.read_raw(Window(y, 0, min(height, self.grid.height - y), self.grid.width))

    def sample(self) -> NDArray[np.float64]:
        """Values for statistics; see `formats.Source.sample`."""
        most = min(PIXELS, VALUES // len(self.selected))
        for level in self._coarser():  # the finest that is small enough
            if most // 64 <= level.grid.window.area <= most:
                return sample_windows([level.grid.window], level._read_inside)
        itemsize = max(np.dtype(band.dtype).itemsize for band in self._chosen)
        block_bytes = self.storage_block[0] * self.storage_block[1] * itemsize
        windows = sampled_windows(self.grid.shape, len(self.selected), block_bytes=block_bytes)
        return sample_windows(windows, self._read_inside)

    def thumbnail(self, size: int) -> Pixels:
        """A decimated view for people to look at; see `formats.Source.thumbnail`."""
        shape = thumbnail_shape(self.grid.shape, size)
        enough = [level for level in self._coarser() if np.all(np.array(level.grid.shape) >= shape)]
        seen = enough[-1] if enough else self
        empty = Pixels(np.zeros((len(self.selected), *shape), seen.dtype), np.zeros(shape, np.bool_))
        return decimate(seen._read_inside, seen.grid.shape, shape, block=seen.storage_block, empty=empty)

    def identity(self) -> dict[str, Any]:
        """`[size, mtime in ns]` of the metadata of every array and group in use."""
        return {name: file_state(name) for name in self.files}

    def describe(self) -> dict[str, Any]:
        """What `tilesseg inspect` prints."""
        # layers may be parts of one array
        arrays = {layer.array.path: (number, layer) for number, layer in reversed([*enumerate(self.layers)])}
        return {
            **describe_grid(self.grid),
            "bands": [describe_band(band, self.layers[band.layer].array.path) for band in self.all_bands],
            "files": [
                {
                    **describe_array(layer.array, layer.nodata, self._coarser_arrays(number), mask=self._told(layer)),
                    "resampled": None if self._native else {"scale": list(self.step), "offset": [0.0, 0.0]},
                }
                for number, layer in reversed(arrays.values())
            ],
            "notes": list(self.notes),
        }

    def _told(self, layer: ZarrLayer) -> str:
        """What says which pixels are valid."""
        if self.valid is not None:
            return "masks copied with the pixels"
        told = [
            *(["nodata value"] if layer.nodata is not None else []),
            *(["chunks that are not stored"] if layer.absent else []),
        ]
        return " and ".join(told) or "all pixels valid"

    def _coarser_arrays(self, number: int) -> list[ZarrArray]:
        if self.levels:
            return [level.layers[0].array for level in self.levels]
        return [level[number].array for level in self.coarser]

    @property
    def _native(self) -> bool:
        return self.step == (1.0, 1.0)

    @property
    def _chosen(self) -> list[ZarrBand]:
        return [self.all_bands[i] for i in self.selected]

    @property
    def _layers_in_use(self) -> list[int]:
        return sorted({band.layer for band in self._chosen})

    @property
    def _masks_in_use(self) -> list[int]:
        return sorted({band.mask for band in self._chosen})

    def _coarser(self) -> list[ZarrSource]:
        """The levels as images of their own, finest first."""
        if self.levels:
            return list(self.levels)
        return [
            replace(self, layers=level, grid=Grid(*level[0].array.shape), coarser=(), step=(1.0, 1.0))
            for level in self.coarser
        ]

    def _read_inside(self, window: Window) -> Pixels:
        values, planes = self._planes(window)
        return finish(values, planes, scalings=[band.scaling for band in self._chosen], dtype=self.dtype)

    def _planes(self, window: Window) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
        """Raw values `(channel, y, x)`, and the masks `(y, x)` in use."""
        if self._native:
            return self._stored(window)
        shape = self.layers[0].array.shape
        source = source_window(window, self.step, shape)
        seen, masks = self._stored(source)
        values, planes = np.empty((len(self.selected), *window.shape), np.float32), []
        for number, valid in enumerate(masks):
            channels = [k for k, mask in enumerate(self.masks) if mask == number]
            if seen.dtype.kind == "f":
                valid = valid & np.isfinite(seen[channels]).all(axis=0)
            values[channels], plane = resample(
                seen[channels], valid, window, scale=self.step, source=source, shape=shape
            )
            planes.append(plane)
        return values, planes

    def _stored(self, window: Window) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
        self._refuse_holes(window)
        parts = [self._read_layer(number, window) for number in self._layers_in_use]
        dtype = np.result_type(*(band.dtype for band in self._chosen))
        if len(parts) == 1:
            values = parts[0][0].astype(dtype, copy=False)
        else:
            values = np.empty((len(self.selected), *window.shape), dtype)
            for number, (layer_values, _) in zip(self._layers_in_use, parts, strict=True):
                values[[k for k, band in enumerate(self._chosen) if band.layer == number]] = layer_values
        if self.valid is None:
            return values, [valid for _, valid in parts]
        return values, [self._staged_mask(self.valid, mask, window) for mask in self._masks_in_use]

    def _refuse_holes(self, window: Window) -> None:
        for hole, why in self.holes:
            if hole.touches(window):
                raise SourceError(why)
        if self.valid is not None:
            for layer in self.layers:
                if not all(all(layer.array.stored(band.index, window)) for band in self._chosen):
                    raise SourceError(f"{layer.array.where(window)}: not copied yet; stage the image again")

    def _staged_mask(self, valid: ZarrArray, mask: int, window: Window) -> NDArray[np.bool_]:
        if not any(valid.stored(mask, window)):  # nothing is masked here: takes no memory
            return np.broadcast_to(np.True_, window.shape)
        return np.asarray(valid.read([mask], window)[0], np.bool_)

    def _read_layer(self, number: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        layer, indices = self.layers[number], [band.index for band in self._chosen if band.layer == number]
        values = layer.array.read(indices, window)
        stored = layer.array.present(indices[0], window) if layer.absent else np.broadcast_to(np.True_, window.shape)
        if layer.nodata is None:
            return values, stored
        valid = np.zeros(window.shape, np.bool_)
        for channel in values:
            valid |= _differs(channel, layer.nodata)
        for index in sorted(set(range(layer.array.channels)) - set(indices)):
            if valid.all():  # a pixel is valid where any band is: the others cannot change that
                break
            valid |= _differs(layer.array.read([index], window)[0], layer.nodata)
        return values, valid & stored


_: type[Source] = ZarrSource


def _differs(channel: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    if np.isnan(nodata):
        return np.asarray(~np.isnan(channel))
    if channel.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(channel != channel.dtype.type(nodata))
    return np.asarray(channel != nodata)  # also one that the type cannot hold
