"""Pre- and postprocessing of a bioimage.io description, as the normalisation, activation and decision of a spec.

The steps before the network are one chain: fixed linear scalings, at most one statistic of the whole scene, clipping,
and at the end a sigmoid or a threshold. A step that does not fit into the chain is refused, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from tilesseg.errors import ModelError, first_problem
from tilesseg.models.spec import Decision, Normalise

EPS = 1e-6
"""Published default of `eps`."""
_FLOATS = ("float32", "float64")
_LARGEST = float(np.finfo(np.float32).max)
"""Other end of a clip that has a single end."""
Step = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Result of the steps so far: `value · gain + shift` per band, then a statistic, then the rest."""

    bands: int
    dtype: str
    gain: tuple[float, ...]
    shift: tuple[float, ...]
    statistic: Mapping[str, Any] | None = None
    clip: tuple[float, float] | None = None
    last: Mapping[str, Any] = field(default_factory=dict)


def normalise_of(steps: Sequence[Step], *, bands: int, dtype: str, where: str) -> tuple[Normalise, tuple[float, float]]:
    """Normalisation that an input's preprocessing makes, and the scaling `(scale, offset)` before it.

    Args:
        steps: names and arguments, in order.
        bands: channels of the input.
        dtype: data type of the image, as described.
        where: names the description in a refusal.

    Raises:
        ModelError: a step, or its place in the chain, that tilesseg cannot represent.
    """
    chain = _Chain(bands, dtype, (1.0,) * bands, (0.0,) * bands)
    for name, arguments in steps:
        try:
            chain = _STEPS[name](chain, arguments)
        except KeyError as error:
            missing = "is not known" if name not in _STEPS else f"has no {error.args[0]}"
            raise ModelError(f"{where}: preprocessing {name} {missing}; write a model.yaml for this network") from None
        except (ValueError, TypeError) as error:
            raise ModelError(f"{where}: preprocessing {name}: {error}; write a model.yaml for this network") from None
    try:
        return _normalise(chain, where)
    except ValidationError as error:
        raise ModelError(
            f"{where}: its preprocessing makes no normalisation: {first_problem(error)}; write a model.yaml for it"
        ) from None


def decision_of(
    steps: Sequence[Step], *, scores: int, probability: bool, independent: bool | None = None, where: str
) -> tuple[Literal["softmax", "sigmoid", "none"], Decision]:
    """Activation and decision of an output's postprocessing.

    Args:
        steps: names and arguments, in order.
        scores: channels of the output.
        probability: whether a single score is known to lie between 0 and 1.
        independent: whether several scores are known to be probabilities that exclude no other class and leave out the
            background, such as foreground and boundary; None if the example does not say: a sigmoid does then.
        where: names the description in a refusal.

    Raises:
        ModelError: a step is neither, or the scale of a single score is unknown.
    """
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    threshold: float | None = None
    for name, arguments in steps:
        if name in ("sigmoid", "softmax") and activation == "none" and threshold is None:
            _only(arguments, "axis")
            activation = "sigmoid" if name == "sigmoid" else "softmax"
        elif name == "binarize" and scores == 1 and threshold is None and "axis" not in arguments:
            threshold = float(np.nextafter(np.float32(arguments["threshold"]), np.float32(np.inf)))  # above, not at it
        elif name != "ensure_dtype" or (threshold is None and arguments.get("dtype") not in _FLOATS):
            raise ModelError(
                f"{where}: postprocessing {name} cannot be computed from blended scores; "
                "write a model.yaml for this network"
            )
    if scores > 1:
        apart = activation == "sigmoid" if independent is None else independent and activation != "softmax"
        return activation, Decision(kind="threshold", threshold=0.5, background=True) if apart else Decision()
    if threshold is None and not (probability or activation == "sigmoid"):
        raise ModelError(
            f"{where} gives a single score, not stated to be between 0 and 1; write a model.yaml with a threshold"
        )
    return activation, Decision(kind="threshold", threshold=0.5 if threshold is None else threshold)


def _normalise(chain: _Chain, where: str) -> tuple[Normalise, tuple[float, float]]:
    clip = chain.clip and tuple(max(-_LARGEST, min(_LARGEST, end)) for end in chain.clip)
    ends = {"clip": clip, **chain.last}
    gains, shifts = set(chain.gain), set(chain.shift)
    if chain.statistic is None and min(gains) > 0:
        mean = tuple(-b / a for a, b in zip(chain.gain, chain.shift, strict=True))
        std = tuple(1 / a for a in chain.gain)
        if gains == {1.0} and shifts == {0.0}:
            return Normalise(kind="none", **ends), (1.0, 0.0)
        return Normalise(kind="mean_std", mean=mean, std=std, **ends), (1.0, 0.0)
    if len(gains) > 1 or len(shifts) > 1 or 0.0 in gains:
        raise ModelError(
            f"{where}: preprocessing scales channels by {', '.join(f'{a:g}' for a in chain.gain)}, and then takes "
            "statistics or turns them round; write a model.yaml for this network"
        )
    return Normalise(**(chain.statistic or {"kind": "none"}), **ends), (gains.pop(), shifts.pop())


