"""Losses: how wrong scores are, as one number to be made small. Pixels without a label count nowhere.

A network of one score (decision `threshold`) is one of two classes whose background scores 0: softmax of `(0, s)` is
the sigmoid of `s`, so each loss is defined once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from tilesseg.raster.labels import IGNORED
from tilesseg.training.train_spec import Loss

GAMMA = 2.0
"""Exponent of the focal loss: a pixel of probability 0.9 weighs a hundredth."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Loss, a scalar, of scores `(n, channel, y, x)` before activation and labels `(n, y, x)`; 0 without a label."""


class _Pixels(NamedTuple):
    """Scores and labels of a batch in the form that each loss takes; ignored pixels have zeros."""

    log_shares: Tensor
    """Logarithms of the classes' probabilities, `(n, class, y, x)`."""
    target: Tensor
    """1 for the class of a labelled pixel, else 0; of the same shape."""


def loss_function(options: Loss, *, weights: Sequence[float] | None = None) -> LossFunction:
    """Loss that a spec asks for: the sum of its kinds.

    Args:
        options: section `loss`.
        weights: weight of each class in cross-entropy and focal loss, see `class_weights`; None for equal ones.
    """
    parts = [_KINDS[kind] for kind in options.kind.split("+")]

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        pixels = _pixels(scores, labels)
        classes = pixels.target.shape[1]
        each = torch.tensor(weights or (1.0,) * classes, dtype=torch.float32, device=scores.device)
        return torch.stack([part(pixels, each) for part in parts]).sum()

    return loss


def class_weights(options: Loss, counts: Sequence[int]) -> tuple[float, ...] | None:
    """Weights of the classes by `loss.weights`; `balanced` is one over the share, of mean 1 over the classes present.

    Args:
        options: section `loss`.
        counts: number of labelled pixels of each class in the part that trains.

    Returns:
        One number for each class, 0 for a class without a pixel; None where all weigh the same.
    """
    if options.weights == "none":
        return None
    if options.weights != "balanced":
        return options.weights
    inverse = [1 / count if count else 0.0 for count in counts]
    present = sum(count > 0 for count in counts)
    return tuple(value * present / sum(inverse) for value in inverse) if present else None


def labels_of(scores: Tensor) -> Tensor:
    """Class of the highest score `(n, y, x)`; of one score, 1 from a probability of one half on."""
    return (scores[:, 0] >= 0).long() if scores.shape[1] == 1 else scores.argmax(1)


def _pixels(scores: Tensor, labels: Tensor) -> _Pixels:
    scores = scores.float()
    if scores.shape[1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
    known = labels != IGNORED
    truth = torch.where(known, labels, torch.zeros_like(labels)).long()
    target = one_hot(truth, scores.shape[1]).permute(0, 3, 1, 2) * known[:, None]
    return _Pixels(log_softmax(scores, dim=1) * known[:, None], target.to(scores.dtype))


def _focal(pixels: _Pixels, weights: Tensor, *, gamma: float) -> Tensor:
    """Mean of −(1 − p)^γ · log p over the labelled pixels, p being the probability of the true class.

    γ = 0 is cross-entropy, whose mean over weighted pixels is divided by their weights, as in torch. Source: Lin et
    al. (2017), https://arxiv.org/abs/1708.02002
    """
    log_share = (pixels.log_shares * pixels.target).sum(1)
    weight = (pixels.target * weights[:, None, None]).sum(1)
    cost = -log_share if gamma == 0 else -log_share * (1 - log_share.exp()) ** gamma
    total = weight.sum()
    return (cost * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _dice(pixels: _Pixels, _weights: Tensor) -> Tensor:
    """One less the mean soft Dice of the classes present, over the whole batch: a class of few pixels weighs as much.

    Source: Milletari et al. (2016), https://arxiv.org/abs/1606.04797, without the squares.
    """
    shares = pixels.log_shares.exp() * pixels.target.sum(1, keepdim=True)  # none of an ignored pixel
    true = pixels.target.sum((0, 2, 3))
    present = (true > 0).to(true.dtype)
    both = shares.sum((0, 2, 3)) + true
    dice = 2 * (shares * pixels.target).sum((0, 2, 3)) / torch.where(both > 0, both, torch.ones_like(both))
    number = present.sum()
    return torch.where(number > 0, 1 - (dice * present).sum() / number.clamp(min=1), both.sum() * 0)


_KINDS: dict[str, Callable[[_Pixels, Tensor], Tensor]] = {
    "ce": partial(_focal, gamma=0.0),
    "focal": partial(_focal, gamma=GAMMA),
    "dice": _dice,
}
