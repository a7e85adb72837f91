"""STAC items of the Machine Learning Model extension as models: an `item.json` with its weights as a `ModelSpec`.

Bands are taken by their common names, values by `value_scaling`, sides of patches by the shapes, classes by
`classification:classes`; the properties `tilesseg:tiling` and `tilesseg:model` complete them. What the item does not
say, and a spec must know, is named in the refusal. Nothing is downloaded.
Source: https://github.com/stac-extensions/mlm, versions 1.0 to 1.5.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tilesseg.errors import ModelError, cannot, joined_lines
from tilesseg.models.elsewhere.mlm_scaling import normalise_of_scaling, range_of_scaling
from tilesseg.models.elsewhere.tilesseg_block import carried_weights, with_block
from tilesseg.models.spec import CLASS_COLOURS, ModelSpec, parse_spec

ARTIFACTS = {"torch.jit.save": "torchscript", "torch.export.save": "exported", "onnx": "onnx"}
"""Engines by `mlm:artifact_type`, in lower case."""
SUFFIXES = {".ts": "torchscript", ".pt2": "exported", ".onnx": "onnx"}
"""Engines by the suffix of the file, where the artifact type is another word."""
TASKS = ("semantic-segmentation", "segmentation")
CHANNELS = ("bands", "band", "channel", "channels", "variables", "class", "classes", "c")
AXES = (("batch", "b", "n"), CHANNELS, ("height", "y", "lat", "row", "h"), ("width", "x", "lon", "column", "w"))
"""Names of the axes, in the only order that tilesseg gives."""
MULTIPLE = 32
"""Sides of a network of free sides that states no rule: 2^5, of networks that halve the size five times."""
_SHA256 = "1220"
"""Beginning of a multihash of SHA-256 in `file:checksum`: its number and its length."""


class _Shape(NamedTuple):
    """Channels and sides of a tensor; None for a free axis."""

    channels: int | None
    height: int | None
    width: int | None


def is_item(path: Path) -> bool:
    """Whether a file is a STAC item of the extension MLM, by its content.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in (".json", ".geojson"):
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 20)
    return '"mlm:input"' in text and '"Feature"' in text


def read_item(path: Path, *, weights: Path | None = None) -> tuple[ModelSpec, Path]:
    """Read an item: the spec, and the path of the weights file that it names.

    Args:
        path: the item, in the folder that holds the files it names.
        weights: path of a weights file, if the item names several.

    Raises:
        ModelError: the item is damaged, is of another task, states too little, or cannot be represented.
    """
    where = str(path)
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
        properties = item["properties"]
        block = {key: properties.get(f"tilesseg:{key}") or {} for key in ("tiling", "model")}
        held, file, asset = _held(item, block, path.parent, wanted=weights, where=where)
        described = _described(properties, asset, block["model"], where=where)
        return parse_spec({**with_block(described, block, where=where), **held}, where=where), file
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "get the item again")) from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
        problem = f"{type(error).__name__}: {joined_lines(error)[:100]}"
        raise ModelError(f"{where} does not follow the extension MLM ({problem}); check it with stac-model") from None


def _held(
    item: Mapping[str, Any], block: Mapping[str, Any], folder: Path, *, wanted: Path | None, where: str
) -> tuple[dict[str, Any], Path, Mapping[str, Any]]:
    """Keys of a spec about its weights, their path, and the asset that they belong to."""
    models = [each for each in item["assets"].values() if "mlm:model" in each.get("roles", ())]
    carried = carried_weights(block, folder, wanted=wanted, where=where)
    if carried:
        return carried, folder / carried["weights"]["file"], models[0] if models else {}
    missing = []
    for asset in models:
        engine, file = _engine(asset), folder / _file_name(asset["href"])
        if engine is None:
            missing.append(f"{asset['href']} ({asset.get('mlm:artifact_type', 'no artifact type')})")
        elif not file.is_file():
            missing.append(f"{asset['href']} (not in the folder: download it to {file})")
        elif wanted is None or wanted.resolve() == file.resolve():
            digest = str(asset.get("file:checksum") or "").lower()
            sha256 = digest[len(_SHA256) :] if digest.startswith(_SHA256) and len(digest) == 68 else _sha256(file)
            return {"engine": engine, "weights": {"file": file.name, "sha256": sha256}}, file, asset
    there = ", ".join(missing) or "no asset of the role mlm:model"
    raise ModelError(
        f"{where} has {there}, and tilesseg loads {', '.join(ARTIFACTS)} files beside it; get or convert the weights"
    )


