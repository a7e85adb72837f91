"""Shares of a run for processes that work without a scheduler between them, as the jobs of a job array do."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from tilesseg.finding import Scene


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several processes that share a run without a scheduler between them."""

    number: int
    """From 1."""
    of: int

    def has(self, scene: str, tile: int) -> bool:
        """Whether the tile of this number is this process's affair. Neighbours go to different shards."""
        return (zlib.crc32(scene.encode()) + tile) % self.of == self.number - 1

    def turned(self, scenes: Iterable[Scene]) -> list[Scene]:
        """The scenes beginning elsewhere for each shard, so that they do not all plan the same one."""
        found = list(scenes)
        start = len(found) * (self.number - 1) // self.of
        return found[start:] + found[:start]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """`3/8` as a shard.

    Raises:
        JobError: it is not two numbers, the first from 1 to the second.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise JobError(f"--shard {text} is not I/N with I from 1 to N; give --shard 1/8 to --shard 8/8")
    return Shard(int(number), int(of))
