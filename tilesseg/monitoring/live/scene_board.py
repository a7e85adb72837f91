"""State of one scene: its counts, and for the map of the dashboard each of its tiles in a few bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.events import ScenePlanned, TileDone, TileFailed
from tilesseg.raster.tiling import tile_name, tile_position

STATES = ("waiting", "reading", "predicting", "writing", "done", "skipped", "failed", "retried")
"""States of a tile. Skipped: nothing in it was predicted. Retried: done, but not at the first attempt."""
WAITING, READING, PREDICTING, WRITING, DONE, SKIPPED, FAILED, RETRIED = range(len(STATES))
LETTERS = "·rpw#s!+"
"""Letter of each state, for a map in plain text."""
IMPORTANT_FIRST = (FAILED, PREDICTING, WRITING, READING, WAITING, RETRIED, DONE, SKIPPED)
"""States by importance: a square that stands for many tiles shows the most important of their states."""
ERRORS = 500
"""Number of failed tiles of a scene whose reasons are kept."""
REASON = 300
"""Number of letters that are kept of a reason."""

KEPT_FINISHED, KEPT_FAILED = 50, 200
"""Numbers of scenes that stay in detail after their end: complete ones, and ones with something wrong."""
KEPT_TILES = 1_000_000
"""Number of tiles of ended scenes that stay in detail, all together."""

_RANK = np.argsort(np.array(IMPORTANT_FIRST)).astype(np.uint8)
_STATE = np.array(IMPORTANT_FIRST, np.uint8)


class TileFacts(NamedTuple):
    """TileFacts of a tile, for the tooltip on the map."""

    worker: str = ""
    seconds: float = 0.0
    patches: int = 0
    attempts: int = 0
    error: str = ""


class SceneBoard:
    """One scene: its counts, and the state and a few facts of each tile."""

    def __init__(self, event: ScenePlanned, *, when: float) -> None:
        self.name, self.state = event.scene, "running"
        self.shape, self.core, self.began, self.ended = event.shape, event.core, when, 0.0
        self.tiles = event.tiles + event.done
        self.done, self.failed, self.skipped, self.retried = event.done, 0, 0, 0
        self.pixels, self.done_pixels = event.pixels, 0
        self.regions, self.copied = event.regions, 0
        self.work_factor, self.notes = event.work_factor, event.notes
        self.seconds: dict[str, float] = {}
        self.problem: str | None = None
        self.picture: str | None = None
        """Image of the scene as a data URL, once there is one."""
        self._errors: dict[int, str] = {}
        rows, columns = (-(-size // max(1, core)) for size, core in zip(event.shape, event.core, strict=True))
        self.states = np.zeros((rows, columns), np.uint8)
        self._seconds = np.zeros(rows * columns, np.float32)
        self._patches = np.zeros(rows * columns, np.int32)
        self._attempts = np.zeros(rows * columns, np.uint8)
        self._worker = np.full(rows * columns, -1, np.int32)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return self.states.shape[0], self.states.shape[1]

    def place(self, tile: str) -> int | None:
        """Place of a tile in the map, counted row by row; None for a name without a place."""
        try:
            row, column = tile_position(tile)
        except ValueError:
            return None
        rows, columns = self.grid
        return row * columns + column if row < rows and column < columns else None

    def tile_at(self, place: int) -> str:
        """Name of the tile at a place."""
        return tile_name(*divmod(place, self.grid[1]))

    def take_done(self, event: TileDone, worker: int) -> int:
        """Count a stored tile; returns its state."""
        self.done, self.done_pixels = self.done + 1, self.done_pixels + event.pixels
        for part, spent in event.seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
        state = RETRIED if event.attempts > 1 else SKIPPED if event.patches == 0 else DONE
        self.skipped, self.retried = self.skipped + (state == SKIPPED), self.retried + (state == RETRIED)
        place = self.place(event.tile)
        if place is not None:
            self.states.flat[place] = state
            self._seconds[place] = event.wall or sum(event.seconds.values())
            self._patches[place], self._attempts[place] = event.patches, min(255, event.attempts)
            self._worker[place] = worker
        return state

    def take_failed(self, event: TileFailed, worker: int) -> None:
        """Count a tile that failed."""
        self.failed += 1
        place = self.place(event.tile)
        if place is not None:
            self.states.flat[place], self._worker[place] = FAILED, worker
            if len(self._errors) < ERRORS:
                self._errors[place] = event.reason[:REASON]

    def mark_done_before(self, tiles: list[str]) -> None:
        """Mark the tiles that an earlier run has stored; `done` counts them already."""
        for tile in tiles:
            place = self.place(tile)
            if place is not None and self.states.flat[place] == WAITING:
                self.states.flat[place] = DONE

    def facts(self, place: int, workers: list[str]) -> TileFacts:
        """TileFacts of a tile.

        Args:
            place: place of the tile, counted row by row.
            workers: names of the workers, by the numbers that were given to `take_done`.
        """
        number = int(self._worker[place])
        return TileFacts(
            worker=workers[number] if 0 <= number < len(workers) else "",
            seconds=round(float(self._seconds[place]), 2),
            patches=int(self._patches[place]),
            attempts=int(self._attempts[place]),
            error=self._errors.get(place, ""),
        )

    def states_with(self, busy: dict[str, str]) -> NDArray[np.uint8]:
        """States `(rows, columns)` together with the phase of each tile that a worker has in hand, by its name."""
        result = self.states.copy()
        for tile, phase in busy.items():
            place = self.place(tile)
            if place is not None and phase in STATES and result.flat[place] in (WAITING, FAILED):
                result.flat[place] = STATES.index(phase)
        return result

    def counts(self, busy: dict[str, str]) -> dict[str, int]:
        """Number of tiles by state."""
        counted = np.bincount(self.states_with(busy).ravel(), minlength=len(STATES))
        return {word: int(count) for word, count in zip(STATES, counted, strict=True)}

    def lines(self, busy: dict[str, str]) -> list[str]:
        """Map as text: a line for each row of tiles, a letter for each tile."""
        letters = np.array(list(LETTERS))
        return ["".join(row) for row in letters[self.states_with(busy)]]

    def to_json(self) -> dict[str, Any]:
        """Figures of the scene for the list of scenes."""
        return {
            "scene": self.name,
            "state": self.state,
            "tiles": self.tiles,
            "done": self.done,
            "failed": self.failed,
            "skipped": self.skipped,
            "retried": self.retried,
            "pixels": self.pixels,
            "done_pixels": self.done_pixels,
            "work_factor": round(self.work_factor, 4),
            "regions": self.regions,
            "copied": self.copied,
            "seconds": {part: round(spent, 3) for part, spent in self.seconds.items()},
            "problem": self.problem,
        }


def coarsened(states: NDArray[np.uint8], most: int) -> tuple[NDArray[np.uint8], int]:
    """States on a coarser grid of at most `most` squares, each with the most important state of its tiles.

    Returns:
        `(rows, columns)` uint8, and the number of tiles that a square is high and wide.
    """
    factor = 1
    while -(-states.shape[0] // factor) * -(-states.shape[1] // factor) > most:
        factor += 1
    if factor == 1:
        return states, 1
    rows, columns = (np.arange(0, size, factor) for size in states.shape)
    ranks = np.minimum.reduceat(np.minimum.reduceat(_RANK[states], rows, axis=0), columns, axis=1)
    return _STATE[ranks], factor


def too_many(scenes: Iterable[SceneBoard]) -> list[str]:
    """Names of the scenes that ended before the last ones, to be forgotten."""
    names, ended = [], sorted((s for s in scenes if s.state != "running"), key=lambda scene: -scene.ended)
    for wrong, most in ((False, KEPT_FINISHED), (True, KEPT_FAILED)):
        tiles = 0
        for number, scene in enumerate(scene for scene in ended if (scene.state != "complete") == wrong):
            tiles += scene.states.size
            if number >= most or (number and tiles > KEPT_TILES):
                names.append(scene.name)
    return names
