"""Networks from folders of parameters: segmentation_models_pytorch (`save_pretrained`) and Hugging Face transformers.

Such a folder holds `config.json` and `model.safetensors`; the network is code of the library, which must be installed.
No code of the folder is run, nothing is downloaded, nothing is unpickled: parameters are read from safetensors alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tilesseg.errors import ModelError, cannot, one_line

CONFIG, PARAMETERS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
LIBRARIES = {"smp": "segmentation_models_pytorch", "huggingface": "transformers"}
"""Package of each library, by the extra of tilesseg that installs it."""
TASK = "ForSemanticSegmentation"


@dataclass(frozen=True, slots=True)
class HubNetwork:
    """A network with its parameters, and what its folder says about it."""

    network: nn.Module
    bands: int
    classes: tuple[str, ...] = ()
    """Names of the classes; empty where the folder states none."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a spec that the folder states, such as `normalise`."""
    notes: tuple[str, ...] = ()
    """Sentences about what is to be checked."""


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder holds `config.json` and parameters."""
    return (folder / CONFIG).is_file() and any((*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")))


def read_hub_folder(folder: Path) -> HubNetwork:
    """Build the network of a folder and load its parameters.

    Raises:
        ModelError: the library is not installed, the parameters are pickled or do not fit, or it is another network.
    """
    config = _json(folder / CONFIG)
    if not (folder / PARAMETERS).is_file():
        raise ModelError(
            f"{folder} has no {PARAMETERS}, and tilesseg never unpickles; write it where the network comes from: "
            "network.save_pretrained(FOLDER, safe_serialization=True)"
        )
    if "_model_class" in config:
        return _smp(folder, config)
    if config.get("architectures") and config.get("model_type"):
        return _transformers(folder, config)
    raise ModelError(
        f"{folder / CONFIG} names neither _model_class (segmentation_models_pytorch) nor architectures (transformers); "
        "export the network where it comes from"
    )


def _library(extra: str, folder: Path) -> Any:
    package = LIBRARIES[extra]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            cannot(f"convert {folder} without {package}", one_line(error), f"pip install 'tilesseg[{extra}]'")
        ) from None


def _smp(folder: Path, config: Mapping[str, Any]) -> HubNetwork:
    smp, name = _library("smp", folder), str(config["_model_class"])
    made = getattr(smp, name, None)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ModelError(f"{folder} is a network {name}, which this {smp.__name__} does not have; install a newer one")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        network = made(**{**known, "encoder_weights": None})  # its parameters are in the folder, not downloaded
        network.load_state_dict(load_file(folder / PARAMETERS))
    except (TypeError, ValueError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(cannot(f"load {folder}", error, "install the version that wrote it")) from None
    note = "normalise: as in its training; smp.encoders.get_preprocessing_params(encoder_name) has ImageNet's"
    return HubNetwork(network, int(config.get("in_channels") or 3), notes=(note,))


def _transformers(folder: Path, config: Mapping[str, Any]) -> HubNetwork:
    name = str(config["architectures"][0])
    if not name.endswith(TASK):
        raise ModelError(f"{folder} is a network {name}, tilesseg takes one whose name ends with {TASK}; take another")
    library = _library("huggingface", folder)
    made = getattr(library, name, None)
    if made is None:
        raise ModelError(f"{folder} is a network {name}, which this transformers does not have; install a newer one")
    try:
        inner = made.from_pretrained(folder, use_safetensors=True, local_files_only=True, trust_remote_code=False)
    except (TypeError, ValueError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(cannot(f"load {folder}", error, "install the version that wrote it")) from None
    bands = int(config.get("num_channels") or 3)
    facts, notes = _processing(folder / PROCESSOR, bands)
    return HubNetwork(WholeSize(inner), bands, _labels(config), facts, notes)


class WholeSize(nn.Module):
    """A network of transformers whose scores are interpolated to the size of the patch, as its library does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        scores: Tensor = self.network(pixel_values=patches).logits
        return torch.nn.functional.interpolate(scores, size=patches.shape[2:], mode="bilinear", align_corners=False)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    labels = config.get("id2label") or {}
    names = tuple(str(name) for _, name in sorted(labels.items(), key=lambda row: int(row[0])))
    return names if len(set(names)) == len(names) else ()


def _processing(file: Path, bands: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Keys of a spec from the configuration of the image processor, and what is to be checked."""
    if not file.is_file():
        return {}, ()
    data = _json(file)
    scale = float(data.get("rescale_factor") or 1 / 255) if data.get("do_rescale", True) else 1.0
    top = round(1 / scale) if scale != 1.0 else 1
    facts: dict[str, Any] = {"input_range": [0, top]}
    mean, std = data.get("image_mean") or (), data.get("image_std") or ()
    if data.get("do_normalize", True) and len(mean) == len(std) == bands:
        scaled = {"mean": [each / scale for each in mean], "std": [each / scale for each in std]}
        facts["normalise"] = {"kind": "mean_std", **scaled}
    elif not data.get("do_normalize", True):
        facts["normalise"] = {"kind": "range", "low": 0, "high": top}
    resized = data.get("do_resize", True)
    note = "resolution: its images are resized before the network, so take scenes of the pixels that it was trained on"
    return facts, (note,) if resized else ()


def _json(file: Path) -> dict[str, Any]:
    """Object of a JSON file.

    Raises:
        ModelError: the file cannot be read, or holds no object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(cannot(f"read {file}", error, "get the folder again")) from None
    if not isinstance(data, dict):
        raise ModelError(f"{file} holds a {type(data).__name__}, not an object; get the folder again")
    return data
