"""Patches of the worst loss, for people to look at: where labels are wrong, a network that is right loses most.

The worst are kept as their step and number, since a patch is a function of both: what is drawn after a resume is what
would have been drawn without. They are those of the steps since the last validation, for the first steps lose most; of
several processes, the first keeps the worst of its own share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tilesseg.raster.labels import IGNORED

NUMBER = 20
"""Number of patches that are kept."""


class Batch(Protocol):
    """Patches of a step, as `patch_loader.TrainingBatch`."""

    @property
    def values(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...


class Share(Protocol):
    """Share of a process in each step, as `distributed.Processes`."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...


class Loader(Protocol):
    """Batches in order, as `patch_loader.PatchLoader`."""

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[Any]: ...


class WorstPatch(NamedTuple):
    """A patch of the worst loss."""

    loss: float
    step: int
    number: int
    """Number of the patch in its step."""
    batch: Batch
    """The patch alone."""


@torch.no_grad()
def patch_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled pixels of each patch, `(n,)`; 0 without one.

    Args:
        scores: `(n, channel, y, x)` before activation; of one channel, the logit of the second class.
        labels: `(n, y, x)` integers.
    """
    scores, labels = scores.float(), labels.to(scores.device).long()
    known = labels != IGNORED
    if scores.shape[1] == 1:
        each = binary_cross_entropy_with_logits(scores[:, 0], (labels * known).float(), reduction="none") * known
    else:
        each = cross_entropy(scores, labels, ignore_index=IGNORED, reduction="none")
    return each.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)


def keep_worst(kept: Iterable[Iterable[float]], losses: Tensor, step: int, share: Share) -> list[list[float]]:
    """The worst of those kept and of a step, as loss, step and number, the worst first.

    Args:
        kept: rows that are kept so far.
        losses: loss of each patch of this process.
        step: number of the step.
        share: share of this process: patch j of it is number rank + j · world of the step.
    """
    new = ([loss, step, share.rank + place * share.world] for place, loss in enumerate(losses.tolist()))
    return sorted([*map(list, kept), *new], key=lambda row: (-row[0], *row[1:]))[:NUMBER]


def worst_patches(kept: Iterable[Iterable[float]], loader: Loader, batch: int) -> Iterator[WorstPatch]:
    """The patches that are kept, read again.

    Args:
        kept: rows of `keep_worst`.
        loader: loader of the training.
        batch: number of patches in a step.
    """
    for loss, step, number in kept:
        (alone,) = loader.batches(int(step), int(step), rank=int(number), world=batch)
        yield WorstPatch(loss, int(step), int(number), alone)
