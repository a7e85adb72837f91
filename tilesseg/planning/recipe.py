"""Recipe of a scene: choices that the plan fixes for all its tiles, so that no tile decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tilesseg.models.network import Call

if TYPE_CHECKING:
    from tilesseg.models.normalisation import Normalisation
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.region_of_interest import RoiCells
    from tilesseg.raster.tiling import Lattice


@dataclass(frozen=True, slots=True)
class Recipe:
    """Choices that the plan fixed for all tiles of a scene."""

    blend: Blend
    normalisation: Normalisation
    batch_size: int
    """Number of patches in a batch; a tile's last batch is padded, so its shape never changes."""
    scores: tuple[int, ...] = ()
    """Channels whose blended scores are stored beside the labels."""
    cells: RoiCells | None = None
    """Region of interest; None means the whole image."""
    others: tuple[Normalisation, ...] = ()
    """Normalisations of the further networks of an ensemble."""


def raw_dtype(dtype: np.dtype[Any], fill: float) -> np.dtype[Any]:
    """Type of raw patches: the image's where it holds `fill` exactly, else a float type that holds both.

    The float type is float32 for values of up to 16 bits, and for float32, which the network computes with anyway.
    """
    if dtype.kind in "iu" and float(fill).is_integer() and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max:
        return dtype
    if dtype == np.float32 or dtype.itemsize <= 2:
        return np.dtype(np.float32)
    return np.dtype(np.float64)


Blend = Literal["gaussian", "linear", "hann", "crop"]


def gives_labels(lattice: Lattice, recipe: Recipe) -> bool:
    """Whether the network returns labels: every pixel has one prediction, and no scores are stored."""
    return lattice.exclusive and not recipe.scores


def call_of(lattice: Lattice, recipe: Recipe, *, dtype: np.dtype[Any], spec: ModelSpec) -> Call:
    """Pre- and post-processing of a scene's network; `dtype` is the type of its source."""
    labels = gives_labels(lattice, recipe)
    margin = unused_margin(lattice, spec)
    return Call(raw_dtype(dtype, spec.fill), recipe.normalisation, labels, margin, recipe.others)


def unused_margin(lattice: Lattice, spec: ModelSpec) -> int:
    """Width of the border of a prediction that is discarded, without the border that the network itself leaves out."""
    return lattice.discarded - spec.patch.shrink // 2
