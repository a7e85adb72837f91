"""How a scene is cut: from the model's contract and what was asked to blending, lattice, core and batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.blend import Blend
from tilesseg.cores import choose_core, choose_shard
from tilesseg.errors import JobError
from tilesseg.tiling import Lattice, Tiling, blend_lattice, crop_lattice, round_up

if TYPE_CHECKING:
    from tilesseg import job as jobs
    from tilesseg.models.spec import ModelSpec


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


def choose_layout(shape: tuple[int, int], spec: ModelSpec, asked: jobs.Tiling, *, slots: int, device: str) -> Layout:
    """Decide how a scene of `shape` is cut.

    Args:
        shape: height and width of the scene.
        spec: the model's contract.
        asked: what the job says; `auto` is decided here.
        slots: tiles that will be worked on at the same time.
        device: `cpu` or `cuda`, for the batch size.

    Raises:
        JobError: an illegal patch size, an overlap or a core that does not fit, or crop without a finite receptive
            field.
    """
    blend, lattice = choose_lattice(shape, spec, asked)
    given = None if asked.core == "auto" else asked.core
    shard, chunk = choose_shard(lattice, core=given)
    core = (given, given) if given else choose_core(shape, lattice, shard=shard, slots=slots)
    return Layout(blend, lattice, core, shard, chunk, _batch(asked.batch, lattice, min(core[1], shape[1]), device))


def choose_lattice(shape: tuple[int, int], spec: ModelSpec, asked: jobs.Tiling) -> tuple[Blend, Lattice]:
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


def _crop(shape: tuple[int, int], spec: ModelSpec, asked: jobs.Tiling) -> Lattice:
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


def _blended(shape: tuple[int, int], spec: ModelSpec, asked: jobs.Tiling) -> Lattice:
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


def _patch(shape: tuple[int, int], spec: ModelSpec, asked: jobs.Tiling, *, around: int, usual: int) -> int:
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


def _batch(asked: int | str, lattice: Lattice, width: int, device: str) -> int:
    """Patches a call of the network gets: a CPU is busy with one of 512², a GPU wants more; at most a row of a tile."""
    if isinstance(asked, int):
        return asked
    busy = (4 * 1024**2 if device == "cuda" else 512**2) // lattice.patch**2
    return max(1, min(busy, -(-width // lattice.stride)))
