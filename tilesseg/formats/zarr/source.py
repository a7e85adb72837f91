"""Zarr arrays as one image: one array of several bands, or several arrays of one band each; a staged copy, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.damage import Damage, Parts, mark_valid, read_by_block
from tilesseg.formats.reading.band_planes import ImageBand, Planes, mask_count, masks_of, values_and_masks
from tilesseg.formats.reading.image import Reader, Shape
from tilesseg.formats.reading.open_options import Missing
from tilesseg.formats.reading.resample import Pair
from tilesseg.formats.reading.resampled_reader import read_resampled, salvage_resampled
from tilesseg.formats.zarr.missing_chunks import missing_notes
from tilesseg.formats.zarr.zarr_array import ZarrArray
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class ZarrLayer:
    """An array, and its nodata value."""

    array: ZarrArray
    nodata: float | None = None
    absent: bool = False
    """Whether pixels in chunks that are not stored are nodata, and not the array's fill value; then the bands of the
    layer share their chunks."""


@dataclass(frozen=True, slots=True)
class ZarrReader(Reader):
    """Reads Zarr arrays as one image; see `reading.image.Reader`.

    A staged copy holds its masks, and pixels that are not copied yet cannot be read from it.
    """

    layers: tuple[ZarrLayer, ...]
    step: Pair = (1.0, 1.0)
    """Size of one of the image's pixels in the arrays' pixels."""
    valid: ZarrArray | None = None
    """`(mask, y, x)`, of a staged copy."""
    missing: Missing | None = None
    """Pixels in chunks that are not stored, as the user says."""
    holes: tuple[tuple[Window, str], ...] = ()
    """Windows of a staged copy that could not be copied, each with the reason."""
    damage: tuple[Damage, ...] = ()
    """Damaged windows of the image that a staged copy was made of."""

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        if self._native:
            return self._stored(window, bands)
        shape, chosen = self.layers[0].array.shape, self._chosen(bands)
        return read_resampled(
            lambda source: self._stored(source, bands), window, step=self.step, shape=shape, bands=chosen
        )

    def salvage(self, window: Window, bands: Sequence[int]) -> Parts:
        """See `Reader.salvage`; of a staged copy, whose damage is that of the image, with its windows."""
        if self._native:
            return self._salvage_stored(window, bands)
        planes, damage = salvage_resampled(
            lambda source: self._salvage_stored(source, bands),
            window,
            step=self.step,
            shape=self.layers[0].array.shape,
            grid=self.facts.grid.shape,
            bands=self._chosen(bands),
        )
        return Parts(planes.values, masks_of(planes), damage)

    def _salvage_stored(self, window: Window, bands: Sequence[int]) -> Parts:
        """The arrays' own pixels, as far as they can be decoded."""
        chosen, array = self._chosen(bands), self.layers[0].array
        chunks = [self.layers[number].array.chunk for number in self._in_use(bands)]
        copied = tuple(one for one in self.damage if one.window.touches(window))
        parts = read_by_block(
            lambda part: values_and_masks(replace(self, damage=())._stored(part, bands)),
            window,
            block=(max(height for height, _ in chunks), max(width for _, width in chunks)),
            shape=array.shape,
            channels=len(bands),
            masks=mask_count(chosen),
            dtype=np.result_type(*(band.dtype for band in chosen)),
        )
        mark_valid(parts.valid, window, (one for one in copied if not one.coarser))
        return parts._replace(damage=(*copied, *parts.damage))

    def storage_block(self, bands: Sequence[int]) -> Shape:
        """See `Reader.storage_block`: the chunk, of several arrays the largest; in the image's pixels."""
        chunks = [self.layers[number].array.chunk for number in self._in_use(bands)]
        height, width = np.ceil(np.max(chunks, axis=0) / self.step).astype(int).tolist()
        return height, width

    def describe_files(self) -> list[dict[str, Any]]:
        # layers may be parts of one array
        arrays = {layer.array.path: (number, layer) for number, layer in reversed([*enumerate(self.layers)])}
        resampled = None if self._native else {"scale": list(self.step), "offset": [0.0, 0.0]}
        return [
            {**self._describe_layer(number, layer), "resampled": resampled}
            for number, layer in reversed(arrays.values())
        ]

    def counted_notes(self, bands: Sequence[int]) -> list[str]:
        """See `Reader.counted_notes`: the chunks that are not stored, of each array that holds some of these bands."""
        if self.valid is not None:
            return []
        arrays: dict[str, list[ImageBand]] = {}
        for band in self._chosen(bands):
            arrays.setdefault(self.layers[band.layer].array.path, []).append(band)
        notes = []
        for path, chosen in arrays.items():
            layer = self.layers[chosen[0].layer]
            found = missing_notes(layer.array, [band.index for band in chosen], self.missing, layer.nodata)
            notes += found if len(arrays) == 1 else [f"{os.path.basename(path)}: {note}" for note in found]
        return notes

    def _describe_layer(self, number: int, layer: ZarrLayer) -> dict[str, Any]:
        array, (height, width), nodata = layer.array.array, layer.array.chunk, layer.nodata
        coarser = [one.layers[number].array for one in self.levels or self.overviews if isinstance(one, ZarrReader)]
        return {
            "path": layer.array.path,
            "driver": f"Zarr {array.metadata.zarr_format}",
            "height": layer.array.shape[0],
            "width": layer.array.shape[1],
            "storage": f"chunks of {width} × {height}" + (" in shards" if array.shards else ""),
            "compression": ", ".join(type(codec).__name__ for codec in array.compressors) or None,
            "overviews": [round(layer.array.shape[1] / level.shape[1], 3) for level in coarser],
            "mask": self._describe_mask(layer),
            "nodata": [] if nodata is None else [nodata if np.isfinite(nodata) else str(nodata)],
        }

    def _describe_mask(self, layer: ZarrLayer) -> str:
        if self.valid is not None:
            return "masks copied with the pixels"
        reasons = [
            *(["nodata value"] if layer.nodata is not None else []),
            *(["chunks that are not stored"] if layer.absent else []),
        ]
        return " and ".join(reasons) or "all pixels valid"

    @property
    def _native(self) -> bool:
        return self.step == (1.0, 1.0)

    def _chosen(self, bands: Sequence[int]) -> list[ImageBand]:
        return [self.facts.bands[i] for i in bands]

    def _in_use(self, bands: Sequence[int]) -> list[int]:
        """Numbers of the arrays that these bands lie in."""
        return sorted({band.layer for band in self._chosen(bands)})

    def _stored(self, window: Window, bands: Sequence[int]) -> Planes:
        """Values and masks of the arrays' own pixels."""
        chosen, in_use = self._chosen(bands), self._in_use(bands)
        self._refuse_holes(window, chosen)
        parts = [self._read_layer(number, window, chosen) for number in in_use]
        dtype = np.result_type(*(band.dtype for band in chosen))
        if len(parts) == 1:
            values = parts[0].astype(dtype, copy=False)
        else:
            values = np.empty((len(bands), *window.shape), dtype)
            for number, layer_values in zip(in_use, parts, strict=True):
                values[[k for k, band in enumerate(chosen) if band.layer == number]] = layer_values
        return Planes(values, self._covered(window, chosen), self._data(window, chosen, values))

    def _covered(self, window: Window, chosen: Sequence[ImageBand]) -> list[NDArray[np.bool_]]:
        """Masks of where the bands are stored, or copied as covered."""
        by_mask = {band.mask: band for band in reversed(chosen)}
        if self.valid is not None:
            return [_staged_mask(self.valid, mask, window) for mask in sorted(by_mask)]
        planes = []
        for _, band in sorted(by_mask.items()):
            layer = self.layers[band.layer]
            stored = layer.array.present(band.index, window) if layer.absent else np.broadcast_to(True, window.shape)
            planes.append(stored)
        return planes

    def _data(self, window: Window, chosen: Sequence[ImageBand], values: NDArray[Any]) -> list[NDArray[np.bool_]]:
        """Masks of where the bands differ from their nodata values, or were copied as such."""
        by_gaps = {band.gaps: k for k, band in enumerate(chosen) if band.gaps is not None}
        if self.valid is not None:
            return [_staged_mask(self.valid, gaps, window) for gaps in sorted(by_gaps)]
        planes = []
        for _, k in sorted(by_gaps.items()):
            nodata = self.layers[chosen[k].layer].nodata
            assert nodata is not None
            planes.append(_differs(values[k].astype(chosen[k].dtype, copy=False), nodata))
        return planes

    def _refuse_holes(self, window: Window, chosen: Sequence[ImageBand]) -> None:
        for hole, why in self.holes:
            if hole.touches(window):
                raise SourceError(why)
        for one in self.damage:
            if one.window.touches(window):
                raise SourceError(one.why) from ValueError("the image is damaged here")
        if self.valid is not None:
            for layer in self.layers:
                if not all(all(layer.array.stored(band.index, window)) for band in chosen):
                    raise SourceError(f"{layer.array.where(window)}: not copied yet; stage the image again")

    def _read_layer(self, number: int, window: Window, chosen: Sequence[ImageBand]) -> NDArray[Any]:
        return self.layers[number].array.read([band.index for band in chosen if band.layer == number], window)


def _staged_mask(valid: ZarrArray, mask: int, window: Window) -> NDArray[np.bool_]:
    if not any(valid.stored(mask, window)):  # nothing is masked here: takes no memory
        return np.broadcast_to(np.True_, window.shape)
    return np.asarray(valid.read([mask], window)[0], np.bool_)


def _differs(channel: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    if np.isnan(nodata):
        return np.asarray(~np.isnan(channel))
    if channel.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(channel != channel.dtype.type(nodata))
    return np.asarray(channel != nodata)  # also one that the type cannot hold
