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
from tilesseg.training.library_networks import export_network

WEIGHTS_FILE, PROGRAM_FILE = "weights.safetensors", "network.pt2"


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
