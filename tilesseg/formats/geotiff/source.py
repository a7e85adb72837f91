"""One or several raster files as one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.damage import Damage, Parts, mark_valid, read_by_block, seen_through
from tilesseg.formats.geotiff.band_stack import RasterLayer
from tilesseg.formats.geotiff.geotiff_description import describe_file
from tilesseg.formats.geotiff.raster_properties import decoded_block
from tilesseg.formats.geotiff.single_block import refuse_damaged_file
from tilesseg.formats.geotiff.strip_stream import Strip, find_strip, strip_rows
from tilesseg.formats.reading.image import Planes, Reader, Shape
from tilesseg.formats.reading.resample import resample, source_window
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

Masked = tuple[NDArray[Any], NDArray[np.bool_]]
"""Values `(channel, y, x)` and their mask `(y, x)`."""


@dataclass(frozen=True, slots=True)
class GeoTiffReader(Reader):
    """Reads one or several raster files as one image; see `reading.image.Reader`.

    The mask of a file counts all its bands: with a nodata value, a pixel is nodata where every band has it.
    """

    layers: tuple[RasterLayer, ...]
    level: int | None = None
    """Number of the overview that is read, None for full resolution."""

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        return self._joined(bands, [self._read_layer(layer, bands, window) for layer in self._in_use(bands)])

    def salvage(self, window: Window, bands: Sequence[int]) -> Parts:
        """See `Reader.salvage`: each file by its own blocks."""
        found: dict[Damage, None] = {}
        parts = [self._salvage_layer(number, bands, window, found) for number in self._in_use(bands)]
        values, valid = self._joined(bands, parts)
        return Parts(values, valid, tuple(found))

    def rows(self, height: int, bands: Sequence[int]) -> Iterator[Planes]:
        """See `Reader.rows`: a file of one strip is decoded once, piece by piece, where that can be done."""
        streams = [self._layer_rows(layer, bands, height) for layer in self._in_use(bands)]
        return (self._joined(bands, parts) for parts in zip(*streams, strict=True))

    def storage_block(self, bands: Sequence[int]) -> Shape:
        """See `Reader.storage_block`: the largest of all files in use, a coarser file's in the image's pixels."""
        blocks = []
        for layer in (self.layers[number] for number in self._in_use(bands)):
            (height, width), (y, x) = decoded_block(layer.file), layer.scale
            blocks.append((ceil(height / y), ceil(width / x)))
        heights, widths = zip(*blocks, strict=True)
        return max(heights), max(widths)

    def describe_files(self) -> list[dict[str, Any]]:
        return [describe_file(layer) for layer in self.layers]

    def block_bytes(self, bands: Sequence[int]) -> int:
        """See `Reader.block_bytes`: the most of any file, as GDAL stores it."""
        facts = [layer.file.facts for layer in self.layers]
        return max(prod(one.storage_block) * np.dtype(one.dtypes[0]).itemsize for one in facts)

    @property
    def streamed(self) -> bool:
        """Whether the image is one compressed strip that can be decoded piece by piece."""
        return len(self.layers) == 1 and _strip(self.layers[0]) is not None

    def overview_above(self, shape: Shape) -> Reader | None:
        shapes = [self.layers[0].file.level_shape(number) for number in range(len(self._overviews))]
        large = [k for k, (height, width) in enumerate(shapes) if height >= shape[0] and width >= shape[1]]
        return self._overview(large[-1] if large else None)

    @property
    def coarser(self) -> tuple[Reader, ...]:
        """See `Reader.coarser`: the file's overviews, where it is read as it is."""
        if not all(layer.native for layer in self.layers) or self.level is not None:
            return ()
        return tuple(one for k in range(len(self._overviews)) if (one := self._overview(k)) is not None)

    def refuse_damaged(self, bands: Sequence[int]) -> None:
        """See `Reader.refuse_damaged`."""
        for number in self._in_use(bands):
            refuse_damaged_file(self.layers[number].file, self._indices(number, bands))

    @property
    def _overviews(self) -> tuple[int, ...]:
        """Decimation of each overview, which may be anything, nearest pixels too: never computed with."""
        return self.layers[0].file.facts.overviews if len(self.layers) == 1 else ()

    def _overview(self, number: int | None) -> Reader | None:
        """The file's own pixels, not resampled, at an overview."""
        if number is None:
            return None
        layer = replace(self.layers[0], scale=(1.0, 1.0), offset=(0.0, 0.0))
        bands = tuple(replace(band, resampled=False) for band in self.facts.bands)
        facts = replace(self.facts, grid=Grid(*layer.file.level_shape(number)), bands=bands)
        return replace(self, facts=facts, layers=(layer,), level=number)

    def _in_use(self, bands: Sequence[int]) -> list[int]:
        """Numbers of the files that these bands come from."""
        return sorted({self.facts.bands[i].layer for i in bands})

    def _indices(self, number: int, bands: Sequence[int]) -> list[int]:
        """Indices in a file, for each of these bands that comes from the file."""
        return [self.facts.bands[i].index for i in bands if self.facts.bands[i].layer == number]

    def _joined(self, bands: Sequence[int], parts: Sequence[Masked]) -> Planes:
        """The pixels of the files in use as one array, in the order of the bands."""
        if len(parts) == 1:
            return Planes(parts[0][0], [parts[0][1]])  # the usual case: one file, without a copy
        chosen = [self.facts.bands[i] for i in bands]
        dtype = np.result_type(*(band.raw_dtype for band in chosen))
        values = np.empty((len(bands), *parts[0][0].shape[1:]), dtype)
        for number, (layer_values, _) in zip(self._in_use(bands), parts, strict=True):
            channels = [k for k, band in enumerate(chosen) if band.layer == number]
            for k, channel in zip(channels, layer_values, strict=True):
                values[k] = channel
        return Planes(values, [valid for _, valid in parts])

    def _salvage_layer(self, number: int, bands: Sequence[int], window: Window, found: dict[Damage, None]) -> Masked:
        """Pixels of a damaged file; its damage, in the image's pixels, is added to `found`."""
        layer, indices = self.layers[number], self._indices(number, bands)
        file = layer.file
        dtype = np.result_type(*(file.facts.dtypes[index] for index in indices))
        shape = file.facts.grid.shape if self.level is None else file.level_shape(self.level)
        damage: list[Damage] = []

        def read(part: Window) -> Masked:
            def whole(block: Window) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
                values, valid = file.read(indices, block, dtype=dtype, level=self.level)
                return values, [valid]

            block = file.unit_block(self.level)
            parts = read_by_block(whole, part, block=block, shape=shape, channels=len(indices), masks=1, dtype=dtype)
            damage.extend(parts.damage)
            return parts.values, parts.valid[0]

        masked = self._read_layer(number, bands, window, read=read)
        seen: Sequence[Damage] = damage
        if not layer.native:
            seen = seen_through(
                damage,
                shape=self.facts.grid.shape,
                source_of=lambda pixel: source_window(
                    pixel, layer.scale, shape, offset=layer.offset, method=layer.method
                ),
            )
            mark_valid([masked[1]], window, seen)
        found.update(dict.fromkeys(seen))
        return masked

    def _read_layer(
        self,
        number: int,
        bands: Sequence[int],
        window: Window,
        *,
        read: Callable[[Window], Masked] | None = None,
    ) -> Masked:
        """Pixels of a file, by `read` where its own reading is replaced."""
        layer, indices = self.layers[number], self._indices(number, bands)
        file = layer.file
        dtype = np.result_type(*(file.facts.dtypes[index] for index in indices))
        read = read or (lambda part: file.read(indices, part, dtype=dtype, level=self.level))
        if layer.native:
            return read(window)
        shape = file.facts.grid.shape
        source = source_window(window, layer.scale, shape, offset=layer.offset, method=layer.method)
        values, valid = read(source)
        if dtype.kind == "f":
            valid = valid & np.isfinite(values).all(axis=0)
        return resample(
            values, valid, window,
            scale=layer.scale, source=source, shape=shape, offset=layer.offset, method=layer.method,
        )  # fmt: skip

    def _layer_rows(self, number: int, bands: Sequence[int], height: int) -> Iterator[Masked]:
        layer, grid = self.layers[number], self.facts.grid
        strip = _strip(layer)
        if strip is not None:
            yield from strip_rows(layer.file, strip, self._indices(number, bands), height)
            return
        for y in range(0, grid.height, height):
            yield self._read_layer(number, bands, Window(y, 0, min(height, grid.height - y), grid.width))


def _strip(layer: RasterLayer) -> Strip | None:
    """The strip of a file that is one strip, is read as it is, and can be decoded piece by piece."""
    return find_strip(layer.file) if layer.native and layer.file.facts.one_strip else None
