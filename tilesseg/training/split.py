"""Split: which pixels of which scenes train, validate and test.

Each scene is cut into square cells fixed to its origin, and each cell belongs to one part or to none. Patches for
training are drawn round pixels of cells that train, and cells nearer than the gap to a part that validates or tests do
not train: no patch for training holds a pixel that is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import JobError
from tilesseg.formats.labels.labelled_area import open_area
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.training.train_spec import Split

Part = Literal["train", "validate", "test"]
PARTS: tuple[Part, ...] = ("train", "validate", "test")
NOWHERE = len(PARTS)
"""Number of a cell that belongs to no part: it lies in a gap."""
CELL = 64
"""Side of a cell in pixels."""
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class SplitScene:
    """Facts of a scene that a split goes by."""

    name: str
    image: str
    """Path of the image, for refusals."""
    grid: Grid
    native: Grid
    row: Mapping[str, str] | None = None
    """The scene's row in the table of scenes."""


@dataclass(frozen=True)
class PartMap:
    """Part of each cell of a scene."""

    shape: tuple[int, int]
    """Shape of the scene in pixels."""
    side: int
    """Side of a cell in pixels."""
    codes: Codes
    """Number of each cell's part in `PARTS`, or `NOWHERE`, `(row, column)`."""

    @classmethod
    def whole(cls, part: Part, shape: tuple[int, int]) -> PartMap:
        """Map of a scene that belongs to one part."""
        return cls(shape, max(shape), np.full((1, 1), PARTS.index(part), np.uint8))

    def windows(self, part: Part) -> list[Window]:
        """Windows that together are a part; they do not overlap. Equal runs of neighbouring rows are joined."""
        runs: dict[tuple[int, int], int] = {}
        windows = []
        for i, row in enumerate([*(self.codes == PARTS.index(part)), np.zeros(self.codes.shape[1], np.bool_)]):
            here = set(_runs(row))
            for run in sorted(runs.keys() - here):
                windows.append(self._window(runs.pop(run), i, *run))
            runs.update((run, i) for run in here - runs.keys())
        return windows

    def mask(self, part: Part, window: Window) -> NDArray[np.bool_]:
        """Pixels `(y, x)` of a window that belong to a part; none outside the scene."""
        inside = np.zeros(window.shape, np.bool_)
        place = window.intersect(Window(0, 0, *self.shape))
        if not place.empty:
            rows, columns = (
                np.arange(start, stop) // self.side
                for start, stop in ((place.y, place.y_stop), (place.x, place.x_stop))
            )
            inside[place.slices(window)] = self.codes[rows[:, None], columns] == PARTS.index(part)
        return inside

    def holds(self, part: Part) -> bool:
        """Whether any cell belongs to a part."""
        return bool((self.codes == PARTS.index(part)).any())

    def _window(self, top: int, bottom: int, left: int, right: int) -> Window:
        side = self.side
        return Window(top * side, left * side, (bottom - top) * side, (right - left) * side).intersect(
            Window(0, 0, *self.shape)
        )


def split_scenes(scenes: Sequence[SplitScene], split: Split, *, patch: int) -> dict[str, PartMap]:
    """Part of each pixel of each scene.

    Args:
        scenes: the scenes; their names differ.
        split: the user's options.
        patch: side of the largest window that a patch for training reads, in pixels: the least gap.

    Returns:
        A map for each scene's name.

    Raises:
        JobError: there are too few scenes or blocks, a name or a column is unknown, or a gap is smaller than a patch.
        SourceError: a file of polygons cannot be read, or touches none of the scenes.
    """
    match split.by:
        case "scene":
            return _whole(scenes, _drawn([scene.name for scene in scenes], split, what="scenes"))
        case "lists":
            return _whole(scenes, _listed(scenes, split))
        case "column":
            return _whole(scenes, {scene.name: _stated(scene, split) for scene in scenes})
    gap = _gap(split, patch)
    if split.by == "block":
        return _by_block(scenes, split, gap)
    maps = {scene.name: _by_polygons(scene, split, gap) for scene in scenes}
    _refuse_nowhere(maps, split)
    return maps


def _refuse_nowhere(maps: Mapping[str, PartMap], split: Split) -> None:
    parts: tuple[tuple[Part, object], ...] = (("validate", split.validation), ("test", split.test))
    for part, path in parts:
        if isinstance(path, str) and not any(one.holds(part) for one in maps.values()):
            raise JobError(f"split.{part} is {path}, which touches none of {len(maps)} scenes; check its coordinates")


def _whole(scenes: Sequence[SplitScene], parts: Mapping[str, Part]) -> dict[str, PartMap]:
    return {scene.name: PartMap.whole(parts[scene.name], scene.grid.shape) for scene in scenes}


