"""Bundles of MONAI as models: `configs/metadata.json` and the TorchScript file `models/model.ts` become a `ModelSpec`.

The metadata state channels, classes, sizes and the range of values that the network takes. The transforms before the
network are code in other files of the bundle and are not run: the imagery must have the stated range already, which
`input.scale` of a job can bring about. Source: the documentation of MONAI, "MONAI Bundle Specification".
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tilesseg.errors import ModelError, cannot, joined_lines
from tilesseg.models.spec import CLASS_COLOURS, ModelSpec, parse_spec

METADATA = Path("configs") / "metadata.json"
WEIGHTS = Path("models") / "model.ts"
_SIZE = re.compile(r"(?:(\d+)\*)?n")
"""Rule of a free side: `n` or `16*n`; other letters are not read."""
ANY = ("*", "n")


def read_metadata(path: Path) -> tuple[ModelSpec, Path]:
    """Read the metadata of a bundle: the spec, and the path of its TorchScript file.

    Args:
        path: `configs/metadata.json` in the bundle's folder.

    Raises:
        ModelError: the metadata are damaged, have no 2-D image in and out, or the TorchScript file is missing.
    """
    where, weights = str(path), path.parent.parent / WEIGHTS
    if not weights.is_file():
        raise ModelError(
            f"{path.parent.parent} is a bundle of MONAI without {WEIGHTS}; write it: python -m monai.bundle ckpt_export"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        spec = _spec(data, path.parent.parent.name, where=where)
        with weights.open("rb") as opened:
            held = {"file": str(WEIGHTS), "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "get the bundle again")) from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
        problem = f"{type(error).__name__}: {joined_lines(error)[:100]}"
        raise ModelError(
            f"{where} does not follow MONAI's metadata ({problem}); write a model.yaml beside it"
        ) from None
    return parse_spec({**spec, "engine": "torchscript", "weights": held}, where=where), weights


def _spec(data: Mapping[str, Any], folder: str, *, where: str) -> dict[str, Any]:
    form = data["network_data_format"]
    source, target = _only(form["inputs"], "inputs", where), _only(form["outputs"], "outputs", where)
    bands = _channels(source, "band {}")
    scores = _channels(target, "class {}", first=0)
    alone = len(scores) == 1
    names = ["background", scores[0].replace("class 0", "foreground")] if alone else scores
    colours = itertools.cycle(CLASS_COLOURS)
    return {
        "name": str(data.get("name") or folder),
        "description": str(data.get("description") or ""),
        "licence": str(data.get("license") or "unknown"),
        "bands": bands,
        "dtype": "float32",
        "input_range": _range(source, where),
        "normalise": {"kind": "none"},
        "patch": _patch(source, where),
        "activation": "sigmoid" if alone else "softmax",
        "decision": {"kind": "threshold", "threshold": 0.5} if alone else {},
        "classes": [{"name": name, "colour": "black" if name == "background" else next(colours)} for name in names],
    }


def _only(tensors: Mapping[str, Any], kind: str, where: str) -> Mapping[str, Any]:
    if len(tensors) != 1:
        raise ModelError(f"{where} has {len(tensors)} {kind}, tilesseg takes one; take another network")
    return next(iter(tensors.values()))


def _channels(tensor: Mapping[str, Any], pattern: str, *, first: int = 1) -> list[str]:
    """Names of the channels: those of `channel_def`, where each channel has one of its own; else numbers."""
    number, stated = int(tensor["num_channels"]), tensor.get("channel_def") or {}
    names = [str(name) for _, name in sorted(stated.items(), key=lambda row: int(row[0]))]
    return names if len(set(names)) == number else [pattern.format(k) for k in range(first, number + first)]


def _range(source: Mapping[str, Any], where: str) -> tuple[float, float]:
    values: Sequence[Any] = source.get("value_range") or ()
    if len(values) != 2:
        raise ModelError(f"{where} states no value_range of its input; write it, or a model.yaml beside configs")
    return float(values[0]), float(values[1])


def _patch(source: Mapping[str, Any], where: str) -> dict[str, int]:
    """Section `patch`: one size, or a rule such as `16*n`."""
    shape: Sequence[Any] = source["spatial_shape"]
    if len(shape) != 2:
        raise ModelError(f"{where} takes images of {len(shape)} axes, tilesseg gives y and x; take a 2-D network")
    if shape[0] != shape[1]:
        raise ModelError(f"{where} takes patches of {shape[0]} × {shape[1]}, tilesseg gives squares; export it so")
    if isinstance(shape[0], int):
        return {"fixed": shape[0]}
    rule = str(shape[0]).replace(" ", "")
    match = _SIZE.fullmatch(rule)
    if match is None and rule != "*":
        raise ModelError(f"{where} takes sides of {rule}, tilesseg reads numbers, *, n and 16*n; write a model.yaml")
    multiple = int(match[1] or 1) if match else 1
    return {"multiple": multiple, "stride_multiple": multiple & -multiple}
