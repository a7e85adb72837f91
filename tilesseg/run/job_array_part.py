"""Shares of a run for processes that work without a scheduler between them, as the jobs of a job array do."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from tilesseg.planning.scene_list import Scene


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
        """The scenes in groups of as many as there are shards, each shard beginning a group with another scene.

        So they do not all plan the same one, and yet go through the job together: by priority, and with few copies of
        images on the disk at the same time.
        """
        found = list(scenes)
        groups = (found[start : start + self.of] for start in range(0, len(found), self.of))
        turns = ((group, (self.number - 1) % len(group)) for group in groups)
        return [scene for group, turn in turns for scene in group[turn:] + group[:turn]]

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
