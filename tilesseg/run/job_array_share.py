"""Share of a run that one element of a job array computes, without a scheduler between the elements."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from tilesseg.planning.scene_list import Scene


@dataclass(frozen=True, slots=True)
class ArrayShare:
    """Tiles of a run that one of several processes computes; the other processes compute the other tiles."""

    number: int
    """Number of the process, from 1."""
    of: int
    """Number of processes that share the run."""

    def has(self, scene: str, tile: int) -> bool:
        """Whether the tile of this number belongs to the share. Neighbouring tiles go to different shares."""
        return (zlib.crc32(scene.encode()) + tile) % self.of == self.number - 1

    def turned(self, scenes: Iterable[Scene]) -> list[Scene]:
        """Scenes in the order in which this process plans them.

        The scenes are cut into groups of as many as there are processes, and each process begins a group with another
        scene. So no two processes plan the same scene at the same time, and yet all go through the job together: by
        priority, and with few copies of images on the disk at the same time.
        """
        ordered = list(scenes)
        groups = (ordered[start : start + self.of] for start in range(0, len(ordered), self.of))
        turns = ((group, (self.number - 1) % len(group)) for group in groups)
        return [scene for group, turn in turns for scene in group[turn:] + group[:turn]]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_share(text: str) -> ArrayShare:
    """Share that a text like `3/8` names.

    Raises:
        JobError: the text is not two numbers, the first from 1 to the second.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise JobError(f"--part {text} is not I/N with I from 1 to N; give --part 1/8 to --part 8/8")
    return ArrayShare(int(number), int(of))
