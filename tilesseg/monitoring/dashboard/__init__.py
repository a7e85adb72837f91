"""The page `/tilesseg` in Dask's own dashboard, the same figures as JSON, and as Prometheus metrics.

The driver tells the scheduler what happens, in batches (`Publisher`); a plugin there keeps a `board.Board` for each
run and shows it. What a tile is doing right now comes with the heartbeats of the workers. Nothing happens per task.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

    from tilesseg.monitoring.dashboard.publisher import Publisher


def open_publisher(client: Client, *, run: Path, quick_look: bool = True) -> Publisher | str:
    """A listener that shows a run in the dashboard of its scheduler. It never fails a run, and never holds it up.

    Args:
        client: connected to the scheduler.
        run: the run directory.
        quick_look: whether to draw a small picture of each scene; it is read here, in the driver.

    Returns:
        The listener, to be closed at the end; or the one sentence why there is nothing to be seen.
    """
    from tilesseg.monitoring.dashboard.publisher import connect

    return connect(client, run=run, quick_look=quick_look)


__all__ = ["open_publisher"]
