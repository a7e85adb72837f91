"""Network of the chaos runs: it gives back the labels that the image holds, unless a fault is armed.

The image has one pixel of `BAD`. While the folder that `FOLDER` names holds a file `poison`, the network fails on that
pixel in the way that the file says; without the file the pixel is one of class 0.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

FOLDER, BAD = "TILESSEG_CHAOS", 13
TRANSIENT_FAILURES = 2
"""Number of times that a transient fault strikes, before the tile can be done."""


def raised(error: BaseException) -> NoReturn:
    raise error


def recurse() -> None:
    recurse()


def transient() -> None:
    strikes = Path(os.environ[FOLDER]) / "strikes"
    before = len(strikes.read_bytes()) if strikes.exists() else 0
    if before < TRANSIENT_FAILURES:
        strikes.write_bytes(b"x" * (before + 1))
        raise ConnectionError("connection reset by peer")


DEADLY: dict[str, Callable[[], Any]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "_exit": lambda: os._exit(3),
    "abort": os.abort,
}
"""Poison that kills its process."""
LIVING: dict[str, Callable[[], Any]] = {
    "SystemExit": lambda: sys.exit("stop"),
    "KeyboardInterrupt": lambda: raised(KeyboardInterrupt()),
    "MemoryError": lambda: raised(MemoryError()),
    "RecursionError": recurse,
    "transient error": transient,
}
"""Poison that the process survives."""
HANGING: dict[str, Callable[[], Any]] = {
    "hang": lambda: time.sleep(3600),
    "hang with the interpreter": lambda: ctypes.PyDLL(None).sleep(3600),
}
NOT_FINITE = "not finite"


class Chaotic:
    """Engine as a bundle names it: `engine: benchmarks.chaos.network:Chaotic`."""

    def __init__(self, spec: Any, weights: Path | None = None, *, device: str = "cpu", threads: int | None = None):
        self.spec, self.device = spec, "cpu"
        self.poison = Path(os.environ[FOLDER]) / "poison"

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(patch, class, y, x)` of patches `(patch, band, y, x)`."""
        time.sleep(0.02)
        labels = np.rint(patches[:, 0])
        bad = labels == BAD
        labels[bad] = 0
        scores = np.stack([labels == k for k in range(len(self.spec.classes))], axis=1).astype(np.float32)
        if bad.any() and self.poison.exists():
            kind = self.poison.read_text()
            if kind == NOT_FINITE:
                scores[:] = np.nan
            else:
                {**DEADLY, **LIVING, **HANGING}[kind]()
        return scores
