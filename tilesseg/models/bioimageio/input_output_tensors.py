"""Inputs and outputs of a bioimage.io description, of formats 0.4 and 0.5, as tensors of a 2-D image.

0.4 writes axes as a string and shapes as lists, 0.5 as a list of axis objects. Both become a `Tensor`. Sources: the
documentation of bioimageio.spec, `model/v0_4` and `model/v0_5`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilesseg.errors import ModelError

MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
ORDER = "bcyx"
MOST = 10_000
"""Largest number of channels that is taken for correct."""


@dataclass(frozen=True, slots=True)
class Side:
    """Legal sizes of a side of an image: `smallest + k · step`; a single size if `step` is 0."""

    smallest: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output with the axes (batch, channel, y, x)."""

    name: str
    channels: tuple[str, ...]
    sides: tuple[Side, Side] | None
    """Sides of y and x; None for an output, whose sides follow from the input's."""
    cut: int
    """Number of pixels by which an output is smaller than the input, both sides together."""
    halo: int
    """Border of an output that its authors do not trust."""
    mpp: float | None
    """Micrometres per pixel, if stated."""
    dtype: str
    range: tuple[float, float] | None
    """Range of the values, if both ends are stated."""
    test: str | None
    """File of an example."""
    steps: tuple[tuple[str, Mapping[str, Any]], ...]
    """Preprocessing of an input, postprocessing of an output: names and arguments."""


def tensors(data: Mapping[str, Any], *, where: str) -> tuple[Tensor, Tensor]:
    """Input and output of a description.

    Raises:
        ModelError: there are several, or they are no 2-D images (batch, channel, y, x) of the same pixel size.
    """
    inputs, outputs = data.get("inputs") or [], data.get("outputs") or []
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{where} describes {len(inputs)} inputs and {len(outputs)} outputs, tilesseg takes one of each; take "
            "another network"
        )
    old = isinstance(inputs[0]["axes"], str)
    read, given = (_old, data.get("test_inputs")) if old else (_new, None)
    taken = read(inputs[0], None, where=where, test=_first(given))
    return taken, read(outputs[0], inputs[0], where=where, test=_first(data.get("test_outputs")))


def _old(tensor: Mapping[str, Any], source: Mapping[str, Any] | None, *, where: str, test: str | None) -> Tensor:
    """A tensor of format 0.4; `source` is the input, for an output."""
    name, axes, shape = str(tensor["name"]), str(tensor["axes"]), tensor["shape"]
    _ordered(axes, where, name)
    sides, cut = None, 0
    if source is None:
        least, step = (shape["min"], shape["step"]) if isinstance(shape, Mapping) else (shape, [0] * 4)
        sides, channels = (Side(least[2], step[2]), Side(least[3], step[3])), least[1]
    else:
        cut, channels = _old_cut(shape, source, where=where, name=name)
    halo = tensor.get("halo") or [0] * 4
    if not 1 <= channels <= MOST:
        raise ModelError(f"{where}: {name} has {channels} channels; take a network of 1 to {MOST}")
    names = (name,) if channels == 1 else tuple(f"{name} {k}" for k in range(1, channels + 1))
    return Tensor(
        name=name,
        channels=names,
        sides=sides,
        cut=cut,
        halo=max(halo[2:]),
        mpp=None,
        dtype=str(tensor.get("data_type", "float32")),
        range=_range(tensor.get("data_range")),
        test=test,
        steps=_steps(tensor, source, key="name"),
    )


def _old_cut(shape: Any, source: Mapping[str, Any], *, where: str, name: str) -> tuple[int, int]:
    """Pixels by which an output of format 0.4 is smaller than its input, and its number of channels."""
    taken = source["shape"]
    if not isinstance(shape, Mapping):
        if isinstance(taken, Mapping):
            raise ModelError(f"{where}: {name} has one shape and its input has many; take a network of the same shapes")
        cuts, channels = [int(i) - int(o) for i, o in zip(taken[2:], shape[2:], strict=True)], shape[1]
    else:
        if [float(factor or 0) for factor in shape["scale"][2:]] != [1.0, 1.0]:
            raise ModelError(
                f"{where}: {name} has pixels of another size than its input, scale {shape['scale']}; take a network of "
                "scale 1"
            )
        cuts = [int(-2 * offset) for offset in shape["offset"][2:]]
        least = taken["min"] if isinstance(taken, Mapping) else taken
        channels = round(least[1] * float(shape["scale"][1] or 0) + 2 * shape["offset"][1])
    return _one_cut(cuts, where, name), int(channels)


