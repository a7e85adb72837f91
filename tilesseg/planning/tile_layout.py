"""Layout of a scene's tiles: from the model's contract and the job's options to blending, lattice, core and batch.

The patch of a flexible model is chosen by measured speeds: a larger one predicts fewer pixels twice, a smaller one is
often predicted faster and hangs less over the scene's edges. Which patch takes least time depends on the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilesseg.planning.machine import Compute, PatchSpeed, speed_at
from tilesseg.planning.recipe import Blend
from tilesseg.planning.tile_size import TALL, Cut, best_cut, choose_shard, cuts
from tilesseg.planning.tiling_options import batch_of, blended_lattice, choose_lattice, cropped_lattice
from tilesseg.raster.tiling import Lattice, Tiling, round_up

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs


@dataclass(frozen=True, slots=True)
class Layout:
    """Every number that cutting a scene takes."""

    blend: Blend
    lattice: Lattice
    core: tuple[int, int]
    shard: int
    chunk: int
    batch: int

    def tiling(self, shape: tuple[int, int]) -> Tiling:
        return Tiling(shape, self.lattice, self.core, self.shard)


LARGE = 16_000_000
"""Number of pixels from which on the patch of a scene is chosen by speed."""
VAST = 16384**2
"""Number of pixels from which on a scene is stored in larger shards, so that there are fewer files."""
STRIDES = (512, 1024, 2048, 4096)
"""Strides with which a network is measured; speeds between them are interpolated."""
NARROWEST = 256
"""Smallest stride for a narrow scene: networks are slow on small patches."""
ROW_BYTES = 128e6
"""Largest number of bytes in a row of patches as it is read: it limits the width of cores."""


def choose_layout(
    shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions, *, compute: Compute, itemsize: int = 1
) -> Layout:
    """Decide the layout of a scene's tiles.

    Args:
        shape: height and width of the scene.
        spec: the model's contract.
        options: options of the job; `auto` is decided here.
        compute: how the network is computed; with measured speeds the patch of a large scene is chosen by them, where
            it is free.
        itemsize: number of bytes of one value as it is read.

    Raises:
        JobError: an illegal patch size, an overlap or a core that does not fit, or crop without a finite receptive
            field.
    """
    given, about = None if options.core == "auto" else options.core, 2048 if shape[0] * shape[1] >= VAST else 1024
    blend, usual = choose_lattice(shape, spec, options)
    choose_shard(usual, core=given)  # refuses a core that does not fit, whatever was measured
    large = shape[0] * shape[1] >= LARGE and flexible(spec, options)
    known = large and speed_at(usual.patch, compute.speeds) is not None  # else it may be the best of all
    free = _free_lattices(shape, spec, options, usual) if known else ()
    measured = [lattice for lattice in free if speed_at(lattice.patch, compute.speeds)]
    by_speed = compute if measured else replace(compute, speeds=())
    candidates: list[Cut] = []
    for lattice in measured or [usual, *_narrow(shape, spec, options, usual)]:
        shard, _ = choose_shard(lattice, core=given, about=about)
        most = _largest_core(lattice, pixel=len(spec.bands) * itemsize + 1)
        candidates += cuts(shape, lattice, compute=by_speed, shard=shard, largest=most, core=given)
    best = best_cut(candidates)
    shard, chunk = choose_shard(best.lattice, core=given, about=about)
    batch = batch_of(options.batch, best.lattice.patch, compute.device)
    if options.batch == "auto":
        batch = min(batch, -(-min(best.width, shape[1]) // best.lattice.stride))
    return Layout(blend, best.lattice, (best.height, best.width), shard, chunk, batch)


def flexible(spec: ModelSpec, options: jobs.TilingOptions) -> bool:
    """Whether the patch is free: neither job nor model states it, and no pixel sees beyond the model's margin."""
    stated = options.patch != "auto" or spec.patch.fixed or spec.patch.preferred
    return not stated and spec.margin is not None


def measured_patches(spec: ModelSpec, options: jobs.TilingOptions) -> tuple[int, ...]:
    """Patch sizes with which a flexible network is to be measured, growing.

    Raises:
        JobError: as `choose_lattice`.
    """
    _, usual = choose_lattice((max(STRIDES), max(STRIDES)), spec, options)
    around = usual.patch - usual.stride
    return tuple(sorted({usual.patch, *(spec.patch.at_least(stride + around) for stride in STRIDES)}))


def why_patch(shape: tuple[int, int], layout: Layout, speeds: Sequence[PatchSpeed]) -> str | None:
    """Note about a patch that was chosen by speed, for people; None where the scene is too small for that."""
    patch, known = layout.lattice.patch, speed_at(layout.lattice.patch, speeds)
    if known is None or shape[0] * shape[1] < LARGE:
        return None
    speed = known.mpx_per_s
    work = layout.tiling(shape).work_factor
    measured = ", ".join(f"{size.patch}: {size.mpx_per_s:.3g}" for size in speeds if not size.inferred)
    return (
        f"patch {patch}: {speed:.3g} Mpx/s ÷ work {work:.2f} = {speed / work:.3g} Mpx/s of the scene in one process, "
        f"by measured speeds ({measured} Mpx/s)"
    )


def _free_lattices(
    shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions, usual: Lattice
) -> Iterator[Lattice]:
    """Lattices of all sizes that a free patch may have.

    Blended ones in finer steps, for a core should not end where patches overlap; with crop also those whose patches
    fill the scene exactly, from edge to edge.
    """
    around, multiple, step = usual.patch - usual.stride, spec.patch.stride_multiple, 256 if usual.exclusive else 64
    least, most = min(usual.stride, STRIDES[0]), min(STRIDES[-1], round_up(max(shape), step))
    sides = {*range(least, most + 1, step)}
    if usual.exclusive:
        sides |= {-(-size // count) for size in shape for count in range(-(-size // most), size // least + 1)}
    for side in sorted(sides):
        patch = spec.patch.at_least(round_up(side, multiple) + around)
        if usual.exclusive:
            yield from _fitting(shape, spec, options, patch)
        elif (patch - around) % multiple == 0:
            yield blended_lattice(shape, spec, options.model_copy(update={"patch": patch, "overlap": around}))
    yield from _narrow(shape, spec, options, usual)


def _narrow(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions, usual: Lattice) -> Iterator[Lattice]:
    """A smaller free patch for a scene that is narrower than the usual patch; with crop the result is the same."""
    around = usual.patch - usual.stride
    patch = spec.patch.at_least(max(min(shape), around, NARROWEST) + spec.patch.stride_multiple - 1 + around)
    if usual.exclusive and patch < usual.patch and flexible(spec, options):
        yield from _fitting(shape, spec, options, patch)


def _fitting(shape: tuple[int, int], spec: ModelSpec, options: jobs.TilingOptions, patch: int) -> Iterator[Lattice]:
    """The lattice of crop with a size of patch, unless its stride does not divide the core that the job states."""
    lattice = cropped_lattice(shape, spec, options.model_copy(update={"patch": patch}))
    if options.core == "auto" or options.core % lattice.stride == 0:
        yield lattice


def _largest_core(lattice: Lattice, *, pixel: int) -> tuple[int, int]:
    """Height and width of the largest core; `pixel` is the number of bytes of a pixel as it is read.

    Memory grows with the width only. With overlap, patches at the core's edges are computed twice, so tall cores are
    allowed.
    """
    return 8192 if lattice.exclusive else TALL, min(8192, int(ROW_BYTES / (lattice.patch * pixel)))
