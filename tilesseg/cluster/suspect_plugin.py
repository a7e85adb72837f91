"""Plugin of a scheduler that somebody else started: a client's tasks are suspects at the first death of their worker.

Such a scheduler gives a task that kills its worker to as many further workers as its `allowed-failures` says, three as
Dask delivers it. Schedulers that tilesseg starts are configured, see `launch_arguments.SCHEDULER`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed import SchedulerPlugin

from tilesseg.errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from distributed import Client, Scheduler


class Suspects(SchedulerPlugin):
    """Plugin that changes nothing for other clients, and leaves the scheduler with its own client."""

    def __init__(self, client: str) -> None:
        self.client, self.name = client, f"tilesseg-suspects-{client}"

    def update_graph(self, scheduler: Scheduler, *, client: str, keys: Collection[Any], **more: Any) -> None:
        """Have one death of a worker end each of the client's new tasks."""
        if client == self.client:
            for key in keys:
                scheduler.tasks[key].suspicious = scheduler.allowed_failures

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Leave with the client."""
        if client == self.client and self.name in scheduler.plugins:
            scheduler.remove_plugin(name=self.name)


def suspect_at_once(client: Client) -> str:
    """Have the scheduler return a client's tasks at the first death of their worker; returns why it does not, or ""."""
    try:
        client.register_plugin(Suspects(client.id))
    except Exception as error:
        # ^ of any kind: a scheduler without tilesseg, or one that takes no plugins, still works
        return (
            f"the scheduler gives a tile that kills its worker to further workers ({reason_of(error)}); install "
            "tilesseg there, or set its distributed.scheduler.allowed-failures to 0"
        )
    return ""
