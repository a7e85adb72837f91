"""Laws of the loss: it is what NumPy says pixel by pixel, and an ignored pixel changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tilesseg.raster.labels import IGNORED
from tilesseg.training.losses import class_weights, labels_of, loss_function
from tilesseg.training.train_spec import Loss


def batch(seed: int, classes: int, channels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (2, channels or classes, 5, 6)).astype(np.float32)
    labels = rng.integers(0, classes, (2, 5, 6)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = IGNORED
    return torch.from_numpy(scores), torch.from_numpy(labels)


def brute_force(scores: NDArray[Any], labels: NDArray[Any], kind: str, weights: tuple[float, ...] | None) -> float:
    """Loss by a Python loop over the pixels, in float64."""
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    classes = scores.shape[1]
    weights = weights or (1.0,) * classes
    cost = weight = 0.0
    both, hits, true = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for n, y, x in np.ndindex(labels.shape):
        label = int(labels[n, y, x])
        if label == IGNORED:
            continue
        powers = np.exp(scores[n, :, y, x].astype(np.float64))
        shares = powers / powers.sum()
        focus = (1 - shares[label]) ** 2 if kind == "focal" else 1.0
        cost += -np.log(shares[label]) * focus * weights[label]
        weight += weights[label]
        both += shares
        both[label] += 1
        hits[label] += shares[label]
        true[label] += 1
    if kind == "dice":
        return float(1 - np.mean((2 * hits / both)[true > 0])) if true.any() else 0.0
    return cost / weight if weight else 0.0


@pytest.mark.parametrize("kind", ["ce", "dice", "focal"])
@pytest.mark.parametrize(("classes", "channels"), [(3, None), (2, None), (2, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_equals_brute_force(kind: str, classes: int, channels: int | None, weighted: bool) -> None:
    weights = (0.5, 2.0, 1.25)[:classes] if weighted else None
    scores, labels = batch(1, classes, channels)
    found = loss_function(Loss(kind=kind), weights=weights)(scores, labels)
    assert found.item() == pytest.approx(brute_force(scores.numpy(), labels.numpy(), kind, weights), rel=1e-5)


def test_a_sum_is_the_sum_of_its_kinds() -> None:
    scores, labels = batch(2, 3)
    parts = [loss_function(Loss(kind=kind))(scores, labels).item() for kind in ("ce", "dice", "focal")]
    assert loss_function(Loss(kind="ce+dice+focal"))(scores, labels).item() == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize("kind", ["ce", "dice", "focal", "ce+dice"])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_ignored_pixel_changes_neither_loss_nor_gradient(kind: str, channels: int) -> None:
    scores, labels = batch(3, 2, channels)
    other = torch.where((labels == IGNORED)[:, None], scores * -3 + 7, scores)
    results = []
    for values in (scores, other):
        values = values.clone().requires_grad_()
        loss = loss_function(Loss(kind=kind))(values, labels)
        loss.backward()
        assert values.grad is not None
        assert not values.grad[(labels == IGNORED)[:, None].expand_as(values)].any()
        results.append((loss.item(), torch.where((labels == IGNORED)[:, None], 0, values.grad)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("kind", ["ce", "dice", "focal", "ce+dice"])
def test_a_batch_without_a_label_costs_nothing_and_teaches_nothing(kind: str) -> None:
    scores = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = loss_function(Loss(kind=kind))(scores, torch.full((1, 4, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_certain_and_right_costs_nothing() -> None:
    labels = torch.tensor([[[0, 1], [1, 2]]])
    scores = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float() * 1e4
    assert loss_function(Loss(kind="ce+dice+focal"))(scores, labels).item() == pytest.approx(0, abs=1e-6)


def test_one_score_costs_as_two_of_which_the_first_is_zero() -> None:
    scores, labels = batch(4, 2, 1)
    two = torch.cat([torch.zeros_like(scores), scores], dim=1)
    loss = loss_function(Loss(kind="ce+dice"))
    assert torch.equal(loss(scores, labels), loss(two, labels))
    assert torch.equal(labels_of(scores), (torch.sigmoid(scores[:, 0]) >= 0.5).long())


def test_balanced_weights_are_one_over_the_share_of_mean_one() -> None:
    balanced = Loss(weights="balanced")
    assert class_weights(balanced, (90, 10)) == pytest.approx((0.2, 1.8))
    assert class_weights(balanced, (90, 0, 10)) == pytest.approx((0.2, 0.0, 1.8))
    assert class_weights(Loss(weights=(1.0, 3.0)), (90, 10)) == (1.0, 3.0)
    assert class_weights(Loss(), (90, 10)) is None
