"""The section `faults` of a job: when a tile is given up, and when a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tilesseg.planning.cluster_options import DURATION, Auto, Strict, seconds_of

LEAST, MULTIPLE = 600.0, 20.0
"""Seconds without a step after which a tile is given up, at least, and the multiple of the longest step so far: a busy
machine, a slow file server or a large batch must not cost a good tile."""


@dataclass(frozen=True, slots=True)
class TileLimit:
    """Time within which a tile has to make its next step."""

    seconds: float | None
    """Number of seconds; None: there is no limit."""
    grows: bool = False
    """Whether the limit grows with the longest step so far."""

    def after(self, longest_step: float) -> float | None:
        """Number of seconds after which a tile is given up; `longest_step`: seconds of the longest step so far."""
        if self.seconds is None or not self.grows:
            return self.seconds
        return max(self.seconds, MULTIPLE * longest_step)

    def __str__(self) -> str:
        if self.seconds is None:
            return "a tile may take for ever (faults.tile_timeout none)"
        more = f", or {MULTIPLE:.0f} times its worker's longest step," if self.grows else ""
        name = "auto" if self.grows else f"{self.seconds:g}s"
        return f"a tile without a step for {self.seconds:g} s{more} is given up (faults.tile_timeout {name})"


NO_LIMIT = TileLimit(None)


class Faults(Strict):
    """Section `faults`: when a tile is given up, and when a run."""

    tile_timeout: Annotated[str, Field(pattern=DURATION)] | Auto | Literal["none"] = "auto"
    """Time without a step (pixels read, a batch computed, rows written) after which a tile is given up, as `30m`;
    `none`, or `auto`: 10 minutes, or 20 times the longest step of its worker where that is more."""
    max_failed: int | None = Field(None, ge=0)
    """Largest number of failed tiles with which a run goes on; default: any number."""

    @property
    def tile_limit(self) -> TileLimit:
        """Time within which a tile has to make its next step."""
        match self.tile_timeout:
            case "none":
                return NO_LIMIT
            case "auto":
                return TileLimit(LEAST, grows=True)
            case given:
                return TileLimit(seconds_of(given))
