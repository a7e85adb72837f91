"""Small batches of a trial: imagery that a spec allows, and how a network answers or fails on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.shape_advice import LAST
from tilesseg.models.spec import ModelSpec

Run = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Function from normalised patches `(n, channel, y, x)` to what the network gives, before activation, of any shape."""
SMALL = 64
"""Side of a small patch, where the spec allows it."""
SIDES = (16, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 512, 640, 768, 1024)
"""Sides that are tried where a network refuses a side that its spec allows."""
FAR = 1000.0
"""Factor of normalised values with which activated scores stay between 0 and 1, and others do not."""
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """Outputs of a network for its first batches."""

    patches: NDArray[np.float32]
    first: NDArray[Any]
    """Output for `patches`."""
    second: NDArray[Any]
    """Output for larger patches, or for the same where the side is fixed."""
    far: NDArray[Any]
    """Output for values far outside of any imagery."""
    refused_side: int | None
    """A side that the spec allows and the network refuses; None if there is none among those that were tried."""


def normalised_patches(spec: ModelSpec, side: int, *, number: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Normalised patches `(number, channel, side, side)` of squares and noise within the spec's `input_range`."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((number, len(spec.bands), *(-(-side // _BLOCK),) * 2))
    values = np.kron(coarse, np.ones((_BLOCK, _BLOCK)))[..., :side, :side]
    values = 0.7 * values + 0.3 * generator.random(values.shape)
    low, high = spec.input_range
    raw = (low + (high - low) * values).astype(np.float32)
    n, scale, offset = len(spec.bands), *spec.scaling
    middle, spread = (low + high) / 2 * scale + offset, abs((high - low) * scale) / 4
    statistics = ((middle,) * n, (spread,) * n) if spec.normalise.needs_scene else (None, None)
    return spec.normalisation(*statistics).apply(raw)


def small_sides(spec: ModelSpec) -> tuple[int, int]:
    """Two small sides that the spec allows; twice the same where it is fixed."""
    sizes = spec.patch
    first = sizes.at_least(SMALL + sizes.shrink + 2 * sizes.halo)
    second = sizes.at_least(first + SMALL // 2)
    return first, second if second <= 2 * SIDES[-1] else first


def first_answers(spec: ModelSpec, run: Run) -> Answers:
    """Run the first batches.

    Raises:
        ModelError: the network takes none of them, with the reason as far as other batches show it.
    """
    side, larger = small_sides(spec)
    patches = normalised_patches(spec, side, number=2 if side <= SIDES[-4] else 1)
    try:
        first = run(patches)
        second = first if larger == side else run(normalised_patches(spec, larger, number=1, seed=1))
    except ModelError as error:
        raise ModelError(_failure(spec, run, error)) from None
    return Answers(patches, first, second, run(FAR * patches), _refused_side(spec, run, side))


def _refused_side(spec: ModelSpec, run: Run, side: int) -> int | None:
    """The next larger side that the spec allows, if the network refuses it or gives scores of another size for it."""
    odd = spec.patch.at_least(side + 1)
    if odd == side or odd > 4 * SMALL:
        return None
    try:
        got = run(normalised_patches(spec, odd, number=1)).shape
    except ModelError:
        return odd
    return None if got[-1] == odd - spec.patch.shrink or len(got) != 4 else odd


def _failure(spec: ModelSpec, run: Run, error: ModelError) -> str:
    """Sentence about a network that refuses patches: the kind of patches that it takes."""
    name = f"model {spec.name}"
    side, _ = small_sides(spec)
    turned = np.ascontiguousarray(np.moveaxis(normalised_patches(spec, side), 1, 3))
    if _takes(run, turned):
        return f"{name} takes channels last (n, y, x, channel), tilesseg gives (n, channel, y, x); {LAST}"
    text = str(error)
    for words, kind in ((("Half", "float16"), "float16"), (("BFloat16",), "bfloat16"), (("Double",), "float64")):
        if any(word in text for word in words):
            return f"{name} has parameters of {kind}, tilesseg gives float32; export it in float32, with model.float()"
    if any(word in text for word in ("Byte", "uint8")):
        return f"{name} takes uint8, tilesseg gives float32; export it with a float32 input"
    if any(word in text.lower() for word in ("out of memory", "no memory")):
        return text
    taken, rule = sides_taken(spec, run), f"and its spec says {spec.patch.rule}"
    if len(taken) == 1:
        only = taken[0]
        return f"{name} was exported for patches of {only} px alone, {rule}; set patch.fixed: {only}"
    if taken and (multiple := math.gcd(*taken)) > 1:
        sides = ", ".join(map(str, taken))
        return f"{name} takes sides of {sides} px and not of {side}, {rule}; set patch.multiple: {multiple}"
    return text


def sides_taken(spec: ModelSpec, run: Run, *, most: int = 4) -> tuple[int, ...]:
    """The smallest sides of `SIDES` that a network takes, at most `most`."""
    taken: list[int] = []
    for side in SIDES:
        if _takes(run, np.zeros((1, len(spec.bands), side, side), np.float32)):
            taken.append(side)
        if len(taken) == most:
            break
    return tuple(taken)


def _takes(run: Run, patches: NDArray[np.float32]) -> bool:
    try:
        run(patches)
    except ModelError:
        return False
    return True