def _drawn(names: Sequence[str], split: Split, *, what: str) -> dict[str, Part]:
    """Part of each name, by a hash of name and seed: whatever the order of the names, and the same for all that stay.

    Raises:
        JobError: a part would have none.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{split.seed}/{name}".encode()).digest())
    shares = [float(share) for share in (split.validation, split.test) if isinstance(share, float | int)]
    counts = [max(1, round(share * len(names))) if share > 0 else 0 for share in shares]
    rest = ranked[counts[1] :]
    tested = set(ranked[: counts[1]])
    validated = set(rest[split.fold :: split.folds]) if split.folds else set(rest[: counts[0]])
    if len(names) < (split.folds or 0) or not len(validated) + len(tested) < len(names):
        wanted = f"{split.folds} folds" if split.folds else f"validate {shares[0]:g} and test {shares[1]:g}"
        raise JobError(
            f"{len(names)} {what} cannot be split into {wanted}: none would be left to train; give more scenes, or "
            "split by block"
        )
    return {name: "test" if name in tested else "validate" if name in validated else "train" for name in names}


def _listed(scenes: Sequence[SplitScene], split: Split) -> dict[str, Part]:
    """Part of each scene by lists of names; what is on no list trains.

    Raises:
        JobError: a list names a scene that there is not, or one scene is on both.
    """
    lists = {"validate": _names(split.validation), "test": _names(split.test)}
    known = {scene.name for scene in scenes}
    for key, names in lists.items():
        if unknown := sorted(names - known):
            raise JobError(
                f"split.{key} names {unknown[0]}, and the scenes are {', '.join(sorted(known)[:8])}; correct the name"
            )
    if both := sorted(lists["validate"] & lists["test"]):
        raise JobError(f"split.validate and split.test both name {both[0]}; leave it in one of them")
    return {
        name: "test" if name in lists["test"] else "validate" if name in lists["validate"] else "train"
        for name in sorted(known)
    }


def _names(value: object) -> set[str]:
    return set(value) if isinstance(value, tuple) else set()


def _stated(scene: SplitScene, split: Split) -> Part:
    """Part of a scene by a column of the table of scenes.

    Raises:
        JobError: the column is missing, or says something else.
    """
    if scene.row is None or split.column not in scene.row:
        columns = ", ".join(scene.row or ()) or "no table"
        raise JobError(f"scene {scene.name} has no column {split.column} (it has {columns}); correct split.column")
    value = scene.row[split.column].strip().lower()
    for part in PARTS:
        if value in (part, {"validate": "validation"}.get(part)):
            return part
    raise JobError(
        f"scene {scene.name} has {value!r} in the column {split.column}, and the parts are {', '.join(PARTS)}; "
        "correct it"
    )


def _gap(split: Split, patch: int) -> int:
    """Gap in pixels.

    Raises:
        JobError: it is smaller than a patch.
    """
    if split.gap == "auto":
        return patch
    if split.gap < patch:
        raise JobError(
            f"split.gap is {split.gap} px and a patch reads {patch} px: patches for training would hold pixels that "
            "validate; write gap: auto"
        )
    return split.gap


def _by_block(scenes: Sequence[SplitScene], split: Split, gap: int) -> dict[str, PartMap]:
    """Maps of scenes cut into blocks, which are drawn over all scenes together."""
    names = {
        f"{scene.name}/{i}/{j}": (scene.name, i, j)
        for scene in scenes
        for i in range(-(-scene.grid.height // split.block))
        for j in range(-(-scene.grid.width // split.block))
    }
    parts = _drawn([*names], split, what="blocks")
    maps = {}
    for scene in scenes:
        blocks = [(i, j, parts[name]) for name, (own, i, j) in names.items() if own == scene.name]
        side = int(np.gcd(split.block, CELL))
        height, width = (-(-size // side) for size in scene.grid.shape)
        codes = np.zeros((height, width), np.uint8)
        step = split.block // side
        for i, j, part in blocks:
            codes[i * step : (i + 1) * step, j * step : (j + 1) * step] = PARTS.index(part)
        maps[scene.name] = PartMap(scene.grid.shape, side, _with_gap(codes, gap, side))
    return maps


def _by_polygons(scene: SplitScene, split: Split, gap: int) -> PartMap:
    """Map of a scene by polygons: a cell that a polygon touches belongs to its part; where both do, it tests."""
    height, width = (-(-size // CELL) for size in scene.grid.shape)
    codes = np.zeros((height, width), np.uint8)
    parts: tuple[tuple[Part, object], ...] = (("validate", split.validation), ("test", split.test))
    for part, path in parts:
        if isinstance(path, str):
            codes[_touched(scene, path.replace("{scene}", scene.name))] = PARTS.index(part)
    return PartMap(scene.grid.shape, CELL, _with_gap(codes, gap, CELL))


def _touched(scene: SplitScene, path: str) -> NDArray[np.bool_]:
    """Cells of a scene with a pixel inside polygons."""
    area = open_area(path, grid=scene.grid, native=scene.native, image=scene.image, elsewhere=True)
    rows = []
    for y in range(0, scene.grid.height, CELL):
        strip = area.read(Window(y, 0, min(CELL, scene.grid.height - y), scene.grid.width))
        rows.append(np.logical_or.reduceat(strip.any(axis=0), np.arange(0, scene.grid.width, CELL)))
    return np.stack(rows)


def _with_gap(codes: Codes, gap: int, side: int) -> Codes:
    """Cells without those for training that are nearer than the gap to a cell of another part."""
    scored = (codes != PARTS.index("train")).astype(np.int64)
    reach = -(-gap // side)
    sums = np.pad(scored, ((reach + 1, reach), (reach + 1, reach))).cumsum(axis=0).cumsum(axis=1)
    span = 2 * reach + 1
    near = sums[span:, span:] - sums[:-span, span:] - sums[span:, :-span] + sums[:-span, :-span] > 0
    return np.where((codes == PARTS.index("train")) & near, np.uint8(NOWHERE), codes)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of neighbours that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
