"""Mean of scores: over the turns and mirrors of a patch, and over the networks of an ensemble.

A patch is turned, predicted, and its scores are turned back; the mean goes on as the scores of one network would. So
blending, margins and the decision know nothing of it, and the mask depends no more on the tiles than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.models.network import Call, Network, decide_patches
from tilesseg.models.spec import ModelSpec


class Computing(Protocol):
    """Anything that gives networks for calls: a loaded model, or a mean of several."""

    def network(self, call: Call) -> Network:
        """See `Model.network`."""


class Loaded(Computing, Protocol):
    """A loaded model, as far as an ensemble needs it."""

    @property
    def spec(self) -> ModelSpec: ...


@dataclass(frozen=True, slots=True)
class Averaged:
    """Models whose scores are averaged, each over `turns` turns and mirrors of a patch."""

    spec: ModelSpec
    """Contract of the whole, see `planning.ensemble`."""
    models: tuple[Loaded, ...]
    turns: int = 1

    def network(self, call: Call) -> Network:
        """See `Model.network`. Each model computes scores; the decision is made of their mean."""
        networks = [model.network(one) for model, one in zip(self.models, self._calls(call), strict=True)]
        threshold = self.spec.decision.threshold

        def network(patches: NDArray[Any]) -> NDArray[Any]:
            scores = mean_scores(networks, patches, turns=self.turns)
            return decide_patches(scores, threshold) if call.labels else scores

        return network

    def _calls(self, call: Call) -> list[Call]:
        """Calls of the models: each has its own normalisation, and leaves out what is left of the common margin."""
        around = call.margin + self.spec.patch.shrink // 2
        return [
            replace(call, normalisation=own, labels=False, others=(), margin=around - model.spec.patch.shrink // 2)
            for model, own in zip(self.models, (call.normalisation, *call.others), strict=True)
        ]


def mean_scores(networks: Sequence[Network], patches: NDArray[Any], *, turns: int) -> NDArray[np.float32]:
    """Mean of activated scores, `(n, score, p, q)`, over networks and turns.

    Summed in float64 in a fixed order, so that equal scores come back exactly.

    Args:
        networks: networks that give activated scores of one shape.
        patches: raw patches `(n, channel, P, P)`, square.
        turns: number of turns and mirrors: 1, 4 (quarter turns) or 8 (with mirrors).
    """
    total: NDArray[np.float64] | None = None
    for turn in range(turns):
        given = np.ascontiguousarray(turned(patches, turn))
        for network in networks:
            scores = turned_back(network(given), turn)
            if total is None:
                total = scores.astype(np.float64, order="C")
            else:
                total += scores
    assert total is not None, "there is at least one network and one turn"
    total /= turns * len(networks)
    return total.astype(np.float32)


def turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """View of square patches after one of the 8 turns: `turn % 4` quarter turns, mirrored before them from 4 on."""
    return np.rot90(values[..., ::-1] if turn >= 4 else values, turn % 4, axes=(-2, -1))


def turned_back(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """View of patches that undoes `turned`."""
    back = np.rot90(values, -(turn % 4), axes=(-2, -1))
    return back[..., ::-1] if turn >= 4 else back