def _linear(chain: _Chain, gain: Any, shift: Any) -> _Chain:
    """Chain with `value · gain + shift` at its end; both are numbers, or a number for each band."""
    _open(chain)
    if chain.statistic or (chain.clip and not (isinstance(gain, float) and isinstance(shift, float) and gain > 0)):
        raise ValueError("it comes after clip or statistics of the scene")
    gains, shifts = (_each(value, chain.bands) for value in (gain, shift))
    clip = chain.clip and (chain.clip[0] * gains[0] + shifts[0], chain.clip[1] * gains[0] + shifts[0])
    return replace(
        chain,
        gain=tuple(a * g for a, g in zip(chain.gain, gains, strict=True)),
        shift=tuple(b * g + s for b, g, s in zip(chain.shift, gains, shifts, strict=True)),
        clip=clip,
    )


def _scale_linear(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    _only(arguments, "gain", "offset", "axis", "axes")
    return _linear(chain, _number(arguments.get("gain", 1.0)), _number(arguments.get("offset", 0.0)))


def _fixed(chain: _Chain, arguments: Mapping[str, Any], *, eps: float = 0.0) -> _Chain:
    """`(value − mean) ÷ (std + eps)`, with published numbers."""
    _only(arguments, "mean", "std", "axis", "axes", "eps", "mode")
    mean, std = (_each(_number(arguments[key]), chain.bands) for key in ("mean", "std"))
    gains = tuple(1 / (each + eps) for each in std)
    shifts = tuple(-m * g for m, g in zip(mean, gains, strict=True))
    same = len(set(gains)) == len(set(shifts)) == 1
    return _linear(chain, gains[0] if same else gains, shifts[0] if same else shifts)


def _zero_mean(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    if arguments.get("mode", "fixed" if "mean" in arguments else "per_sample") == "fixed":
        return _fixed(chain, arguments, eps=_number(arguments.get("eps", EPS)))
    _only(arguments, "axes", "eps", "mode")
    return _of_scene(chain, arguments, kind="scene_mean_std")


def _scale_range(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    _only(arguments, "axes", "eps", "mode", "min_percentile", "max_percentile", "reference_tensor")
    if arguments.get("reference_tensor") is not None:
        raise ValueError(f"its percentiles are those of {arguments['reference_tensor']}")
    low, high = arguments.get("min_percentile", 0.0), arguments.get("max_percentile", 100.0)
    return _of_scene(chain, arguments, kind="scene_percentiles", low=_number(low), high=_number(high))


def _of_scene(chain: _Chain, arguments: Mapping[str, Any], **statistic: Any) -> _Chain:
    _open(chain)
    if chain.statistic or chain.clip:
        raise ValueError("it comes after clip or other statistics of the scene")
    axes = arguments.get("axes")
    letters = {str(axis)[0] for axis in axes} if axes is not None else {"y", "x", "c"}
    if not {"y", "x"} <= letters <= set("bcyx"):
        raise ValueError(f"its axes are {axes}, and a scene has one statistic over y and x")
    joint = "c" in letters and chain.bands > 1
    return replace(chain, statistic={**statistic, "eps": _number(arguments.get("eps", EPS)), "joint": joint})


def _clip(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    _open(chain)
    _only(arguments, "min", "max")
    ends = [default if arguments.get(key) is None else _number(arguments[key]) for key, default in _ENDS.items()]
    if chain.clip:
        ends = [float(np.clip(end, *chain.clip)) for end in ends]
    return replace(chain, clip=(ends[0], ends[1]))


def _ensure_dtype(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    """Chain as it is: the step changes nothing, as it names float or the type of the image; else it is refused."""
    unchanged = chain == _Chain(chain.bands, chain.dtype, (1.0,) * chain.bands, (0.0,) * chain.bands)
    if arguments.get("dtype") not in _FLOATS and not (unchanged and arguments.get("dtype") == chain.dtype):
        raise ValueError(f"it rounds values to {arguments.get('dtype')}, and the network gets float32")
    return chain


def _sigmoid(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    _open(chain)
    _only(arguments)
    return replace(chain, last={"sigmoid": True})


def _binarize(chain: _Chain, arguments: Mapping[str, Any]) -> _Chain:
    _open(chain)
    _only(arguments, "threshold")
    return replace(chain, last={"binarize": _number(arguments["threshold"])})


def _open(chain: _Chain) -> None:
    if chain.last:
        raise ValueError(f"it comes after {next(iter(chain.last))}")


def _only(arguments: Mapping[str, Any], *known: str) -> None:
    for key in arguments:
        if key not in known:
            raise ValueError(f"its argument {key}: {arguments[key]} is not known")


def _number(value: Any) -> Any:
    """A float, or floats for a list; PyYAML reads 1e-6 as text."""
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)


def _each(value: Any, bands: int) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,) * bands
    if len(values) != bands:
        raise ValueError(f"it has {len(values)} numbers for {bands} channels")
    return values


_ENDS = {"min": -_LARGEST, "max": _LARGEST}
_STEPS = {
    "zero_mean_unit_variance": _zero_mean,
    "fixed_zero_mean_unit_variance": _fixed,
    "scale_range": _scale_range,
    "scale_linear": _scale_linear,
    "clip": _clip,
    "ensure_dtype": _ensure_dtype,
    "sigmoid": _sigmoid,
    "binarize": _binarize,
}
