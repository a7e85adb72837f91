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


class OwnScheduler:
    """A scheduler and workers with nannies, as somebody starts them by hand; they end with the context."""

    def __init__(self, folder: Path, *, workers: int = 1, threads: int = 2) -> None:
        folder.mkdir()
        self.folder, self.workers, self.threads = folder, workers, threads
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._nannies: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        """Start the scheduler, at the address at which it was before, and workers, which never come back to another."""
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
        """End the workers for good, their nannies first."""
        for nanny in self._nannies:
            for process in (psutil.Process(nanny.pid), *psutil.Process(nanny.pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            nanny.wait(30)
        self._nannies = []

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
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
