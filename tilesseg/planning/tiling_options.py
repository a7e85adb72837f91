"""Blending, overlap, margin, patch and batch: from the model and the job to a lattice of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.errors import JobError
from tilesseg.planning.recipe import Blend
from tilesseg.raster.tiling import Lattice, blend_lattice, crop_lattice, round_up

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs


def choose_lattice(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions) -> tuple[Blend, Lattice]:
    """The blending and the lattice of patches.

    Raises:
        JobError: an illegal patch size, an overlap that does not fit, or crop without a finite receptive field.
    """
    sizes = spec.patch
    if asked.patch != "auto" and not sizes.legal(asked.patch):
        raise JobError(
            f"patch {asked.patch} is not a size this model takes ({sizes.rule}); take {_near(asked.patch, spec)}"
        )
    blend = asked.blend
    if blend == "auto":
        blend = "crop" if spec.margin is not None and not sizes.fixed and asked.overlap == "auto" else "gaussian"
    if blend == "crop":
        return blend, _crop(shape, spec, asked)
    return blend, _blended(shape, spec, asked)


def _crop(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions) -> Lattice:
    if spec.margin is None:
        raise JobError(
            f"blend: crop needs a model with a finite receptive field, and {spec.name} states no margin; "
            "take blend: gaussian"
        )
    if asked.overlap != "auto":
        raise JobError(
            f"blend: crop takes no overlap, its overlap is two margins, and {asked.overlap} is given; give margin"
        )
    margin = spec.margin if asked.margin == "auto" else asked.margin
    if margin < spec.margin:
        raise JobError(f"margin {margin} is below the model's receptive half-width {spec.margin}; take at least that")
    multiple = spec.patch.stride_multiple
    around = round_up(margin, multiple) + margin
    patch = _patch(shape, spec, asked, around=around, usual=1024 + around)
    return crop_lattice(patch, margin=margin, multiple=multiple)


def _blended(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions) -> Lattice:
    multiple, margin = spec.patch.stride_multiple, spec.patch.shrink // 2 + spec.patch.halo
    if asked.margin != "auto":
        margin = max(margin, asked.margin)
    least = round_up(margin, multiple) + margin
    around = least + multiple if asked.overlap == "auto" else asked.overlap
    patch = _patch(shape, spec, asked, around=around, usual=512)
    overlap = asked.overlap
    if overlap == "auto":
        room = patch - max(patch // 4, least)
        overlap = patch - max(multiple, room // multiple * multiple)
    return blend_lattice(patch, overlap=overlap, margin=margin, multiple=multiple)


def _patch(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions, *, around: int, usual: int) -> int:
    """The patch asked for; else the model's preferred or the usual one, but no larger than a small scene needs."""
    if asked.patch != "auto":
        return asked.patch
    sizes = spec.patch
    whole = sizes.at_least(max(shape) + sizes.stride_multiple - 1 + around)
    return min(sizes.preferred or sizes.at_least(usual), whole)


def _near(size: int, spec: ModelSpec) -> str:
    above = spec.patch.at_least(size)
    below = above - spec.patch.multiple
    return f"{below} or {above}" if below < size and spec.patch.legal(below) else str(above)


def batch_of(asked: int | str, patch: int, device: str) -> int:
    """Patches a call of the network gets: a CPU is busy with one of 512², a GPU wants more."""
    if isinstance(asked, int):
        return asked
    return max(1, (4 * 1024**2 if device == "cuda" else 512**2) // patch**2)