def _engine(asset: Mapping[str, Any]) -> str | None:
    artifact = str(asset.get("mlm:artifact_type") or "").lower()
    suffix = Path(urlsplit(asset["href"]).path).suffix.lower()
    named = ARTIFACTS.get(artifact) or ("onnx" if "onnx" in artifact else None)
    return named or SUFFIXES.get(suffix)


def _file_name(href: str) -> str:
    """Path in the item's folder of a file that an address or a path names."""
    return Path(urlsplit(href).path).name if "://" in href else href


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _described(
    properties: Mapping[str, Any], asset: Mapping[str, Any], model: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """Facts of the item as plain data of a spec, without the block; `model` holds the facts that the block states."""
    source, target = _only(properties, "mlm:input", where), _only(properties, "mlm:output", where)
    _refuse_other_task(properties, target, where)
    taken = _shape(source["input"], where, "mlm:input")
    given = _shape(target["result"], where, "mlm:output")
    found = list(_bands(properties, asset))
    bands = _band_names(source, found)
    _refuse_other_bands(bands, taken, where)
    spec: dict[str, Any] = {
        "name": properties["mlm:name"],
        "description": str(properties.get("description") or ""),
        "licence": str(properties.get("license") or "unknown"),
        "bands": bands,
        "dtype": _dtype(found),
        "patch": _patch(taken, given, where),
        "activation": _activation(target, model, where),
        "classes": _classes(target, given, where),
    }
    scores = given.channels or len(spec["classes"])
    if scores == len(spec["classes"]) - 1:
        several = scores > 1
        spec["decision"] = {"kind": "threshold", "threshold": 0.5, **({"background": True} if several else {})}
    if (resolution := _resolution(properties, found)) is not None:
        spec["resolution"] = resolution
    if _says_preprocessing(source, model, where):
        spec["normalise"] = normalise_of_scaling(source, bands=len(bands), where=where)
    spec["input_range"] = _input_range(source, found, model, where)
    return spec


def _input_range(
    source: Mapping[str, Any], described: Sequence[Mapping[str, Any]], model: Mapping[str, Any], where: str
) -> Any:
    """Range of the imagery that scaling or statistics state, else that of bytes, else that of the block.

    Raises:
        ModelError: none of them states it.
    """
    values = range_of_scaling(source) or _statistics_range(described)
    if values is None and _dtype(described) == "uint8":
        values = 0.0, 255.0
    if values is None and "input_range" not in model:
        raise ModelError(
            f"{where} does not say which values its imagery spans; write statistics of the bands, or "
            '"tilesseg:model": {"input_range": [low, high]} into its properties'
        )
    return values or model["input_range"]


def _refuse_other_bands(bands: Sequence[str], taken: _Shape, where: str) -> None:
    if not bands:
        raise ModelError(f"{where} names no bands in mlm:input, and a run must know them; write them, in their order")
    if taken.channels not in (None, len(bands)):
        raise ModelError(f"{where} takes {taken.channels} channels and names {len(bands)} bands; correct mlm:input")


def _only(properties: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    entries = properties[key]
    if len(entries) != 1:
        raise ModelError(f"{where} has {len(entries)} entries in {key}, tilesseg takes one; take another network")
    return entries[0]  # type: ignore[no-any-return]


def _refuse_other_task(properties: Mapping[str, Any], target: Mapping[str, Any], where: str) -> None:
    tasks = target.get("tasks") or properties.get("mlm:tasks") or ()
    if not set(tasks) & set(TASKS):
        raise ModelError(
            f"{where} is for {', '.join(tasks) or 'no task'}, tilesseg does {TASKS[0]}; take another model"
        )


def _shape(structure: Mapping[str, Any], where: str, key: str) -> _Shape:
    names, sizes = [str(name).lower() for name in structure["dim_order"]], structure["shape"]
    if len(names) != 4 or len(sizes) != 4 or any(name not in known for name, known in zip(names, AXES, strict=True)):
        raise ModelError(
            f"{where}: {key} has the axes {', '.join(names)}, tilesseg gives batch, bands, height, width; take a "
            "network of that order"
        )
    return _Shape(*(int(size) if int(size) > 0 else None for size in sizes[1:]))


def _patch(taken: _Shape, given: _Shape, where: str) -> dict[str, int]:
    if taken.height != taken.width:
        raise ModelError(
            f"{where} takes patches of {taken.height} × {taken.width}, tilesseg gives squares; export it for squares"
        )
    if taken.height is None:
        return {"multiple": MULTIPLE, "stride_multiple": MULTIPLE}
    shrink = taken.height - (given.height or taken.height)
    if shrink < 0 or shrink % 2 or given.height != given.width:
        raise ModelError(
            f"{where} gives {given.height} × {given.width} scores for patches of {taken.height}; export it so that "
            "scores have the size of the patch"
        )
    return {"fixed": taken.height, "shrink": shrink}


def _bands(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Descriptions of bands, of STAC 1.1 and of the extensions EO and raster."""
    for holder, key in itertools.product((properties, asset), ("bands", "eo:bands", "raster:bands")):
        yield from (band for band in holder.get(key) or () if isinstance(band, Mapping))


def _band_names(source: Mapping[str, Any], described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Common names of the input's bands, where each band has one of its own; else the names of the item."""
    names = [str(band["name"] if isinstance(band, Mapping) else band) for band in source.get("bands") or ()]
    common = {}
    for band in described:
        if shared := band.get("eo:common_name") or band.get("common_name"):
            common[str(band.get("name"))] = str(shared)
    known = [common.get(name, name) for name in names]
    return known if len(set(known)) == len(names) else names


def _dtype(described: Sequence[Mapping[str, Any]]) -> str:
    kinds = {str(band["data_type"]) for band in described if band.get("data_type")}
    return kinds.pop() if len(kinds) == 1 else "float32"


def _resolution(properties: Mapping[str, Any], described: Sequence[Mapping[str, Any]]) -> float | None:
    sizes = {float(each["gsd"]) for each in (properties, *described) if each.get("gsd")}
    return sizes.pop() if len(sizes) == 1 else None


def _statistics_range(described: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Range from the least to the largest value that the statistics of the bands state."""
    stated = [band.get("statistics") or {} for band in described]
    complete = [each for each in stated if {"minimum", "maximum"} <= each.keys()]
    ends = [(float(each["minimum"]), float(each["maximum"])) for each in complete]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def _says_preprocessing(source: Mapping[str, Any], model: Mapping[str, Any], where: str) -> bool:
    """Whether `value_scaling` is the whole preprocessing; False where the block alone states it.

    Raises:
        ModelError: the item has steps that a spec cannot express.
    """
    function = source.get("pre_processing_function")
    ours = isinstance(function, Mapping) and function.get("format") == "tilesseg" and "normalise" in model
    for key, value in (("pre_processing_function", None if ours else function), ("resize_type", _resized(source))):
        if value:
            raise ModelError(
                f"{where} has the {key} {json.dumps(value)[:60]}, which tilesseg does not run; write a model.yaml"
            )
    return not ours


def _resized(source: Mapping[str, Any]) -> str | None:
    """Kind of resizing that changes pixels; cropping and padding are what tiling does."""
    kind = source.get("resize_type")
    return None if kind in (None, "crop", "pad") else str(kind)


def _activation(target: Mapping[str, Any], model: Mapping[str, Any], where: str) -> str:
    """Activation that the postprocessing states; none without one: the scores are what the network gives."""
    function = target.get("post_processing_function")
    if function is None or "activation" in model:
        return "none"
    words = json.dumps(function).lower()
    named = [kind for kind in ("softmax", "sigmoid") if kind in words]
    if len(named) == 1:
        return named[0]
    if "argmax" in words:
        return "none"
    raise ModelError(
        f"{where} has the post_processing_function {words[:60]}, which tilesseg does not run; write a model.yaml"
    )


def _classes(target: Mapping[str, Any], given: _Shape, where: str) -> list[dict[str, str]]:
    entries = sorted(target.get("classification:classes") or (), key=lambda each: int(each["value"]))
    values = [int(each["value"]) for each in entries]
    if values == list(range(1, len(values) + 1)) and given.channels == len(values):  # the background has no score
        entries, values = [{"name": "background", "value": 0, "color_hint": "000000"}, *entries], [0, *values]
    if len(entries) < 2 or values != list(range(len(entries))):
        raise ModelError(
            f"{where} has the classes {', '.join(map(str, values)) or 'none'}, and labels are 0, 1, 2 …; correct "
            "classification:classes"
        )
    if given.channels not in (None, len(entries), len(entries) - 1):
        raise ModelError(
            f"{where} gives {given.channels} scores and names {len(entries)} classes; correct classification:classes"
        )
    colours = itertools.cycle(CLASS_COLOURS)
    return [{"name": _class_name(each), "colour": _colour(each, colours)} for each in entries]


def _class_name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("title") or f"class {entry['value']}")


def _colour(entry: Mapping[str, Any], colours: Iterator[str]) -> str:
    hint = str(entry.get("color_hint") or "").lower()
    if len(hint) == 6 and not set(hint) - set("0123456789abcdef"):
        return f"#{hint}"
    return "#000000" if _class_name(entry).lower() == "background" else next(colours)
