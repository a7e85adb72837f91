"""One band of a Zarr image, and what bands and arrays are as plain JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilesseg.formats.reading.validity import Scaling
from tilesseg.formats.zarr.zarr_array import ZarrArray


@dataclass(frozen=True, slots=True)
class ZarrBand:
    """One band of the image: where it lies and what makes its values physical."""

    name: str | None
    layer: int
    index: int
    """Along the array's channel axis."""
    dtype: str
    """Of its raw values, before they are joined with others'."""
    scale: float = 1.0
    offset: float = 0.0
    mask: int = 0
    """Which of the image's masks is its own."""
    resampled: bool = False
    """Whether its raw values were resampled before they were stored."""

    @property
    def scaling(self) -> Scaling:
        return self.scale, self.offset


def describe_band(band: ZarrBand, path: str) -> dict[str, Any]:
    """A band of the array at `path`."""
    return {"name": band.name, "dtype": band.dtype, "scale": band.scale, "offset": band.offset, "file": path}


def describe_array(layer: ZarrArray, nodata: float | None, levels: Sequence[ZarrArray], *, mask: str) -> dict[str, Any]:
    """How an array is stored; `mask` is what says which of its pixels are valid."""
    array, (height, width) = layer.array, layer.chunk
    told = None if nodata is None else [nodata if np.isfinite(nodata) else str(nodata)]
    return {
        "path": layer.path,
        "driver": f"Zarr {array.metadata.zarr_format}",
        "height": layer.shape[0],
        "width": layer.shape[1],
        "storage": f"chunks of {width} × {height}" + (" in shards" if array.shards else ""),
        "compression": ", ".join(type(codec).__name__ for codec in array.compressors) or None,
        "overviews": [round(layer.shape[1] / level.shape[1], 3) for level in levels],
        "mask": mask,
        "nodata": told or [],
    }
