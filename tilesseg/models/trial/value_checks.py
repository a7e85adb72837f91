"""Values that a network gives in its trial, against the activation, decision and classes of its spec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.doubts import doubt
from tilesseg.models.network import activate
from tilesseg.models.shape_advice import LABELS, score_problem
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.trial_batches import Answers

BACKGROUND = re.compile(r"back[ _-]?ground|bg|others?|none|nothing|void|unlabell?ed|clear|no[ _-].*")
"""Names of a class for the pixels that belong to no other class."""
ROUNDING = 1e-3
"""Tolerance of activated scores: networks in half precision round them."""


def shape_refusal(spec: ModelSpec, answers: Answers, larger: int) -> str | None:
    """Sentence about outputs of a shape that the spec does not promise; None if both have the promised one."""
    whole = is_whole(answers.first)
    problem = score_problem(spec, answers.patches.shape, answers.first.shape, whole=whole)
    if problem:
        return problem
    given = (len(answers.second), len(spec.bands), larger, larger)
    return score_problem(spec, given, answers.second.shape, whole=whole)


def value_refusal(spec: ModelSpec, answers: Answers) -> str | None:
    """Sentence about values that make the mask wrong: activated twice, or labels in place of scores."""
    values, name = answers.first, f"model {spec.name}"
    if spec.score_channels == 1 and is_whole(values) and values.max() > 1:
        return (
            f"{name} gives whole numbers up to {values.max():.0f}, not scores: labels, or numbers of objects; {LABELS}"
        )
    if spec.activation == "none" or np.ptp(values) == 0:
        return None
    if spec.score_channels > 1 and sums_to_one(values) and sums_to_one(answers.second):
        return (
            f"{name} gives scores between 0 and 1 that sum to 1, so softmax is inside already, and its spec says "
            f"activation: {spec.activation}; set activation: none"
        )
    if all(within_unit(each) for each in (values, answers.second, answers.far)):
        wrong = "every score would reach 0.5" if spec.activation == "sigmoid" else "all scores would be nearly alike"
        return (
            f"{name} gives scores between {values.min():.2g} and {values.max():.2g} whatever the input, so an "
            f"activation is inside already; its spec says {spec.activation}, and {wrong}; set activation: none"
        )
    return None


def value_doubts(spec: ModelSpec, answers: Answers) -> Iterator[str]:
    """Doubts about values that may be meant as they are."""
    values, limit = answers.first, spec.decision.threshold
    if not np.isfinite(values).all():
        return
    if spec.activation == "none" and limit is not None and 0 < limit < 1 and not within_unit(values):
        yield doubt(
            "scores-not-activated",
            f"the network gives scores from {values.min():.3g} to {values.max():.3g}, and the threshold {limit:g} is "
            "compared with them as they are: a network that gives logits needs activation: sigmoid",
        )
    if spec.activation == "none" and is_whole(values) and np.ptp(values) == 1 and values.min() == 0:
        yield doubt(
            "labels-not-scores",
            "the network gives 0 or 1 in place of scores, so where patches overlap they vote; export it before its "
            "last step",
        )
    yield from _background(spec, values)


def _background(spec: ModelSpec, values: NDArray[Any]) -> Iterator[str]:
    """Doubt about scores of their own of which none is the background's."""
    if spec.decision.kind == "threshold" or any(BACKGROUND.fullmatch(one.name.lower()) for one in spec.classes):
        return
    apart = spec.activation == "sigmoid" or (
        spec.activation == "none" and within_unit(values) and not sums_to_one(values) and np.ptp(values) > 0
    )
    if apart:
        scores = activate(values, spec.activation)
        share = float((scores.max(axis=1) < 0.5).mean())
        yield doubt(
            "no-background",
            f"each class has a score of its own, and none is the background: in the trial {share:.1%} of the pixels "
            "reach 0.5 in no class, and get one; if they are background, name it first and set decision: {kind: "
            "threshold, background: true}",
        )


def is_whole(values: NDArray[Any]) -> bool:
    """Whether all values are finite whole numbers."""
    return values.size > 0 and bool(np.isfinite(values).all()) and bool((values == np.rint(values)).all())


def within_unit(values: NDArray[Any]) -> bool:
    """Whether all finite values lie between 0 and 1."""
    finite = values[np.isfinite(values)]
    return finite.size > 0 and bool(finite.min() >= -ROUNDING and finite.max() <= 1 + ROUNDING)


def sums_to_one(values: NDArray[Any]) -> bool:
    """Whether the scores of each pixel lie between 0 and 1 and sum to 1."""
    if not np.isfinite(values).all() or not within_unit(values):
        return False
    return bool(np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() <= 10 * ROUNDING)
