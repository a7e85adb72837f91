"""Law: whatever attempts of earlier executions do late, mask and account after the next run are those of a quiet run.

Orders of begin, write, record, fail, die and restart are drawn. An attempt may compute other bits (another device), and
may be stopped in the instant between its fence and its rename: that alone is not fenced, and `verify` closes it.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
from fakes import write_bundle, write_scene
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from numpy.typing import NDArray

from tilesseg.atomic_write import fenced
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import Superseded
from tilesseg.events import TileDone, TileFailed
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.raster.window import Window
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.verify_run import verify_run
from tilesseg.store.generations import Generation, next_generation
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store
from tilesseg.store.shard_writer import stored_sums

TILES = [f"r{row:03d}-c{column:03d}" for row in range(2) for column in range(3)]
STEPS = ["write", "suspend", "rename", "rename", "done", "fail", "die"]
OTHER = 77
"""Number of patches in the record of an attempt whose bits are not those of the quiet run."""

keep: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that are removed when the process ends."""


@functools.cache
def quiet_run() -> tuple[Job, Path, NDArray[np.uint8]]:
    """A job, its finished run, and its mask."""
    keep.append(tempfile.TemporaryDirectory())
    folder = Path(keep[-1].name)
    values = np.random.default_rng(8).integers(20, 250, (1, 100, 150)).astype(np.uint8)
    data = {
        "scenes": str(write_scene(folder / "scene.tif", values)),
        "model": str(write_bundle(folder / "model", "Shades")),
        "tiling": {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4},
        "output": {"dir": str(folder / "run"), "products": [{"format": "cog"}]},
        "cluster": {"kind": "serial"},
    }
    job = parse_job(data, where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0
    return job, folder / "run", product(folder / "run")


def product(run: Path) -> NDArray[np.uint8]:
    with rasterio.open(run / "scenes" / "scene" / "scene.tif") as file:
        mask: NDArray[np.uint8] = file.read(1)
        return mask


def other_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Other labels, of which most shards have as many bytes: sizes alone do not tell them."""
    return 2 - values


class Dying(SerialExecutor):
    """Executor of a client that is killed after some results."""

    def __init__(self, results: int) -> None:
        self.results = results

    def map(self, function: Callable[..., Any], items: Iterable[Any], *, lost: Callable[..., Any]) -> Iterator[Any]:
        for number, result in enumerate(super().map(function, items, lost=lost)):
            if number == self.results:
                raise KeyboardInterrupt
            yield result


@dataclass(eq=False)
class Attempt:
    """A tile that a worker does for an execution, one step at a time."""

    generation: Generation
    tile: str
    other: bool
    sums: dict[str, str] = field(default_factory=dict)
    held: list[tuple[Path, bytes]] = field(default_factory=list)
    """Files that have passed the fence and are not renamed yet."""

    @property
    def current(self) -> bool:
        try:
            self.generation.check()
        except Superseded:
            return False
        return True


class LateAttempts(RuleBasedStateMachine):
    """A run whose executions die and are followed by others, while attempts of all of them go on."""

    def __init__(self) -> None:
        super().__init__()
        job, whole, self.quiet = quiet_run()
        self.folder = tempfile.TemporaryDirectory()
        self.run = Path(self.folder.name) / "run"
        shutil.copytree(whole, self.run)
        for path in (*self.run.rglob("*.json"), *self.run.rglob("*.yaml")):
            path.write_text(path.read_text().replace(str(whole), str(self.run)))
        self.job = job.model_copy(update={"output": job.output.model_copy(update={"dir": str(self.run)})})
        planned = stored_scene_plan(self.store)
        assert planned is not None
        self.cores: dict[str, Window] = {name: planned.tiling.named(name).core for name in TILES}
        self.window = False
        self.going_on: list[Attempt] = []
        self.generation = self._forget(TILES)

    def _forget(self, tiles: list[str]) -> Generation:
        """The run as one that was interrupted before some tiles were begun."""
        (self.store.folder / "finished.json").unlink()
        for name in tiles:
            self.store.ledger.forget(name)
            for path in self._shards(name):
                path.unlink()
        return next_generation(self.run)

    @property
    def store(self) -> Store:
        return RunDirectory(self.run).scene("scene")

    def _shards(self, name: str) -> list[Path]:
        core = self.cores[name]
        folder = self.store.folder / "mask.zarr"
        place = (str(core.y // 64), str(core.x // 64))
        return [path for path in folder.rglob("*") if path.is_file() and path.parts[-2:] == place]

    @rule(tile=st.sampled_from(TILES), other=st.booleans(), how=st.sampled_from(["", "write", "suspend", "suspend"]))
    def begin(self, tile: str, other: bool, how: str) -> None:
        """An execution begins a tile that is not done, at which it has no other attempt, and may get far at once."""
        if tile in self.store.done_names() or any(a.tile == tile and a.current for a in self.going_on):
            return
        attempt = Attempt(self.generation, tile, other)
        self.going_on.append(attempt)
        if how:
            self.write(attempt, suspended=how == "suspend")

    @precondition(lambda self: self.going_on)
    @rule(which=st.integers(0, 5), step=st.sampled_from(STEPS))
    def go_on(self, which: int, step: str) -> None:
        """An attempt takes its next step, whether its execution is current or not."""
        self.step(self.going_on[which % len(self.going_on)], step)

    @precondition(lambda self: any(not attempt.current for attempt in self.going_on))
    @rule(which=st.integers(0, 5), step=st.sampled_from(STEPS))
    def go_on_late(self, which: int, step: str) -> None:
        """An attempt of an earlier execution takes its next step."""
        late = [attempt for attempt in self.going_on if not attempt.current]
        self.step(late[which % len(late)], step)

    def step(self, attempt: Attempt, step: str) -> None:
        match step:
            case "write" | "suspend":
                self.write(attempt, suspended=step == "suspend")
            case "rename" if not attempt.current:
                self.rename(attempt)
            case "done" | "fail":
                self.end(attempt, fails=step == "fail")
            case "die":
                self.going_on.remove(attempt)  # what it held is never renamed

    def write(self, attempt: Attempt, *, suspended: bool) -> None:
        core = self.cores[attempt.tile]
        quiet, writers = self.quiet[core.slices()], self.store.core_rows(core)
        values = other_bits(quiet) if attempt.other else quiet
        with patch.object(Path, "replace", self._holding(attempt) if suspended else Path.replace):
            self._fenced(attempt, lambda: [rows.write(values) for rows in writers])
        if attempt.current:
            attempt.sums = stored_sums(writers)

    def _holding(self, attempt: Attempt) -> Callable[[Path, Path], None]:
        def hold(path: Path, target: Path) -> None:
            attempt.held.append((target, path.read_bytes()))
            path.unlink()

        return hold

    def rename(self, attempt: Attempt) -> None:
        """What had passed the fence takes its place, whoever is current by now."""
        for target, data in attempt.held:
            self.window = self.window or not attempt.current
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        attempt.held.clear()

    def end(self, attempt: Attempt, *, fails: bool) -> None:
        """An attempt records what it has done, or fails; one that has not written can only fail."""
        self.rename(attempt)
        self.going_on.remove(attempt)
        area = self.cores[attempt.tile].area
        if fails or not attempt.sums:
            record = TileFailed("scene", attempt.tile, area, "late")
            self._fenced(attempt, lambda: self.store.mark_failed(record))
            return
        patches = OTHER if attempt.other else 9
        done = TileDone("scene", attempt.tile, area, patches, 0, {}, {}, stored=attempt.sums)
        self._fenced(attempt, lambda: self.store.mark_done(done))

    def _fenced(self, attempt: Attempt, act: Callable[[], object]) -> None:
        """Act as a worker does: an attempt of an earlier execution is stopped, and one of this execution is not."""
        with fenced(attempt.generation.check):
            if attempt.current:
                act()
                return
            with pytest.raises(Superseded):
                act()

    @precondition(lambda self: any(attempt.current for attempt in self.going_on))
    @rule(results=st.sampled_from([0, 2, 5]))
    def restart(self, results: int) -> None:
        """Another execution begins, and its client dies after some results."""
        with suppress(KeyboardInterrupt):
            run_job(self.job, executor=Dying(results))
        self.generation = Generation(self.run, max(int(n) for n in self._current()))

    def _current(self) -> Any:
        return json.loads((self.run / "generation.json").read_text())["current"]

    def teardown(self) -> None:
        """One plain run, and where an attempt has come through the window, `verify` and one more."""
        report = run_job(self.job, executor=SerialExecutor())
        if self.window:
            verify_run(self.run)
            report = run_job(self.job, executor=SerialExecutor())
        (scene,) = job_status(self.run).scenes
        assert (report.exit_code, scene.state, scene.done, scene.failed) == (0, "complete", len(TILES), {})
        assert verify_run(self.run).problems == 0
        np.testing.assert_array_equal(product(self.run), self._expected())
        self.folder.cleanup()

    def _expected(self) -> NDArray[np.uint8]:
        """The quiet mask, with the other bits where the record says that they are."""
        mask = self.quiet.copy()
        for name, core in self.cores.items():
            record = self.store.done_record(name)
            assert record is not None
            if record.patches == OTHER:
                mask[core.slices()] = other_bits(mask[core.slices()])
        return mask


def test_the_window_between_fence_and_rename_is_closed_by_verify() -> None:
    """The drawn orders come through it, too; this one is known to need `verify`."""
    run = LateAttempts()
    run.begin(TILES[0], other=True, how="suspend")
    (late,) = run.going_on
    run.restart(9)
    assert (run.store.folder / "finished.json").exists()
    run.step(late, "rename")
    assert run.window and not late.current
    product_path = run.run / "scenes" / "scene" / "scene.tif"
    product_path.unlink()
    report = run_job(run.job, executor=SerialExecutor())
    assert report.exit_code == 3 and not product_path.exists(), "altered bytes are never published"
    assert TILES[0] not in run.store.done_names()
    run.teardown()


TestLateAttempts = LateAttempts.TestCase
TestLateAttempts.settings = settings(
    max_examples=40,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
