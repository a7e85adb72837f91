"""Limits of a run's failures: a model that fails from the beginning ends it, and so does a number of failed tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilesseg.errors import ModelError
from tilesseg.events import Event, TileDone, TileFailed

FIRST = 2
"""Number of tiles on which a network that has never worked fails before the run ends."""


@dataclass
class FaultLimits:
    """Account of an execution's failed tiles."""

    max_failed: int | None
    """Largest number of failed tiles with which the run goes on; None: any number."""
    any_done: Callable[[], bool]
    """Whether any tile of the run is done, by an earlier execution too."""
    failed: int = 0
    _worked: bool = False
    _first: list[TileFailed] = field(default_factory=list)

    def exceeded(self, event: Event) -> bool:
        """Take an event of the run; whether it goes on no longer.

        Raises:
            ModelError: the network has failed on the first tiles, and on every tile that was tried.
        """
        self._worked = self._worked or isinstance(event, TileDone)
        if isinstance(event, TileFailed):
            self.failed += 1
            self._judge(event)
        return self.max_failed is not None and self.failed > self.max_failed

    def _judge(self, event: TileFailed) -> None:
        """End the run where nothing but the network can be the reason: it fails on all tiles, and these are the first.

        A run of which a tile is done has a network that works, and bad tiles.
        """
        self._worked = self._worked or not event.network
        if self._worked:
            return
        self._first.append(event)
        if len(self._first) == FIRST and not self.any_done():
            tiles = " and ".join(f"{one.scene} {one.tile}" for one in self._first)
            raise ModelError(f"the network fails on the first tiles, {tiles}: {event.reason}; correct the model")

    @property
    def text(self) -> str:
        """Sentence on a run that goes on no longer."""
        return (
            f"the run ends early: failed tiles: {self.failed}, and faults.max_failed is {self.max_failed}; correct "
            "what fails, or set a larger number, and run again to go on"
        )
