"""One or several raster files as one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.damage import Damage, Parts, mark_valid, read_by_block, seen_through
from tilesseg.formats.geotiff.band_stack import RasterLayer
from tilesseg.formats.geotiff.geotiff_description import describe_file
from tilesseg.formats.geotiff.raster_file import FilePlanes
from tilesseg.formats.geotiff.raster_properties import decoded_block
from tilesseg.formats.geotiff.single_block import refuse_damaged_file
from tilesseg.formats.geotiff.strip_stream import Strip, find_strip, strip_rows
from tilesseg.formats.reading.band_planes import Planes, finite_only, masks_of
from tilesseg.formats.reading.image import Reader, Shape
from tilesseg.formats.reading.resample import resample, source_window, under_centres
from tilesseg.formats.reading.validity import joined
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

ReadFile = Callable[[int, Window], FilePlanes]
"""Function that reads a window of a file, by the file's number."""


@dataclass(frozen=True, slots=True)
class GeoTiffReader(Reader):
    """Reads one or several raster files as one image; see `reading.image.Reader`.

    Bands of one file and bands of several files on one grid give the same pixels and the same masks.
    """

    layers: tuple[RasterLayer, ...]
    level: int | None = None
    """Number of the overview that is read, None for full resolution."""

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        return self._joined(bands, self._read_layers(self._in_use(bands), bands, window))

    def salvage(self, window: Window, bands: Sequence[int]) -> Parts:
        """See `Reader.salvage`: each file by its own blocks."""
        damage: dict[int, list[Damage]] = {number: [] for number in self._in_use(bands)}

        def read(number: int, part: Window) -> FilePlanes:
            planes, found = self._salvage_file(number, bands, part)
            damage[number] += found
            return planes

        parts = self._read_layers([*damage], bands, window, read)
        seen = {number: self._seen(number, found) for number, found in damage.items()}
        for number, planes in parts.items():
            mark_valid([planes.covered, *planes.data.values()], window, seen[number])
        joined_planes = self._joined(bands, parts)
        found = dict.fromkeys(one for some in seen.values() for one in some)
        return Parts(joined_planes.values, masks_of(joined_planes), tuple(found))

    def rows(self, height: int, bands: Sequence[int]) -> Iterator[Planes]:
        """See `Reader.rows`: a file of one strip is decoded once, piece by piece, where that can be done."""
        in_use, (tall, wide) = self._in_use(bands), self.facts.grid.shape
        strips = {number: strip for number in in_use if (strip := _strip(self.layers[number])) is not None}
        streams = {
            number: strip_rows(self.layers[number].file, strip, self._indices(number, bands), height)
            for number, strip in strips.items()
        }
        others = [number for number in in_use if number not in strips]
        for y in range(0, tall, height):
            parts = {number: next(stream) for number, stream in streams.items()}
            parts |= self._read_layers(others, bands, Window(y, 0, min(height, tall - y), wide))
            yield self._joined(bands, parts)

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

    def _joined(self, bands: Sequence[int], parts: Mapping[int, FilePlanes]) -> Planes:
        """The pixels of the files in use as one array, in the order of the bands."""
        chosen, in_use = [self.facts.bands[i] for i in bands], self._in_use(bands)
        data = {band.gaps: parts[band.layer].data[band.index] for band in chosen if band.gaps is not None}
        masks = [parts[number].covered for number in in_use], [data[number] for number in sorted(data)]
        if len(parts) == 1:
            return Planes(parts[in_use[0]].values, *masks)  # the usual case: one file, without a copy
        values = np.empty((len(bands), *masks[0][0].shape), np.result_type(*(band.raw_dtype for band in chosen)))
        for number in in_use:
            channels = [k for k, band in enumerate(chosen) if band.layer == number]
            for k, channel in zip(channels, parts[number].values, strict=True):
                values[k] = channel
        return Planes(values, *masks)

    def _salvage_file(self, number: int, bands: Sequence[int], window: Window) -> tuple[FilePlanes, Sequence[Damage]]:
        """Pixels of a damaged file, and its damage."""
        file = self.layers[number].file
        indices = self._indices(number, bands)
        gapped = sorted({index for index in indices if file.facts.gaps[index]})

        def read(block: Window) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
            planes = self._read_file(number, bands, block)
            return planes.values, [planes.covered, *(planes.data[index] for index in gapped)]

        parts = read_by_block(
            read,
            window,
            block=file.unit_block(self.level),
            shape=file.facts.grid.shape if self.level is None else file.level_shape(self.level),
            channels=len(indices),
            masks=1 + len(gapped),
            dtype=np.result_type(*(file.facts.dtypes[index] for index in indices)),
        )
        return FilePlanes(parts.values, parts.valid[0], dict(zip(gapped, parts.valid[1:], strict=True))), parts.damage

    def _seen(self, number: int, damage: Sequence[Damage]) -> Sequence[Damage]:
        """Damage of a file, in the image's pixels."""
        layer = self.layers[number]
        if layer.native:
            return damage
        place: Any = {"offset": layer.offset, "method": layer.method}
        shape = layer.file.facts.grid.shape
        return seen_through(
            damage,
            shape=self.facts.grid.shape,
            source_of=lambda pixel: source_window(pixel, layer.scale, shape, **place),
        )

    def _read_layers(
        self, numbers: Sequence[int], bands: Sequence[int], window: Window, read: ReadFile | None = None
    ) -> dict[int, FilePlanes]:
        """Pixels of some files on the image's grid, by the files' numbers; `read` replaces the reading of a file."""
        read = read or (lambda number, part: self._read_file(number, bands, part))
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number in numbers:
            layer = self.layers[number]
            place = (layer.scale, layer.offset, layer.method, layer.file.facts.grid.shape)
            alike.setdefault(place, []).append(number)
        parts: dict[int, FilePlanes] = {}
        for together in alike.values():
            parts |= self._read_alike(together, bands, window, read)
        return parts

    def _read_alike(
        self, numbers: Sequence[int], bands: Sequence[int], window: Window, read_file: ReadFile
    ) -> dict[int, FilePlanes]:
        """Pixels of files on one grid: what contributes where they are resampled is decided for all together."""
        layer = self.layers[numbers[0]]
        if layer.native:
            return {number: read_file(number, window) for number in numbers}
        place: Any = {"scale": layer.scale, "shape": layer.file.facts.grid.shape, "offset": layer.offset}
        source = source_window(window, place["scale"], place["shape"], offset=layer.offset, method=layer.method)
        read = {number: read_file(number, source) for number in numbers}
        chosen = [band for i in bands if (band := self.facts.bands[i]).layer in read]
        covered = {number: finite_only(Planes(part.values, [part.covered]))[0] for number, part in read.items()}
        data = [read[band.layer].data[band.index] for band in chosen if band.gaps is not None]
        contributing = joined([*covered.values()], data if len(data) == len(chosen) else ())
        parts = {}
        for number, part in read.items():
            values, _ = resample(part.values, contributing, window, source=source, method=layer.method, **place)
            masks = {i: under_centres(plane, window, source=source, **place) for i, plane in part.data.items()}
            parts[number] = FilePlanes(values, under_centres(covered[number], window, source=source, **place), masks)
        return parts

    def _read_file(self, number: int, bands: Sequence[int], window: Window) -> FilePlanes:
        """The file's own pixels."""
        file, indices = self.layers[number].file, self._indices(number, bands)
        dtype = np.result_type(*(file.facts.dtypes[index] for index in indices))
        return file.read(indices, window, dtype=dtype, level=self.level)


def _strip(layer: RasterLayer) -> Strip | None:
    """The strip of a file that is one strip, is read as it is, and can be decoded piece by piece."""
    return find_strip(layer.file) if layer.native and layer.file.facts.one_strip else None
