"""What driver and workers of a run have printed: the files of its folder `logs`, read from its directory alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tilesseg.cluster.queue.submitted_jobs import LOGS
from tilesseg.errors import StoreError

LOOK_EVERY = 0.5
"""Seconds."""
AT_A_TIME = 1 << 20
"""Bytes of a log that are looked at from its end; nobody reads more of one on a terminal."""


def find_logs(run: Path, *, worker: str | None = None) -> list[Path]:
    """The files, drivers first, each kind in the order in which they began.

    Args:
        run: the run directory.
        worker: only those of workers whose file's name has this in it.

    Raises:
        StoreError: there are none.
    """
    files = _files(run, worker)
    if not files:
        what = f"no log of a worker {worker}" if worker is not None else "no log"
        why = "a run in a queue has some as soon as it begins" if worker is None else "tilesseg logs RUN lists all"
        raise StoreError(f"{run / LOGS} has {what}; {why}")
    return files


def _files(run: Path, worker: str | None) -> list[Path]:
    found = [path for path in (run / LOGS).glob("*") if path.is_file()]
    mine = [path for path in found if worker is None or (worker in path.name and not _of_driver(path))]
    return sorted(mine, key=lambda path: (not _of_driver(path), path.stat().st_mtime, path.name))


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file; 0 is all of them."""
    with path.open("rb") as file:
        if count:
            file.seek(max(0, path.stat().st_size - AT_A_TIME))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[-count:]


@dataclass(slots=True)
class Follower:
    """Tells lines that are written from now on, in files that come later too."""

    run: Path
    worker: str | None = None
    places: dict[Path, int] = field(default_factory=dict)
    """How far each file has been read."""

    def begin(self) -> list[Path]:
        """The files that are there; what they have now is not told again.

        Raises:
            StoreError: there is no such run.
        """
        if not self.run.is_dir():
            raise StoreError(f"there is no run in {self.run}; give the folder of a run")
        found = _files(self.run, self.worker)
        self.places.update({path: path.stat().st_size for path in found})
        return found

    def news(self) -> Iterator[tuple[Path, list[str]]]:
        """Whole lines that came since the last call, for each file that has any."""
        for path in _files(self.run, self.worker):
            lines = self._read(path)
            if lines:
                yield path, lines

    def forever(self) -> Iterator[tuple[Path, list[str]]]:
        """News, until somebody has had enough."""
        while True:
            yield from self.news()
            time.sleep(LOOK_EVERY)

    def _read(self, path: Path) -> list[str]:
        with path.open("rb") as file:
            file.seek(self.places.get(path, 0))
            whole, _, rest = file.read().rpartition(b"\n")
            self.places[path] = file.tell() - len(rest)
        return whole.decode(errors="replace").splitlines()


def _of_driver(path: Path) -> bool:
    return path.name.startswith("driver-")
