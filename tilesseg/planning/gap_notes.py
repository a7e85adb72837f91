"""Notes on pixels that count although a nodata value says otherwise, with their share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tilesseg.doubts import doubt
from tilesseg.formats.reading.validity import physical

if TYPE_CHECKING:
    from tilesseg.formats.source import Source


def gap_notes(sample: NDArray[np.float64], source: Source) -> list[str]:
    """Notes on pixels that are nodata in some of the bands only, and on nodata values that alpha overrules.

    Args:
        sample: valid values `(channel, n)` of the selected bands, as they are read.
        source: the image.
    """
    if sample.shape[1] == 0:
        return []
    gaps = np.stack([_has_nodata(values, source, band) for values, band in zip(sample, source.selected, strict=True)])
    if source.alpha:
        share = float(gaps.all(axis=0).mean())
        text = f"{_percent(share)} of the pixels that alpha calls valid have the nodata value in every band"
        return [doubt("nodata-beside-alpha", f"{text}, and are segmented")] if share else []
    share = float(gaps.any(axis=0).mean())
    if not share:
        return []
    each = ", ".join(
        f"{source.bands[band] or f'band {band + 1}'} {_percent(float(one.mean()))}"
        for one, band in zip(gaps, source.selected, strict=True)
        if one.any()
    )
    text = f"{_percent(share)} of the valid pixels are nodata in some of the bands ({each}), and are segmented"
    return [doubt("nodata-in-some-bands", text)]


def _has_nodata(values: NDArray[np.float64], source: Source, band: int) -> NDArray[np.bool_]:
    """Mask of the values of a band that are its nodata value, scaled as they are."""
    nodata = source.nodata[band]
    if nodata is None:
        return np.zeros(values.shape, np.bool_)
    raw = np.array([nodata]).astype(source.file_dtypes[band], casting="unsafe")
    with np.errstate(over="ignore"):
        seen = physical(raw, source.scaling[band]).astype(source.dtype).astype(np.float64)
    return np.asarray(values == seen)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"
