"""Verification of a run: every stored byte is compared with the records, and what differs is done again.

A record vouches for the shards of its tile by their sizes and checksums. A tile that is not stored as its record says,
for whatever reason (a bad disk, an incomplete copy, an older backup, a worker that wrote after its time), loses its
record: without one its pixels are 254 in every product, and the next run does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import StoreError
from tilesseg.events import TileDone
from tilesseg.planning.stored_plan import open_run_directory, scene_names, stored_scene_plan
from tilesseg.process import available_cores
from tilesseg.reporting.results import OVER
from tilesseg.run.finish_scene import moved_products
from tilesseg.run.prepare_run import hold_run
from tilesseg.store.scene_store import FINISHED_FILE
from tilesseg.store.shard_checks import Altered, altered_shards

if TYPE_CHECKING:
    from tilesseg.planning.scene_plan import ScenePlan
    from tilesseg.store.scene_store import Store


@dataclass(frozen=True, slots=True)
class SceneVerification:
    """Verification of a scene."""

    scene: str
    tiles: int
    """Number of the scene's tiles; 0 where it is not planned."""
    verified: int = 0
    """Number of tiles that are stored as their records say."""
    unchecked: int = 0
    """Number of done tiles whose records, of an earlier version, have no sums."""
    problems: tuple[str, ...] = ()
    """Lines on what is missing, torn or altered, one for each shard, record or product."""
    again: tuple[str, ...] = ()
    """Names of the tiles that the next run does again."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Verification of a run."""

    directory: str
    scenes: tuple[SceneVerification, ...]

    @property
    def problems(self) -> int:
        """Number of problems in all scenes."""
        return sum(len(scene.problems) for scene in self.scenes)

    @property
    def exit_code(self) -> int:
        """Exit code: 0 where everything is as recorded, 3 where something is done again."""
        return 3 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_run(
    directory: Path,
    *,
    told: Callable[[SceneVerification], None] = lambda scene: None,
    progress: Callable[[str, int, int], None] = lambda scene, checked, tiles: None,
) -> Verification:
    """Compare every stored shard of a run with the record of its tile, and have what differs done again.

    Args:
        directory: the run directory.
        told: called after each scene, in this thread.
        progress: called after each tile, in this thread, with the scene's name and its tiles checked so far and in all.

    Raises:
        StoreError: this is no run directory, or a process works on it.
    """
    run, _ = open_run_directory(directory)
    scenes = []
    with ExitStack() as stack:
        hold_run(run, None, stack)
        pool = stack.enter_context(ThreadPoolExecutor(2 * available_cores(), "tilesseg-verify"))
        for name in scene_names(run):
            scenes.append(_verify_scene(run.scene(name), pool, progress))
            told(scenes[-1])
    return Verification(str(directory), tuple(scenes))


def _verify_scene(
    store: Store, pool: ThreadPoolExecutor, progress: Callable[[str, int, int], None]
) -> SceneVerification:
    planned = stored_scene_plan(store)
    if planned is None:
        return SceneVerification(store.scene, 0)
    records, damaged = _records(store)
    found: list[Altered] = []
    for number, shards in enumerate(pool.map(_checked(store, planned), records.values()), start=1):
        found += shards
        progress(store.scene, number, len(records))
    lost = list(_lost_records(store, {*records, *damaged}, planned))
    again = sorted({*damaged, *(shard.tile for shard in found), *lost})
    problems = (
        *damaged.values(),
        *(f"tile {shard.tile}: {shard.path.relative_to(store.folder)}: {shard.problem}" for shard in found),
        *(f"tile {name}: its record is missing, and the scene was finished" for name in lost),
        *moved_products(store),
    )
    if problems:
        store.remove(FINISHED_FILE)
    for name in again:
        store.ledger.forget(name)
    store.remove_unreadable()
    sound = [record for name, record in records.items() if name not in again]
    unchecked = sum(not record.stored for record in sound)
    tiles = len(planned.tiling)
    return SceneVerification(store.scene, tiles, len(sound) - unchecked, unchecked, problems, tuple(again))


def _records(store: Store) -> tuple[dict[str, TileDone], dict[str, str]]:
    """Records of the done tiles, and the problems of those that cannot be read, both by tile."""
    records: dict[str, TileDone] = {}
    damaged: dict[str, str] = {}
    for name in sorted(store.done_names()):
        try:
            record = store.done_record(name)
        except (StoreError, TypeError) as error:
            damaged[name] = f"tile {name}: its record is damaged ({error})"
        else:
            records |= {name: record} if record else {}
    return records, damaged


def _checked(store: Store, planned: ScenePlan) -> Callable[[TileDone], Sequence[Altered]]:
    """Function that compares the bytes of a tile with its record."""
    folder, tiling, planes = store.folder, planned.tiling, store.planes()

    def check(record: TileDone) -> list[Altered]:
        return list(altered_shards(folder, planes, {record.tile: record}, tiling, by_bytes=True))

    return check


def _lost_records(store: Store, known: set[str], planned: ScenePlan) -> Iterator[str]:
    """Names of the tiles without a record in a scene of which all tiles were done when it was finished."""
    finished = store.read_json(FINISHED_FILE)
    if finished is not None and finished["report"]["state"] in (*OVER, "failed products"):
        yield from (tile.name for tile in planned.tiling if tile.name not in known)
