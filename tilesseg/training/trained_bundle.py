"""A trained network as a bundle: `model.yaml`, its weights, its card, its figures, and a copy as ONNX on request.

`model.yaml` is written after the weights, so that half a bundle is never found.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from tilesseg.atomic_write import published
from tilesseg.errors import JobError, ModelError, cannot
from tilesseg.models.bundle import SPEC_FILE
from tilesseg.models.exporting.export_bundle import export_bundle
from tilesseg.models.spec import ModelSpec, Weights
from tilesseg.training.library_networks import export_network
from tilesseg.training.model_card import TrainingFacts, card_text, evaluation_json, figures_of

WEIGHTS_FILE, PROGRAM_FILE = "weights.safetensors", "network.pt2"
CARD_FILE, EVALUATION_FILE, ONNX_FOLDER = "CARD.md", "evaluation.json", "onnx"


def write_bundle(folder: Path, spec: ModelSpec, network: nn.Module) -> ModelSpec:
    """Write the weights and then `model.yaml` into a folder.

    Args:
        folder: folder of the bundle; made where there is none, its bundle replaced.
        spec: spec of the network, of engine `unet` or `exported`; its section `weights` is made anew.
        network: network on any device, in any mode; not changed.

    Returns:
        The spec as written, with the file's sha256.

    Raises:
        JobError: the network of a library cannot be exported.
        ModelError: the folder cannot be written.
    """
    name, content = _weights(spec, network)
    complete = spec.model_copy(update={"weights": Weights(file=name, sha256=hashlib.sha256(content).hexdigest())})
    write_files(folder, {name: content, SPEC_FILE: complete.to_yaml().encode()})
    return complete


def write_trained(
    folder: Path,
    spec: ModelSpec,
    network: nn.Module,
    *,
    facts: TrainingFacts,
    matrices: Mapping[str, Mapping[str, NDArray[np.int64]]],
    onnx: bool = False,
) -> ModelSpec:
    """Write the result of a training: the bundle, `CARD.md` and `evaluation.json`, and a bundle `onnx` on request.

    Args:
        folder: folder of the bundle.
        spec: spec of the network.
        network: network on any device, in any mode; not changed.
        facts: facts of the training, for the card.
        matrices: confusion matrix of each scene of each part that was scored, `validate` and `test`.
        onnx: whether the network is written as ONNX, too.

    Returns:
        The spec as written.

    Raises:
        JobError: the network of a library cannot be exported.
        ModelError: the folder cannot be written, or see `write_onnx_copy`.
    """
    written = write_bundle(folder, spec, network)
    if onnx:
        facts = replace(facts, onnx=write_onnx_copy(folder))
    parts = {part: figures_of(found, spec.classes) for part, found in matrices.items() if found}
    texts = {EVALUATION_FILE: evaluation_json(parts), CARD_FILE: card_text(written, facts, parts)}
    write_files(folder, {name: text.encode() for name, text in texts.items()})
    return written


def check_onnx() -> None:
    """Look for the packages that an ONNX copy needs.

    Raises:
        JobError: one is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise JobError(
            f"output.onnx needs {', '.join(missing)}, not installed here; pip install 'tilesseg[export]', or leave "
            "output.onnx out"
        )


def write_onnx_copy(folder: Path) -> str:
    """Write an ONNX copy of a bundle beside it, as a bundle of its own, and compare both.

    Returns:
        Sentence about the largest difference of a score.

    Raises:
        ModelError: it cannot be written as ONNX, or the scores differ by more than rounding.
    """
    target = folder / ONNX_FOLDER
    if target.exists():  # of an execution that died before the end
        shutil.rmtree(target)
    (network,) = export_bundle(folder, "onnx", target).networks
    return (
        f"copy as ONNX in `{ONNX_FOLDER}/`, compared with torch: scores before activation differ by "
        f"{network.difference:.1e} at most"
    )


def _weights(spec: ModelSpec, network: nn.Module) -> tuple[str, bytes]:
    """Name and content of the weights file."""
    if spec.engine == "exported":
        return PROGRAM_FILE, export_network(network, bands=len(spec.bands), sizes=spec.patch)[0]
    return WEIGHTS_FILE, save({name: each.detach().cpu().contiguous() for name, each in network.state_dict().items()})


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, one after the other, each complete or not at all.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with published(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ModelError(cannot(f"write the bundle {folder}", error, "choose another folder")) from None
