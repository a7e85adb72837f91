"""A trained network as a bundle: its parameters and its `model.yaml`, written so that half a bundle is never found."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import save
from torch import nn

from tilesseg.atomic_write import published
from tilesseg.errors import ModelError, cannot
from tilesseg.models.bundle import SPEC_FILE
from tilesseg.models.spec import ModelSpec, Weights

WEIGHTS_FILE = "weights.safetensors"


def write_bundle(folder: Path, spec: ModelSpec, network: nn.Module) -> ModelSpec:
    """Write the weights and then `model.yaml` into a folder.

    Args:
        folder: folder of the bundle; made where there is none, its bundle replaced.
        spec: spec of the network; its section `weights` is made anew.
        network: network on any device, in any mode; not changed.

    Returns:
        The spec as written, with the file's sha256.

    Raises:
        ModelError: the folder cannot be written.
    """
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})
    complete = spec.model_copy(
        update={"weights": Weights(file=WEIGHTS_FILE, sha256=hashlib.sha256(weights).hexdigest())}
    )
    write_files(folder, {WEIGHTS_FILE: weights, SPEC_FILE: complete.to_yaml().encode()})
    return complete


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
