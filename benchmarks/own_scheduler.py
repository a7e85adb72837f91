"""A Dask scheduler of somebody else's and its workers, as processes of their own: `kind: address`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tilesseg.cluster import connect as cluster

MARK = "TILESSEG_OWN_SCHEDULER"
"""Variable in the environment of all processes of a scheduler, with its address."""


class OwnScheduler:
    """A scheduler and workers with nannies, as somebody starts them by hand; they end with the context."""

    def __init__(
        self, folder: Path, *, workers: int = 1, threads: int = 2, environment: dict[str, str] | None = None
    ) -> None:
        folder.mkdir()
        self.folder, self.workers, self.threads = folder, workers, threads
        self.address = f"tcp://127.0.0.1:{free_port()}"
        own = environment or {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.environment = {**own, MARK: self.address}
        self._nannies: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        """Start the scheduler, at the address at which it was before, and workers, which never come back to another."""
        if self._nannies:
            self.kill_nannies()
        port = self.address.rpartition(":")[2]
        self._head = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", "127.0.0.1:0"
        )
        of = [self.address, "--nthreads", str(self.threads), "--no-dashboard", "--local-directory", str(self.folder)]
        self._nannies = [self._start("worker", *of) for _ in range(self.workers)]

    def kill_scheduler(self) -> None:
        self._head.kill()
        self._head.wait(30)

    def kill_nannies(self) -> None:
        """End the workers for good, their nannies first; also a worker that a nanny is just starting."""
        for nanny in self._nannies:
            nanny.kill()
            nanny.wait(30)
        self._nannies = []
        while workers := [one for one in psutil.process_iter() if self._is_worker(one)]:
            for one in workers:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            time.sleep(0.1)

    def _is_worker(self, process: psutil.Process) -> bool:
        """Whether a process was started here, and is neither the scheduler nor dead."""
        try:
            ours = process.environ().get(MARK) == self.address and process.pid != self._head.pid
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> OwnScheduler:
        deadline = time.monotonic() + 60
        while not cluster._listens(self.address):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill_nannies()
        self.kill_scheduler()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
