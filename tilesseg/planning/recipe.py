"""What the plan fixes for every tile of a scene, so that no tile decides anything."""

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
    """What the plan fixed for every tile of a scene, so that no tile decides anything."""

    blend: Blend
    normalisation: Normalisation
    batch_size: int
    """Patches a call of the network gets; a tile's last batch is padded, so its shape never changes."""
    scores: tuple[int, ...] = ()
    """Channels whose blended scores are stored beside the labels."""
    cells: RoiCells | None = None
    """Where to look; None looks everywhere."""


def raw_dtype(dtype: np.dtype[Any], fill: float) -> np.dtype[Any]:
    """The type of raw patches: the image's where it holds `fill` exactly, else a float that holds both.

    That is float32 for what has up to 16 bits, and for float32, which the network computes with anyway.
    """
    if dtype.kind in "iu" and float(fill).is_integer() and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max:
        return dtype
    if dtype == np.float32 or dtype.itemsize <= 2:
        return np.dtype(np.float32)
    return np.dtype(np.float64)


Blend = Literal["gaussian", "linear", "hann", "crop"]


def gives_labels(lattice: Lattice, recipe: Recipe) -> bool:
    """Whether labels are asked of the network: every pixel has one prediction, and nothing wants its scores."""
    return lattice.exclusive and not recipe.scores


def call_of(lattice: Lattice, recipe: Recipe, *, dtype: np.dtype[Any], spec: ModelSpec) -> Call:
    """The ends that a scene's network needs; `dtype` is its source's."""
    labels = gives_labels(lattice, recipe)
    return Call(raw_dtype(dtype, spec.fill), recipe.normalisation, labels, unused_margin(lattice, spec))


def unused_margin(lattice: Lattice, spec: ModelSpec) -> int:
    """Pixels on each side of a prediction that do not count; what the network's shrink leaves out is none of it."""
    return lattice.discarded - spec.patch.shrink // 2
