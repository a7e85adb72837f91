"""Counted scenes: the counts of blocks, which workers give in any order, are gathered by scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tilesseg.cluster.executors import Executor
from tilesseg.errors import SourceError
from tilesseg.evaluation.compared_scene import Block, ComparedScene, count_block
from tilesseg.evaluation.counts import Counts
from tilesseg.evaluation.evaluation import SceneResult

Progress = Callable[[int, int], None]
"""Function that is called with the numbers of counted and of all blocks."""


@dataclass
class Tally:
    """Counts of a scene so far: those of its blocks without scores, which are large, and their sum."""

    scene: ComparedScene
    total: Counts
    blocks: dict[Block, Counts] = field(default_factory=dict)
    problem: str | None = None

    def add(self, block: Block, answer: Counts | str) -> None:
        """Add the counts of a block, or the reason for which it has none."""
        if isinstance(answer, str):
            self.problem = self.problem or answer
        else:
            self.total, self.blocks[block] = self.total + answer, answer.without_scores()

    def result(self, blocks: Sequence[Block]) -> SceneResult:
        """Counts of the scene, its blocks in the given order.

        Raises:
            SourceError: a block could not be counted, or nothing is known.
        """
        if self.problem is not None:
            raise SourceError(self.problem)
        if not self.total.known:
            name, truth = self.scene.name, self.scene.truth
            raise SourceError(f"{truth}: no pixel is known of {name}; check its area and its nodata")
        return SceneResult(self.scene.name, tuple(self.blocks[block] for block in blocks), self.total)


def counted(
    blocks: Mapping[ComparedScene, Sequence[Block]], executor: Executor, progress: Progress | None
) -> dict[ComparedScene, Tally]:
    """Counts of each scene."""
    tallies = {scene: Tally(scene, Counts.none(len(scene.classes), scores=scene.scores)) for scene in blocks}
    every = [block for own in blocks.values() for block in own]
    for done, (block, answer) in enumerate(executor.map(_count, iter(every), lost=_lost), 1):
        tallies[block.scene].add(block, answer)
        if progress:
            progress(done, len(every))
    return tallies


def _count(block: Block) -> tuple[Block, Counts | str]:
    return block, count_block(block)


def _lost(block: Block, reason: str) -> tuple[Block, Counts | str]:
    return block, f"block {block.row}, {block.column} of {block.scene.name}: {reason}"
