"""Generations: the number of each execution of a run, by which work of an earlier execution is told from that of now.

A worker may still compute a tile for a client that is long dead. Every execution takes the next number; an attempt
checks before everything that it publishes that its execution is still current, and gives up where it is not. Shares of
a job array work at the same time, each under its own number.

A rename cannot be fenced at every instant: an attempt that is stopped between the check and the rename, and goes on
after a later execution has done the tile, still replaces a shard. Its bytes are the same, unless the device computes
other bits each time; `tilesseg verify` finds a shard that its tile's record does not describe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilesseg.errors import RunDirectoryLost, Superseded, cannot
from tilesseg.store.ledger import read_json, writable, write_json
from tilesseg.store.locks import held

FILE = "generation.json"


@dataclass(frozen=True, slots=True)
class Generation:
    """Number of an execution of a run, or of a share of it."""

    run: Path
    """The run directory."""
    number: int
    """Number of the execution, from 1."""

    def check(self) -> None:
        """Let the execution write as long as it is current.

        Raises:
            Superseded: a later execution has taken over.
            RunDirectoryLost: the file of generations is gone.
        """
        try:
            current = json.loads((self.run / FILE).read_text(encoding="utf-8"))["current"]
        except (FileNotFoundError, NotADirectoryError):
            cause = f"{FILE} is gone, as if the directory had been removed"
            raise RunDirectoryLost(cannot(f"write {self.run}", cause, "run again")) from None
        if str(self.number) not in current:
            raise Superseded(
                f"execution {self.number} of {self.run} has been replaced by a later one; it writes no more"
            )


def next_generation(run: Path, *, share: str | None = None) -> Generation:
    """Take the next number for an execution that holds the lock of the run, or of its share; dead ones end.

    Args:
        run: the run directory.
        share: share of the run that the execution computes, as `3/8`; other shares go on while their locks are held.

    Raises:
        StoreError: the file cannot be read or written.
    """
    with writable(run), held(run / "locks" / "generation", wait=True):
        stored: dict[str, Any] = read_json(run / FILE) or {"last": 0, "current": {}}
        number = int(stored["last"]) + 1
        others = stored["current"] if share else {}
        current = {n: who for n, who in others.items() if who and who != share and _works(run, who)}
        write_json(run / FILE, {"last": number, "current": {**current, str(number): share or ""}})
    return Generation(run, number)


def share_lock(run: Path, share: str) -> Path:
    """File whose lock the process of a share holds."""
    return run / "locks" / f"shard-{share.replace('/', '-of-')}"


def _works(run: Path, share: str) -> bool:
    """Whether a process computes a share now."""
    with held(share_lock(run, share)) as free:
        return not free
