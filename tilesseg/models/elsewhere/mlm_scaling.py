"""Value scaling of STAC MLM, `mlm:input[].value_scaling`, from and to the normalisation of a spec.

The format has one operation for each band, and no chain of operations. Older items (before 1.3) have `norm_type` and
`statistics` in its place. Source: README of the extension, "Value Scaling Object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilesseg.errors import ModelError
from tilesseg.models.spec import Normalise

LINEAR = ("min-max", "z-score", "offset", "scale", None)
"""Types of an operation `(value − subtract) ÷ divide`; None leaves a band as it is."""
_OLD = {"min-max": ("minimum", "maximum"), "z-score": ("mean", "stddev")}


def normalise_of_scaling(described: Mapping[str, Any], *, bands: int, where: str) -> dict[str, Any]:
    """Section `normalise` of a spec, as plain data, from a Model Input Object.

    Raises:
        ModelError: an operation that a spec cannot express, or a number of operations that does not fit the bands.
    """
    steps = described.get("value_scaling") or _old_scaling(described, where)
    if not steps:
        return {"kind": "none"}
    if len(steps) == 1:
        steps = [*steps] * bands
    if len(steps) != bands:
        raise ModelError(f"{where} has {len(steps)} value_scaling for {bands} bands; write one for each band, or one")
    kinds = {step.get("type") for step in steps}
    if kinds <= {"clip", "clip-min", "clip-max"} and all(step == steps[0] for step in steps):
        return {"kind": "none", "clip": _clip(steps[0])}
    for kind in kinds:
        if kind not in LINEAR:
            raise ModelError(
                f"{where} scales values by {kind}, which tilesseg cannot represent; write a model.yaml for this network"
            )
    if kinds == {"min-max"}:
        low, high = ([float(step[key]) for step in steps] for key in ("minimum", "maximum"))
        return {"kind": "range", "low": low, "high": high}
    pairs = [_linear(step) for step in steps]
    return {"kind": "mean_std", "mean": [each for each, _ in pairs], "std": [each for _, each in pairs]}


def range_of_scaling(described: Mapping[str, Any]) -> tuple[float, float] | None:
    """Range of the imagery that `min-max` and `clip` state: from the least to the largest end; None without them."""
    steps = described.get("value_scaling") or ()
    if not steps or any(step.get("type") not in ("min-max", "clip") for step in steps):
        return None
    return min(float(step["minimum"]) for step in steps), max(float(step["maximum"]) for step in steps)


def scaling_of(rule: Normalise, scaling: tuple[float, float], *, bands: int) -> list[dict[str, Any]] | None:
    """`value_scaling` of a normalisation; None where one operation for each band does not say it."""
    if scaling != (1.0, 0.0) or rule.sigmoid or rule.binarize is not None or rule.needs_scene:
        return None
    if rule.kind == "none":
        ends = rule.clip and {"type": "clip", "minimum": rule.clip[0], "maximum": rule.clip[1]}
        return [ends] * bands if ends else None
    if rule.clip is not None:
        return None
    names = {"range": ("min-max", "minimum", "maximum"), "mean_std": ("z-score", "mean", "stddev")}
    kind, first, second = names[rule.kind]
    values = (rule.low, rule.high) if rule.kind == "range" else (rule.mean, rule.std)
    pairs = zip(*(_each(value, bands) for value in values), strict=True)
    return [{"type": kind, first: low, second: high} for low, high in pairs]


def _each(value: float | Sequence[float] | None, bands: int) -> list[float]:
    assert value is not None  # of a complete spec
    return list(value) if isinstance(value, Sequence) else [value] * bands


def _old_scaling(described: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Operations of the older keys `norm_type` and `statistics`."""
    kind = described.get("norm_type")
    if kind is None:
        return []
    if kind not in _OLD:
        raise ModelError(f"{where} has norm_type {kind}, tilesseg knows {' and '.join(_OLD)}; write a model.yaml")
    statistics = described.get("statistics") or []
    return [{"type": kind, **{key: each[key] for key in _OLD[kind]}} for each in statistics]


def _linear(step: Mapping[str, Any]) -> tuple[float, float]:
    """Value to subtract, and value to divide by."""
    kind = step.get("type")
    if kind == "min-max":
        low, high = float(step["minimum"]), float(step["maximum"])
        return low, high - low
    if kind == "z-score":
        return float(step["mean"]), float(step["stddev"])
    return (float(step["value"]) if kind == "offset" else 0.0, float(step["value"]) if kind == "scale" else 1.0)


def _clip(step: Mapping[str, Any]) -> list[float]:
    largest = 3.4e38
    return [float(step.get("minimum", -largest)), float(step.get("maximum", largest))]
