"""Blending, overlap, margin, patch and batch: from the model and the job to a lattice of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.errors import JobError
from tilesseg.planning.recipe import Blend
from tilesseg.raster.tiling import Lattice, blend_lattice, crop_lattice, round_up

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs


def choose_lattice(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions) -> tuple[Blend, Lattice]:
    """The blending and the lattice of patches.

    Raises:
        JobError: an illegal patch size, an overlap that does not fit, or crop without a finite receptive field.
    """
    sizes = spec.patch
    if options.patch != "auto" and not sizes.legal(options.patch):
        raise JobError(
            f"patch {options.patch} is not a size this model takes ({sizes.rule}); take {_near(options.patch, spec)}"
        )
    blend = options.blend
    if blend == "auto":
        blend = "crop" if spec.margin is not None and not sizes.fixed and options.overlap == "auto" else "gaussian"
    if blend == "crop":
        return blend, cropped_lattice(shape, spec, options)
    return blend, blended_lattice(shape, spec, options)


def cropped_lattice(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions) -> Lattice:
    """The lattice of crop: each pixel of the scene has one prediction.

    Raises:
        JobError: the model has no finite receptive field, or the options do not fit it.
    """
    if spec.margin is None:
        raise JobError(
            f"blend: crop needs a model with a finite receptive field, and {spec.name} states no margin; "
            "take blend: gaussian"
        )
    if options.overlap != "auto":
        raise JobError(
            f"blend: crop takes no overlap, its overlap is two margins, and overlap is {options.overlap}; "
            "set margin in its place"
        )
    margin = spec.margin if options.margin == "auto" else options.margin
    if margin < spec.margin:
        raise JobError(f"margin {margin} is below the model's receptive half-width {spec.margin}; take at least that")
    multiple = spec.patch.stride_multiple
    around = round_up(margin, multiple) + margin
    patch = _patch(shape, spec, options, around=around, usual=1024 + around)
    return crop_lattice(patch, margin=margin, multiple=multiple)


def blended_lattice(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions) -> Lattice:
    """The lattice of the blended modes: patches overlap, by a quarter of the patch where the job states no overlap."""
    multiple, margin = spec.patch.stride_multiple, spec.patch.shrink // 2 + spec.patch.halo
    if options.margin != "auto":
        margin = max(margin, options.margin)
    least = round_up(margin, multiple) + margin
    around = least + multiple if options.overlap == "auto" else options.overlap
    patch = _patch(shape, spec, options, around=around, usual=512)
    overlap = options.overlap
    if overlap == "auto":
        room = patch - max(patch // 4, least)
        overlap = patch - max(multiple, room // multiple * multiple)
    return blend_lattice(patch, overlap=overlap, margin=margin, multiple=multiple)


def _patch(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions, *, around: int, usual: int) -> int:
    """Side of a patch: the job's; else the model's preferred or the usual side, no more than a small scene needs."""
    if options.patch != "auto":
        return options.patch
    sizes = spec.patch
    whole = sizes.at_least(max(shape) + sizes.stride_multiple - 1 + around)
    return min(sizes.preferred or sizes.at_least(usual), whole)


def _near(size: int, spec: ModelSpec) -> str:
    above = spec.patch.at_least(size)
    below = above - spec.patch.multiple
    return f"{below} or {above}" if below < size and spec.patch.legal(below) else str(above)


def batch_of(option: int | str, patch: int, device: str) -> int:
    """Number of patches in a batch: a CPU is busy with a single patch of 512², a GPU needs more."""
    if isinstance(option, int):
        return option
    return max(1, (4 * 1024**2 if device == "cuda" else 512**2) // patch**2)
