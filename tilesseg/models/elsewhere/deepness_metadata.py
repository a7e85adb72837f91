"""Metadata of the QGIS plugin Deepness in ONNX files: facts of a spec, and a whole spec where they are complete.

The plugin takes bytes, divides them by 255, standardises them by a mean and a standard deviation, gives tiles of one
size, and takes the output for probabilities. A file with its metadata is a model as it is, with the tiles that the
plugin would give; `tilesseg models new` begins a spec for more. Source: the plugin's documentation,
`creators_add_metadata_to_model`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilesseg.errors import ModelError
from tilesseg.models.elsewhere.onnx_header import OnnxHeader, read_header
from tilesseg.models.spec import CLASS_COLOURS, ModelSpec, parse_spec

TASK = "Segmentor"
WHOLE = 32
"""Largest stride multiple: 2^5, of networks that halve the size five times."""


def read_deepness(file: Path) -> ModelSpec | None:
    """Spec of an ONNX file from its metadata; None where it has none of Deepness.

    Raises:
        ModelError: the file is no ONNX file, is for another task, or its metadata leave a fact open.
    """
    header = read_header(file)
    task = stated(header.metadata, "model_type")
    if not task:
        return None
    if task != TASK:
        raise ModelError(f"{file} is a {task} of Deepness, tilesseg runs a {TASK}; take a network for segmentation")
    bands, side, scores, names = _facts(header, file)
    with file.open("rb") as opened:
        held = {"file": file.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
    spec = {
        "name": file.stem,
        "engine": "onnx",
        "weights": held,
        "bands": [f"band {k}" for k in range(1, bands + 1)],
        "activation": "none",
        "patch": {"fixed": side, "stride_multiple": math.gcd(side, WHOLE)},
        **facts_of(header.metadata, bands=bands, threshold=scores == 1),
        "classes": classes_of(names, scores, threshold=scores == 1, file=file),
    }
    if scores == 1 and "decision" not in spec:
        spec["decision"] = {"kind": "threshold", "threshold": 0.5}
    return parse_spec(spec, where=str(file))


def _facts(header: OnnxHeader, file: Path) -> tuple[int, int, int, list[str]]:
    """Number of channels, side of a tile, number of scores, names of the classes.

    Raises:
        ModelError: the file does not state them all.
    """
    taken = header.inputs[0] if len(header.inputs) == 1 and len(header.inputs[0]) == 4 else (None,) * 4
    given = header.outputs[0] if len(header.outputs) == 1 and len(header.outputs[0]) == 4 else (None,) * 4
    bands, side, scores = taken[1], taken[2] or tile_size(header.metadata), given[1]
    names = class_names(header.metadata)
    facts = {"class_names": names, "tiles_size": side, "the number of channels": bands, "that of scores": scores}
    missing = [key for key, value in facts.items() if not value]
    if missing or bands is None or side is None or scores is None:
        raise ModelError(
            f"{file} has no spec, and its metadata of Deepness do not state {', '.join(missing)}; write a spec: "
            f"tilesseg models new {file}"
        )
    return bands, side, scores, names


def stated(metadata: Mapping[str, str], key: str) -> Any:
    """Value of a key, which the plugin writes as JSON; text that is no JSON is itself; None without the key."""
    text = metadata.get(key)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def class_names(metadata: Mapping[str, str]) -> list[str]:
    """Names of the classes in the order of their numbers; empty where none are stated."""
    names = stated(metadata, "class_names")
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], dict):  # one head of several
        names = names[0]
    if isinstance(names, dict):
        return [str(name) for _, name in sorted(names.items(), key=lambda row: int(row[0]))]
    return [str(name) for name in names] if isinstance(names, list) else []


def classes_of(names: list[str], scores: int, *, threshold: bool, file: Path) -> list[dict[str, str]]:
    """Section `classes` of a network with this number of scores; numbers take the place of names that are not stated.

    Args:
        names: names of the classes, with or without the background.
        scores: number of scores.
        threshold: whether no score belongs to the background.
        file: names the network in a refusal.

    Raises:
        ModelError: there is another number of names.
    """
    wanted = scores + threshold
    if threshold and len(names) == scores:
        names = ["background", *names]
    names = names or [*(["background"] if threshold else []), *(f"class {k}" for k in range(scores))]
    if len(names) != wanted:
        raise ModelError(f"{file} gives {scores} scores, and {len(names)} classes are named; name {wanted} classes")
    colours = itertools.cycle(CLASS_COLOURS)
    return [{"name": name, "colour": "black" if name == "background" else next(colours)} for name in names]


def tile_size(metadata: Mapping[str, str]) -> int | None:
    """Side of the tiles that the plugin gives; None where none is stated."""
    size = stated(metadata, "tiles_size") or stated(metadata, "tile_size")
    return size if isinstance(size, int) and size > 0 else None


def facts_of(metadata: Mapping[str, str], *, bands: int, threshold: bool) -> dict[str, Any]:
    """Keys of a spec about values, resolution and threshold; empty where the file has no metadata of Deepness."""
    if not metadata.get("model_type"):
        return {}
    mean, std = stated(metadata, "standardization_mean"), stated(metadata, "standardization_std")
    keys: dict[str, Any] = {"input_range": [0, 255], "normalise": {"kind": "range", "low": 0, "high": 255}}
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == bands:
        scaled = {"mean": [255 * float(each) for each in mean], "std": [255 * float(each) for each in std]}
        keys["normalise"] = {"kind": "mean_std", **scaled}
    resolution, limit = stated(metadata, "resolution"), stated(metadata, "seg_thresh")
    if isinstance(resolution, int | float) and resolution > 0:
        keys["resolution"] = resolution / 100  # centimetres
    if threshold and isinstance(limit, int | float) and 0 < limit < 1:
        keys["decision"] = {"kind": "threshold", "threshold": float(limit)}
    return keys
