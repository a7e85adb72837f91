"""A bundle as a STAC item of the Machine Learning Model extension, for catalogues of models.

Bands are described as STAC 1.1 does, with their common names; the item has no geometry, for it belongs to no place.
`models.elsewhere.mlm_item` reads what is written here. Source: https://github.com/stac-extensions/mlm, version 1.5.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tilesseg.models.bundle import Bundle
from tilesseg.models.elsewhere.mlm_scaling import scaling_of
from tilesseg.models.elsewhere.tilesseg_block import block_of
from tilesseg.models.exporting.portable_network import PortableNetwork, write_network
from tilesseg.models.spec import ModelSpec, Normalise

SCHEMAS = (
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
COMMON = (
    "coastal", "blue", "green", "red", "rededge", "rededge071", "rededge075", "rededge078", "yellow", "pan", "nir",
    "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12", "green05",
)  # fmt: skip
"""Common names of bands of the extension EO 2.0."""
ARTIFACTS = {"pt2": "torch.export.save", "torchscript": "torch.jit.save", "onnx": "onnx"}
KINDS = {"unet": "pt2", "exported": "pt2", "torchscript": "torchscript", "onnx": "onnx"}
"""Kind of file that is written of each engine."""
ACTIVATIONS = {"softmax": "torch.nn:Softmax2d", "sigmoid": "torch:sigmoid"}
"""Functions that the extension's `post_processing_function` names; the format is `python`, module and name."""


def write_item(bundle: Bundle, folder: Path) -> tuple[PortableNetwork, ...]:
    """Write a bundle into an existing folder as `item.json` with its weights.

    Raises:
        ModelError: the network has no form that the item can name.
    """
    spec = bundle.spec
    network = write_network(bundle, KINDS.get(spec.engine, "pt2"), folder)
    carried = None
    if spec.engine == "unet":
        assert bundle.weights_path is not None  # write_network has refused anything else
        carried = folder / bundle.weights_path.name
        shutil.copyfile(bundle.weights_path, carried)
    item = _item(spec, network, carried)
    (folder / "item.json").write_text(json.dumps(item, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return (network,)


def _item(spec: ModelSpec, network: PortableNetwork, carried: Path | None) -> dict[str, Any]:
    assets = {"model": _asset(network.file, ["mlm:model", "mlm:compiled", "data"], ARTIFACTS[network.kind])}
    if carried is not None:
        assets["weights"] = _asset(carried, ["mlm:weights", "data"], None)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(SCHEMAS),
        "id": spec.name,
        "geometry": None,
        "properties": _properties(spec, network, carried),
        "links": [],
        "assets": assets,
    }


def _properties(spec: ModelSpec, network: PortableNetwork, carried: Path | None) -> dict[str, Any]:
    stated = network.described(spec)
    if carried is not None and spec.weights is not None:
        named = spec.weights.model_copy(update={"file": carried.name, "package": None})
        stated = spec.model_copy(update={"weights": named})
    block = block_of(stated, without=("name", "bands", "classes"), carried=carried is not None)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "datetime": now,
        **({"description": spec.description} if spec.description else {}),
        **({"license": spec.licence} if spec.licence != "unknown" else {}),
        **({"gsd": spec.resolution} if spec.resolution else {}),
        "bands": [_band(name, spec) for name in spec.bands],
        "mlm:name": spec.name,
        "mlm:architecture": "U-Net" if spec.engine == "unet" else "unknown",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if network.kind == "onnx" else "PyTorch",
        **({} if network.kind == "onnx" else {"mlm:framework_version": torch.__version__.partition("+")[0]}),
        "mlm:input": [_input(spec, side=network.side)],
        "mlm:output": [_output(spec, side=network.side)],
        "tilesseg:tiling": block["tiling"],
        "tilesseg:model": block["model"],
    }


def _band(name: str, spec: ModelSpec) -> dict[str, Any]:
    common = {"eo:common_name": name} if name in COMMON else {}
    return {"name": name, **common, "data_type": spec.dtype}


def _input(spec: ModelSpec, *, side: int | None) -> dict[str, Any]:
    scaling = scaling_of(spec.normalise, spec.scaling, bands=len(spec.bands))
    plain = spec.normalise == Normalise(kind="none") and spec.scaling == (1.0, 0.0)
    ours = {"format": "tilesseg", "expression": {"normalise": spec.normalise.kind}}
    return {
        "name": "patches",
        "bands": list(spec.bands),
        "input": _structure(spec, len(spec.bands), "bands", 0, side=side),
        "value_scaling": scaling,
        "resize_type": None,
        "pre_processing_function": None if scaling or plain else ours,
    }


def _output(spec: ModelSpec, *, side: int | None) -> dict[str, Any]:
    function = ACTIVATIONS.get(spec.activation)
    return {
        "name": "scores",
        "tasks": ["semantic-segmentation"],
        "result": _structure(spec, spec.score_channels, "classes", spec.patch.shrink, side=side),
        "classification:classes": [
            {"value": number, "name": each.name, "title": each.name, "color_hint": each.colour[1:].upper()}
            for number, each in enumerate(spec.classes)
        ],
        "post_processing_function": function and {"format": "python", "expression": function},
    }


def _structure(spec: ModelSpec, channels: int, name: str, cut: int, *, side: int | None) -> dict[str, Any]:
    size = side - cut if side else -1
    order = ["batch", name, "height", "width"]
    return {"shape": [-1, channels, size, size], "dim_order": order, "data_type": "float32"}


def _asset(file: Path, roles: list[str], artifact: str | None) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    framework = {".onnx": "onnx", ".safetensors": "safetensors"}.get(file.suffix, "pytorch")
    return {
        "href": f"./{file.name}",
        "type": f"application/octet-stream; framework={framework}",
        "title": file.name,
        "roles": roles,
        **({"mlm:artifact_type": artifact} if artifact else {}),
        "file:checksum": f"1220{digest}",
        "file:size": file.stat().st_size,
    }
