"""Logs of a run: the output of its driver and workers, in the folder `logs` of the run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tilesseg.cluster.queue.schedulers import LOGS
from tilesseg.errors import StoreError

LOOK_EVERY = 0.5
"""Seconds between two looks for new lines."""
AT_A_TIME = 1 << 20
"""Bytes at the end of a log within which the last lines are searched."""


def find_logs(run: Path, *, worker: str | None = None) -> list[Path]:
    """Log files: first those of drivers, then those of workers, each in the order in which they began.

    Args:
        run: the run directory.
        worker: text that the file name of a worker has to contain; None means all files.

    Raises:
        StoreError: there is no such file.
    """
    files = _files(run, worker)
    if not files:
        if worker is not None:
            raise StoreError(f"{run / LOGS} has no log of a worker {worker}; leave out --worker to see all logs")
        raise StoreError(f"{run / LOGS} has no log; wait until the run, if it is in a queue, has begun")
    return files


def _files(run: Path, worker: str | None) -> list[Path]:
    files = [path for path in (run / LOGS).glob("*") if path.is_file()]
    chosen = [path for path in files if worker is None or (worker in path.name and not _of_driver(path))]
    return sorted(chosen, key=lambda path: (not _of_driver(path), path.stat().st_mtime, path.name))


def last_lines(path: Path, count: int) -> list[str]:
    """Last lines of a file; all lines where `count` is 0."""
    with path.open("rb") as file:
        if count:
            file.seek(max(0, path.stat().st_size - AT_A_TIME))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[-count:]


@dataclass(slots=True)
class Follower:
    """Reader of lines that are written from now on, also in files that come later."""

    run: Path
    worker: str | None = None
    places: dict[Path, int] = field(default_factory=dict)
    """Number of bytes of each file that have been read."""

    def begin(self) -> list[Path]:
        """Existing files; their present lines are not read again.

        Raises:
            StoreError: there is no such run.
        """
        if not self.run.is_dir():
            raise StoreError(f"there is no folder {self.run}; give the folder of a run")
        files = _files(self.run, self.worker)
        self.places.update({path: path.stat().st_size for path in files})
        return files

    def news(self) -> Iterator[tuple[Path, list[str]]]:
        """New whole lines since the last call, for each file that has any."""
        for path in _files(self.run, self.worker):
            lines = self._read(path)
            if lines:
                yield path, lines

    def forever(self) -> Iterator[tuple[Path, list[str]]]:
        """New lines, without end: until Ctrl-C."""
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
