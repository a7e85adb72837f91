"""Record of the process that executes a run: it lies in the run directory while the process lives.

By it the process can be listed and ended. The file is locked by its process, and the kernel releases the lock when the
process dies: so the record of a crashed driver can be distinguished from that of a living one, on other machines too if
the file system shares locks.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError

IDS = ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Environment variables with the id that a queue gives to a job; that of a job array comes first."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that executes a run, or a part of it."""

    host: str
    pid: int
    started: float
    """Start of the process, in seconds since 1970."""
    job: str | None
    """Id of its job in a queue, or None outside of queues."""
    shard: str | None = None
    """Part of the run that the process executes, as `3/8`; the stored key keeps its old name."""

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
            with suppress(OSError):  # of a directory that takes no changes any more; the lock says that it is over
                path.unlink(missing_ok=True)


def drivers(run: Path) -> list[Driver]:
    """Processes that execute a run now."""
    records = (_read(path) for path in sorted(run.glob("driver*.json")))
    return [driver for driver in records if driver is not None]


def left_behind(run: Path) -> bool:
    """Whether a record exists that nobody holds: its driver was killed, or its machine does not share locks."""
    return any(driver is None for driver in map(_read, run.glob("driver*.json")))


def end_driver(driver: Driver, run: Path, *, within: float) -> bool:
    """Signal a driver on this machine to end, and wait `within` seconds; True if it has ended.

    Raises:
        StoreError: the process belongs to another user, or is not the process of the record.
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
    """Whether a process has its record of the run open; True too where the process has ended or /proc is missing.

    Raises:
        PermissionError: the process belongs to another user.
    """
    folder = Path(f"/proc/{pid}/fd")
    records = {_file(path) for path in run.glob("driver*.json")} - {None}
    if not records or not folder.exists():
        return True
    return bool(records & {_file(link) for link in folder.iterdir()})


def _file(path: Path) -> tuple[int, int] | None:
    """Device and inode number, which identify a file; None where the file does not exist any more."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _read(path: Path) -> Driver | None:
    """Driver of a record, or None where its process has ended."""
    try:
        with path.open(encoding="utf-8") as file:
            driver = Driver(**json.load(file))
            return driver if _is_locked(file.fileno()) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None  # the driver ended just now, or the file is not a record


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _id_in_queue() -> str | None:
    """Id of the job as its submission printed it: PBS calls an element of `17[]` `17[1]`."""
    job = next((os.environ[name] for name in IDS if name in os.environ), None)
    return job and re.sub(r"\[\d+\]", "[]", job)
