"""Ensembles: several models whose scores are averaged, and the one contract that patches have to keep for all of them.

Members have to agree about what they see and what they say: bands, pixel size, fill, classes and decision.
Normalisation, activation, architecture and engine are each member's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import lcm
from typing import Any

from tilesseg.errors import ModelError
from tilesseg.models.runtime_choice import NATIVE, Choice
from tilesseg.models.spec import ModelSpec, PatchSizes
from tilesseg.models.trial.model_trial import Trial


@dataclass(frozen=True, slots=True)
class Member:
    """A model of an ensemble."""

    model: str
    """Reference of the model that is valid in any worker process."""
    sha256: str
    spec: ModelSpec
    choice: Choice = NATIVE
    """Runtime and precision."""
    trial: Trial | None = None

    @property
    def made_from(self) -> list[Any]:
        """Everything about the member that the mask depends on."""
        return [self.sha256, self.choice.runtime, self.choice.precision]


def common_contract(specs: Sequence[ModelSpec], *, turns: int = 1) -> ModelSpec:
    """Contract for all members of an ensemble, and for all turns of a patch; that of a single model is its own.

    Sides of patches are legal for all members. With turns a side is one of those whose both ends lie alike on the
    stride multiple, so that a turned patch is pooled like a turned image.

    Args:
        specs: specs of the members, the first of which gives what they agree about.
        turns: number of turns and mirrors of a patch.

    Raises:
        ModelError: two members do not agree; both values are named.
    """
    first, *others = specs
    for other in others:
        _refuse_differences(first, other)
    if not others and turns == 1:
        return first
    patch = reduce(_common_patch, [spec.patch for spec in specs])
    if turns > 1:
        patch = patch.model_copy(update={"multiple": lcm(patch.multiple, patch.stride_multiple)})
    preferred = next((p for spec in specs if (p := spec.patch.preferred) and patch.legal(p)), None)
    margins = [spec.margin for spec in specs if spec.margin is not None]
    return first.model_copy(
        update={
            "name": " + ".join(spec.name for spec in specs),
            "licence": ", ".join(dict.fromkeys(spec.licence for spec in specs)),
            "patch": patch.model_copy(update={"preferred": preferred}),
            "margin": max(margins) if len(margins) == len(specs) else None,
        }
    )


def _refuse_differences(first: ModelSpec, other: ModelSpec) -> None:
    """Refuse two members that see or say different things.

    Raises:
        ModelError: they do.
    """
    for what, read in _AGREED.items():
        ours, theirs = read(first), read(other)
        if ours != theirs:
            raise ModelError(
                f"models {first.name} and {other.name} cannot be averaged: {what} {ours} and {theirs}; give models "
                "that agree"
            )


def _common_patch(one: PatchSizes, other: PatchSizes) -> PatchSizes:
    """Sides that both members take, aligned with the stride multiples of both; the widest border is left out.

    Raises:
        ModelError: no side is legal for both.
    """
    shrink = max(one.shrink, other.shrink)
    trusted = max(sizes.shrink // 2 + sizes.halo for sizes in (one, other))
    multiple = lcm(one.multiple, other.multiple)
    least = max(one.at_least(shrink + 1), other.at_least(shrink + 1))
    fixed = one.fixed or other.fixed
    sides = [fixed] if fixed else range(least, least + multiple)
    side = next((side for side in sides if one.legal(side) and other.legal(side)), None)
    if side is None:
        raise ModelError(
            f"no patch fits all models: one takes sides of {one.rule}, another {other.rule}; give models with a side "
            "in common"
        )
    return PatchSizes(
        fixed=fixed,
        offset=0 if fixed else side,
        multiple=multiple,
        stride_multiple=lcm(one.stride_multiple, other.stride_multiple),
        shrink=shrink,
        halo=trusted - shrink // 2,
    )


def _pixels(spec: ModelSpec) -> str:
    sizes = [f"{spec.resolution:g} m"] if spec.resolution else []
    return " and ".join([*sizes, *([f"{spec.mpp:g} µm"] if spec.mpp else [])]) or "any size"


def _decision(spec: ModelSpec) -> str:
    rule = spec.decision
    if rule.threshold is None:
        return rule.kind
    return f"{rule.kind} {rule.threshold:g}" + (" with background" if rule.background else "")


_AGREED: Mapping[str, Callable[[ModelSpec], str]] = {
    "their bands are": lambda spec: ", ".join(spec.bands),
    "their pixels are of": _pixels,
    "they fill invalid pixels with": lambda spec: f"{spec.fill:g}",
    "their classes are": lambda spec: ", ".join(each.name for each in spec.classes),
    "their decisions are": _decision,
}
"""Things that members have to agree about, with the text of each for people."""
