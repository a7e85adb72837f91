"""A run that only pretends: events as a driver tells them, and tiles that sleep on real workers, phase by phase."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tilesseg.events import (
    Event,
    RunFinished,
    RunStarted,
    SceneFinished,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.inference import worker_phases as phases
from tilesseg.raster.tiling import tile_name

CORE = 512


def planned(scene: str = "a", rows: int = 2, columns: int = 3, *, done: int = 0, work: float = 1.25) -> ScenePlanned:
    tiles = rows * columns - done
    return ScenePlanned(
        scene,
        tiles=tiles,
        done=done,
        pixels=tiles * CORE**2,
        shape=(rows * CORE, columns * CORE),
        core=(CORE, CORE),
        work_factor=work,
    )


def done(scene: str = "a", tile: str = "r000-c000", **fields: Any) -> TileDone:
    own = {"patches": 9, "skipped": 0, "seconds": {"read": 0.2, "predict": 0.7, "write": 0.1}, "wall": 1.0}
    own |= {"worker": "node1:17", "peak_mb": 900.0, "started": 1000.0}
    return TileDone(scene, tile, CORE**2, counts={}, areas={}, **{**own, **fields})


def failed(scene: str = "a", tile: str = "r000-c001", reason: str = "the disk is on fire") -> TileFailed:
    return TileFailed(scene, tile, CORE**2, reason, "node1:17")


def tiles_of(event: ScenePlanned) -> list[str]:
    rows, columns = (-(-size // core) for size, core in zip(event.shape, event.core, strict=True))
    return [tile_name(row, column) for row in range(rows) for column in range(columns)]


def sleep_tile(item: tuple[str, str, float, bool]) -> TileDone | TileFailed:
    """What a worker does of a tile: takes its time over each part, and says so with its heartbeats."""
    scene, tile, seconds, bad = item
    phases.announce()
    began, draw = time.time(), np.random.default_rng(abs(hash((scene, tile))) % 2**32)
    spent: dict[str, float] = {"wait": 0.0}
    with phases.working(scene, tile):
        for part, share in (("read", 0.22), ("predict", 0.6), ("blend", 0.08), ("write", 0.1)):
            phases.enter(part)
            wait = seconds * share * float(draw.uniform(0.6, 1.6))
            time.sleep(wait)
            spent[part] = wait
            spent["wait"] += wait if part != "predict" else 0.0
    worker = f"{socket.gethostname()}:{os.getpid()}"
    if bad:
        return TileFailed(scene, tile, CORE**2, "unlucky pixel (RuntimeError at patch 7)", worker)
    spare = 0 if tile.endswith("c000") else 9
    return done(scene, tile, worker=worker, started=began, wall=time.time() - began, seconds=spent, patches=spare)


def story(scenes: Iterable[ScenePlanned], *, job: str = "pretended", bad: Iterable[str] = ()) -> Iterator[Event]:
    """A run without workers: its events, one after the other."""
    scenes, bad, failures = list(scenes), set(bad), 0
    yield RunStarted(len(scenes), job=job, directory="runs/pretended", classes=("land", "water"))
    for event in scenes:
        yield event
        for tile in tiles_of(event)[event.done :]:
            if tile in bad:
                failures += 1
                yield failed(event.scene, tile)
            else:
                yield done(event.scene, tile, started=time.time(), wall=0.01)
        yield SceneFinished(event.scene, "failed tiles" if bad else "complete")
    yield RunFinished(sum(event.tiles for event in scenes) - failures, failures, 0, 1.0)


def refused(scene: str = "c") -> SceneRefused:
    return SceneRefused(scene, "c.tif has 2 bands and the model takes 3; say which with input.bands")
