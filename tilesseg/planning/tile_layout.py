"""How a scene is cut: from the model's contract and what was asked to blending, lattice, core and batch.

The patch of a flexible model is chosen by what was measured: a larger one predicts less twice, a smaller one is often
predicted faster and hangs less over the scene's edges. Which one is soonest done depends on the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.planning.patch_speed import PatchSpeed, speed_at
from tilesseg.planning.recipe import Blend
from tilesseg.planning.tile_size import TALL, Cut, best_cut, choose_shard, cuts
from tilesseg.planning.tiling_options import _blended, _crop, batch_of, choose_lattice
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
"""Pixels of a scene for which it pays to choose the patch by speed."""
VAST = 16384**2
"""Pixels of a scene that is stored in larger shards, so that there are fewer files."""
STRIDES = (512, 1024, 2048, 4096)
"""With which the network is measured; what lies between is interpolated."""
NARROWEST = 256
"""Stride with which a narrow scene is cut at least: networks are slow on small patches."""
ROW_BYTES = 128e6
"""That a row of patches takes as it is read, at most: cores are not wider."""


def choose_layout(
    shape: tuple[int, int],
    spec: ModelSpec,
    asked: jobs.TilingOptions,
    *,
    slots: int,
    device: str,
    itemsize: int = 1,
    speeds: Sequence[PatchSpeed] = (),
    parallel_batches: int = 1,
) -> Layout:
    """Decide how a scene of `shape` is cut.

    Args:
        shape: height and width of the scene.
        spec: the model's contract.
        asked: what the job says; `auto` is decided here.
        slots: tiles that will be worked on at the same time.
        device: `cpu` or `cuda`, for the batch size.
        itemsize: bytes of one value as it is read.
        speeds: what was measured of the network, by growing patch; with it the patch of a large scene is chosen,
            where it is free.
        parallel_batches: batches that a worker process computes at the same time.

    Raises:
        JobError: an illegal patch size, an overlap or a core that does not fit, or crop without a finite receptive
            field.
    """
    given, about = None if asked.core == "auto" else asked.core, 2048 if shape[0] * shape[1] >= VAST else 1024
    blend, usual = choose_lattice(shape, spec, asked)
    choose_shard(usual, core=given)  # refuses a core that does not fit, whatever was measured
    large = shape[0] * shape[1] >= LARGE and flexible(spec, asked)
    known = large and speed_at(usual.patch, speeds) is not None  # else it may be the best of all
    measured = [one for one in _lattices(shape, spec, asked, usual) if speed_at(one.patch, speeds)] if known else []
    found: list[Cut] = []
    for lattice in measured or [usual, *_narrow(shape, spec, asked, usual)]:
        shard, _ = choose_shard(lattice, core=given, about=about)
        speed = speed_at(lattice.patch, speeds) if measured else None
        seconds = None if speed is None else parallel_batches * lattice.patch**2 / 1e6 / speed.mpx_per_s
        most = _largest(lattice, pixel=len(spec.bands) * itemsize + 1)
        found += cuts(
            shape,
            lattice,
            shard=shard,
            slots=slots,
            largest=most,
            core=given,
            seconds=seconds,
            parallel_batches=parallel_batches,
        )
    best = best_cut(found)
    shard, chunk = choose_shard(best.lattice, core=given, about=about)
    batch = batch_of(asked.batch, best.lattice.patch, device)
    if asked.batch == "auto":
        batch = min(batch, -(-min(best.width, shape[1]) // best.lattice.stride))
    return Layout(blend, best.lattice, (best.height, best.width), shard, chunk, batch)


def flexible(spec: ModelSpec, asked: jobs.TilingOptions) -> bool:
    """Whether the patch is free: nobody states one, and no pixel sees farther than the model's margin."""
    stated = asked.patch != "auto" or spec.patch.fixed or spec.patch.preferred
    return not stated and spec.margin is not None


def measured_patches(spec: ModelSpec, asked: jobs.TilingOptions) -> tuple[int, ...]:
    """The sizes with which a flexible network is to be measured, growing.

    Raises:
        JobError: as `choose_lattice`.
    """
    _, usual = choose_lattice((max(STRIDES), max(STRIDES)), spec, asked)
    around = usual.patch - usual.stride
    return tuple(sorted({usual.patch, *(spec.patch.at_least(stride + around) for stride in STRIDES)}))


def why_patch(shape: tuple[int, int], layout: Layout, speeds: Sequence[PatchSpeed]) -> str | None:
    """What was measured of a patch that was chosen by it, for people; None where the scene is too small for that."""
    patch, known = layout.lattice.patch, speed_at(layout.lattice.patch, speeds)
    if known is None or shape[0] * shape[1] < LARGE:
        return None
    speed = known.mpx_per_s
    work = layout.tiling(shape).work_factor
    measured = ", ".join(f"{one.patch}: {one.mpx_per_s:.3g}" for one in speeds if not one.inferred)
    return (
        f"patch {patch}: {speed:.3g} Mpx/s ÷ work {work:.2f} = {speed / work:.3g} Mpx/s of the scene in one process, "
        f"by what was measured ({measured} Mpx/s)"
    )


def _lattices(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions, usual: Lattice) -> Iterator[Lattice]:
    """What a free patch may be: the blended ones in finer steps, for a core should not end where patches overlap.

    With crop also those of which a whole number reaches from edge to edge.
    """
    around, multiple, step = usual.patch - usual.stride, spec.patch.stride_multiple, 256 if usual.exclusive else 64
    least, most = min(usual.stride, STRIDES[0]), min(STRIDES[-1], round_up(max(shape), step))
    sides = {*range(least, most + 1, step)}
    if usual.exclusive:
        sides |= {-(-size // count) for size in shape for count in range(-(-size // most), size // least + 1)}
    for side in sorted(sides):
        patch = spec.patch.at_least(round_up(side, multiple) + around)
        if usual.exclusive:
            yield from _fitting(shape, spec, asked, patch)
        elif (patch - around) % multiple == 0:
            yield _blended(shape, spec, asked.model_copy(update={"patch": patch, "overlap": around}))
    yield from _narrow(shape, spec, asked, usual)


def _narrow(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions, usual: Lattice) -> Iterator[Lattice]:
    """A smaller free patch for a scene that is narrower than the usual one; with crop the result is the same."""
    around = usual.patch - usual.stride
    patch = spec.patch.at_least(max(min(shape), around, NARROWEST) + spec.patch.stride_multiple - 1 + around)
    if usual.exclusive and patch < usual.patch and flexible(spec, asked):
        yield from _fitting(shape, spec, asked, patch)


def _fitting(shape: tuple[int, int], spec: ModelSpec, asked: jobs.TilingOptions, patch: int) -> Iterator[Lattice]:
    """The lattice of crop with a size of patch, unless its stride does not divide the core that is given."""
    lattice = _crop(shape, spec, asked.model_copy(update={"patch": patch}))
    if asked.core == "auto" or asked.core % lattice.stride == 0:
        yield lattice


def _largest(lattice: Lattice, *, pixel: int) -> tuple[int, int]:
    """Height and width of the largest core, given the bytes of a pixel as it is read.

    Only the width takes memory. Of patches that overlap, those at the core's edges are computed twice, so cores are
    higher.
    """
    return 8192 if lattice.exclusive else TALL, min(8192, int(ROW_BYTES / (lattice.patch * pixel)))
