"""How large shards and cores should be, given a lattice: whole shards, little computed twice, nobody idle."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tilesseg.errors import JobError
from tilesseg.tiling import Lattice, computed, round_up


def choose_shard(lattice: Lattice, *, core: int | None = None, about: int = 1024) -> tuple[int, int]:
    """Sides of shard and chunk for the mask: with crop a multiple of the stride, so that nothing is computed twice.

    Args:
        lattice: the lattice of patches.
        core: side of the cores, where it is given: shards must divide it.
        about: side wanted, in pixels.

    Raises:
        JobError: the core is no multiple of the stride (crop) or of 64 (blended).
    """
    unit = lattice.stride if lattice.exclusive else 64
    if core is None:
        count = max(1, round(about / unit))
    elif core % unit or core < unit:
        what = "the stride" if lattice.exclusive else "the smallest shard"
        raise JobError(f"core {core} is not a multiple of {unit}, {what}; take {max(1, round(core / unit)) * unit}")
    else:
        units = core // unit
        count = max(n for n in range(1, units + 1) if units % n == 0 and (n == 1 or n * unit <= about))
    shard = unit * count
    chunk = max(side for side in range(1, min(shard, 512) + 1) if shard % side == 0)
    return shard, chunk if chunk >= 64 else shard


def choose_core(
    shape: tuple[int, int], lattice: Lattice, *, shard: int, slots: int, largest: int = 8192, recompute: float = 1.1
) -> tuple[int, int]:
    """Height and width of the cores: little is computed twice, and `slots` tiles at a time come out even.

    Among those with a recompute factor up to `recompute` and two tiles or more for each slot, where the scene has any.
    Of those within 5 % of the least cost the widest, and of these the largest: rows of image files are stored together,
    and cores as wide in a small scene as in a large one need as much memory.
    """
    options = [
        _Option(height, width, computed(lattice, shape[0], height), computed(lattice, shape[1], width), shape, slots)
        for height in _sides(shape[0], shard, largest)
        for width in _sides(shape[1], shard, largest)
    ]
    patches = lattice.cells(shape[0]) * lattice.cells(shape[1])
    roomy = [one for one in options if one.patches <= recompute * patches and one.tiles >= 2 * slots]
    options = roomy or options
    enough = 1.05 * min(one.cost for one in options)
    best = max((one for one in options if one.cost <= enough), key=lambda one: (one.width, one.height))
    return best.height, best.width


@dataclass(frozen=True, slots=True)
class _Option:
    """A size of core, with the patches that each row and each column of cores computes."""

    height: int
    width: int
    rows: list[int]
    columns: list[int]
    shape: tuple[int, int]
    """Of the whole image."""
    slots: int

    @property
    def tiles(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def patches(self) -> int:
        return sum(self.rows) * sum(self.columns)

    @property
    def cost(self) -> float:
        """Patches, and in proportion those that idle slots could have computed meanwhile."""
        height, width = self.shape
        rounds = ceil(self.tiles / self.slots)
        return self.patches * rounds * self.slots * self.height * self.width / (height * width)


def _sides(size: int, shard: int, largest: int) -> range:
    """Whole numbers of shards up to `largest`, and no larger than the image needs."""
    most = min(max(shard, largest), round_up(size, shard))
    return range(shard, most + 1, shard)
