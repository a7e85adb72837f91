"""The block `tilesseg` in descriptions of other formats: facts of a spec for which these formats have no place.

STAC MLM has it as the properties `tilesseg:tiling` and `tilesseg:model`, bioimage.io as `config: {tilesseg: …}`. What a
description says itself (bands, preprocessing, sizes) stays readable without the block; where both state the
normalisation, they must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.spec import ModelSpec, PatchSizes, parse_spec

ROUNDING = 1e-4
"""Largest relative difference of normalised values that two ways of writing the same normalisation may have."""
FACTS = (
    "name", "bands", "dtype", "input_range", "scaling", "normalise", "fill", "resolution", "mpp", "activation",
    "decision", "classes",
)  # fmt: skip
"""Keys of a spec that the part `model` may hold, beside `carried`."""
CARRIED = ("engine", "unet", "weights")
"""Keys of `carried`: a weights file beside the portable ones, that tilesseg prefers."""


def block_of(spec: ModelSpec, *, without: tuple[str, ...] = (), carried: bool) -> dict[str, Any]:
    """The block of a spec: `tiling` (sides of patches, margin) and `model` (other facts).

    Args:
        spec: spec of the bundle.
        without: facts that the description itself states exactly.
        carried: whether the bundle's own weights file lies beside the description.
    """
    data = spec.model_dump(mode="json")
    model = {key: _stated(data[key]) for key in FACTS if key not in without and data[key] is not None}
    if carried:
        model["carried"] = {key: _stated(data[key]) for key in CARRIED if data[key] is not None}
    return {"tiling": {**_stated(data["patch"]), **_stated({"margin": spec.margin})}, "model": model}


def with_block(described: Mapping[str, Any], block: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Plain data of a spec, described elsewhere, with the facts of the block in place of the described ones.

    Raises:
        ModelError: the block has an unknown key, or another normalisation than the description states.
    """
    tiling, model = _part(block, "tiling", where), _part(block, "model", where)
    _refuse_unknown(tiling, (*PatchSizes.model_fields, "margin"), f"{where}: tiling")
    _refuse_unknown(model, (*FACTS, "carried"), f"{where}: model")
    facts = {key: value for key, value in model.items() if key != "carried"}
    patch = {key: value for key, value in tiling.items() if key != "margin"}
    merged = {**described, **facts, **({"patch": patch} if patch else {})}
    if tiling.get("margin") is not None:
        merged["margin"] = tiling["margin"]
    _refuse_contradiction(described, merged, where)
    return merged


def carried_weights(block: Mapping[str, Any], folder: Path, *, wanted: Path | None, where: str) -> dict[str, Any]:
    """Keys `engine`, `unet` and `weights` of the file that the block names, where it lies in the folder; else empty.

    Args:
        block: the block, see `block_of`.
        folder: folder of the description.
        wanted: path of the weights file that is requested; None takes the carried file.
        where: names the description in a refusal.

    Raises:
        ModelError: the block names a file outside of the folder.
    """
    carried = _part(_part(block, "model", where), "carried", where)
    _refuse_unknown(carried, CARRIED, f"{where}: carried")
    name = str(_part(carried, "weights", where).get("file") or "")
    if name and (Path(name).name != name or "\\" in name):
        raise ModelError(f"{where} has its weights in {name!r}, not beside itself; put them beside the description")
    file = folder / name
    if not name or not file.is_file() or (wanted is not None and wanted.resolve() != file.resolve()):
        return {}
    return dict(carried)


def _part(block: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    part = block.get(key)
    if part is not None and not isinstance(part, Mapping):
        raise ModelError(f"{where}: {key} of the block tilesseg is {part!r}, not an object; correct it")
    return part or {}


def _stated(value: Any) -> Any:
    """Plain data without keys whose value is None, at any depth."""
    if isinstance(value, dict):
        return {key: _stated(part) for key, part in value.items() if part is not None}
    return [_stated(part) for part in value] if isinstance(value, list) else value


def _refuse_unknown(part: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in part:
        if key not in known:
            raise ModelError(f"{where} of the block tilesseg has the unknown key {key}; write {', '.join(known)}")


def _refuse_contradiction(described: Mapping[str, Any], merged: Mapping[str, Any], where: str) -> None:
    """Refuse a description whose preprocessing was changed and whose block was not, or the other way round."""
    if "normalise" not in described or described["normalise"] == merged["normalise"]:
        return
    stated = {"normalise": described["normalise"], "scaling": described.get("scaling", (1.0, 0.0))}
    unloaded = {**merged, "engine": "onnx"}
    first, second = (parse_spec(data, where=where) for data in ({**unloaded, **stated}, unloaded))
    if first.normalise.needs_scene and second.normalise.needs_scene:
        same = first.normalise.kind == second.normalise.kind
    elif first.normalise.needs_scene or second.normalise.needs_scene:
        same = False
    else:
        same = bool(np.allclose(_probe(first), _probe(second), rtol=ROUNDING, atol=ROUNDING))
    if not same:
        raise ModelError(
            f"{where} states the normalisation {first.normalise.kind}, and its block tilesseg "
            f"{second.normalise.kind} of other values; correct one of them"
        )


def _probe(spec: ModelSpec) -> NDArray[np.float32]:
    """Normalised values of nine steps through the range of the imagery, for each band."""
    values = np.linspace(*spec.input_range, 9, dtype=np.float32)
    return spec.normalisation().apply(np.broadcast_to(values, (len(spec.bands), 1, 9)))