def _new(tensor: Mapping[str, Any], source: Mapping[str, Any] | None, *, where: str, test: str | None) -> Tensor:
    """A tensor of format 0.5; `source` is the input, for an output."""
    name, axes = str(tensor["id"]), tensor["axes"]
    letters = "".join({"batch": "b", "channel": "c", "time": "t", "index": "i"}.get(a["type"], "s") for a in axes)
    spatial = iter("yx" if letters.count("s") == 2 else "zyx")
    _ordered("".join(next(spatial, "?") if letter == "s" else letter for letter in letters), where, name)
    _, channel, *space = axes
    if [_named(axis) for axis in space] == ["x", "y"]:
        raise ModelError(f"{where}: {name} has the axes bcxy, tilesseg gives bcyx; take a network of that order")
    facts = tensor.get("data") or {}
    facts = facts[0] if isinstance(facts, Sequence) else facts
    sides = tuple(_side(axis, space, where=where) for axis in space) if source is None else None
    return Tensor(
        name=name,
        channels=tuple(map(str, channel["channel_names"])),
        sides=(sides[0], sides[1]) if sides else None,
        cut=0 if source is None else _new_cut(space, source, where=where, name=name),
        halo=max(int(axis.get("halo") or 0) for axis in space),
        mpp=_mpp(space),
        dtype=str(facts.get("type", "float32")),
        range=_range(facts.get("range")),
        test=(tensor.get("test_tensor") or {}).get("source") or test,
        steps=_steps(tensor, source, key="id"),
    )


def _steps(
    tensor: Mapping[str, Any], source: Mapping[str, Any] | None, *, key: str
) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    steps = tensor.get("preprocessing" if source is None else "postprocessing") or []
    return tuple((str(step[key]), step.get("kwargs") or {}) for step in steps)


def _side(axis: Mapping[str, Any], space: Sequence[Mapping[str, Any]], *, where: str) -> Side:
    size = axis["size"]
    if isinstance(size, int):
        return Side(size)
    if "step" in size:
        return Side(size["min"], size["step"])
    other = next((each for each in space if _named(each) == size.get("axis_id") and each is not axis), None)
    if other is None or (isinstance(other["size"], Mapping) and "axis_id" in other["size"]) or size.get("offset"):
        raise ModelError(
            f"{where}: the size of axis {_named(axis)} is {dict(size)}, which is not the size of y or x; correct it"
        )
    return _side(other, space, where=where)


def _new_cut(space: Sequence[Mapping[str, Any]], source: Mapping[str, Any], *, where: str, name: str) -> int:
    """Pixels by which an output of format 0.5 is smaller than its input."""
    cuts = []
    for axis, taken in zip(space, [each for each in source["axes"] if each["type"] == "space"], strict=True):
        size = axis["size"]
        if float(axis.get("scale", 1.0)) != float(taken.get("scale", 1.0)):
            raise ModelError(
                f"{where}: {name} has pixels of scale {axis.get('scale', 1.0)} and its input of "
                f"{taken.get('scale', 1.0)}; take a network of equal scales"
            )
        if isinstance(size, int) and isinstance(taken["size"], int):
            cuts.append(taken["size"] - size)
        elif isinstance(size, Mapping) and size.get("tensor_id") == source["id"]:
            cuts.append(-int(size.get("offset", 0)))
        else:
            raise ModelError(
                f"{where}: {name} has sides {size}, which do not follow from its input's {taken['size']}; correct them"
            )
    return _one_cut(cuts, where, name)


def _one_cut(cuts: Sequence[int], where: str, name: str) -> int:
    if min(cuts) < 0 or len(set(cuts)) > 1:
        raise ModelError(
            f"{where}: {name} is {cuts} px smaller than its input in y and x; take a network with equal cuts"
        )
    return cuts[0]


def _ordered(axes: str, where: str, name: str) -> None:
    if axes != ORDER:
        raise ModelError(
            f"{where}: {name} has the axes {axes}, tilesseg gives {ORDER} (batch, channel, y, x); take a 2-D network "
            "of that order"
        )


def _named(axis: Mapping[str, Any]) -> str:
    return str(axis.get("id", "x"))


def _mpp(space: Sequence[Mapping[str, Any]]) -> float | None:
    """Micrometres per pixel, if both sides have a unit of length and agree."""
    sizes = {float(axis.get("scale", 1.0)) * MICROMETRES.get(str(axis.get("unit")), math.nan) for axis in space}
    (only, *others) = sizes
    return None if others or math.isnan(only) else only


def _range(given: Any) -> tuple[float, float] | None:
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):  # an end is left out
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _first(files: Any) -> str | None:
    return str(files[0]) if files else None
