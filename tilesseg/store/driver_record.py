"""Who carries a run out: a record in its directory for as long as the process lives, so that it can be found and ended.

The record's file is locked by its process. The kernel lets go when the process dies, so a record that is left behind
by a crash is told from one of a driver that works, on other machines too where the file system passes locks on.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError

IDS = ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Variables in which a queue tells a job its id, that of an array first."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that carries a run out, or a share of it."""

    host: str
    pid: int
    started: float
    """In seconds since 1970."""
    job: str | None
    """Its id in a queue, if it runs in one."""
    shard: str | None = None
    """Share of the run that the process computes, as `3/8`; the stored key keeps its old name."""

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def driver_record(run: Path, share: str | None = None) -> Iterator[None]:
    """Keep `driver.json` in the run directory while the context lasts; `driver-3-of-8.json` for a share."""
    this = Driver(socket.gethostname(), os.getpid(), time.time(), _id_in_queue(), share)
    path = run / ("driver.json" if share is None else f"driver-{share.replace('/', '-of-')}.json")
    with ExitStack() as stack:
        with published(path) as temporary:
            file = stack.enter_context(temporary.open("w", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.dump(asdict(this), file, indent=1)
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def drivers(run: Path) -> list[Driver]:
    """The processes that work on a run now."""
    found = (_read(path) for path in sorted(run.glob("driver*.json")))
    return [driver for driver in found if driver is not None]


def left_behind(run: Path) -> bool:
    """Whether there is a record that no driver here holds: it was killed, or works where locks cannot be seen."""
    return any(driver is None for driver in map(_read, run.glob("driver*.json")))


def end_driver(driver: Driver, run: Path, *, within: float) -> bool:
    """Ask a driver on this machine to end, and wait; True if it has ended.

    Raises:
        StoreError: it belongs to somebody else, or is another process than that of the record.
    """
    try:
        if not _has_open(driver.pid, run):
            raise StoreError(
                f"{driver} does not work on {run}, another machine has this name too; run tilesseg cancel there"
            )
        os.kill(driver.pid, signal.SIGTERM)
    except (ProcessLookupError, FileNotFoundError):
        pass  # it has ended just now
    except PermissionError:
        raise StoreError(f"{driver} works on {run} and belongs to another user; ask them to end it") from None
    end = time.monotonic() + within
    while driver in drivers(run):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _has_open(pid: int, run: Path) -> bool:
    """Whether a process has its record of the run open; of one that has ended, or where nobody can say, it is believed.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    folder = Path(f"/proc/{pid}/fd")
    records = {_file(path) for path in run.glob("driver*.json")} - {None}
    if not records or not folder.exists():
        return True
    return bool(records & {_file(link) for link in folder.iterdir()})


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None of one that is not there any more."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _read(path: Path) -> Driver | None:
    """The driver of a record, if it lives."""
    try:
        with path.open(encoding="utf-8") as file:
            driver = Driver(**json.load(file))
            return driver if _is_locked(file.fileno()) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None  # it ended just now, or its file is none of ours


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _id_in_queue() -> str | None:
    """As the queue answered when the job was submitted: PBS calls an element of `17[]` `17[1]`."""
    found = next((os.environ[name] for name in IDS if name in os.environ), None)
    return found and re.sub(r"\[\d+\]", "[]", found)
