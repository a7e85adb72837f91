"""Checkpoints: the state of a training on disk, tensors as safetensors and facts as JSON. Nothing is ever unpickled.

    state/  step-00000200.safetensors  step-00000200.json  step-00000400.safetensors  step-00000400.json

The JSON is written last and holds the hash of both, so a checkpoint is whole or is none. The last two are kept:
where the newest is damaged, training goes on from the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError, cannot

KEPT = 2
"""Number of checkpoints that are kept."""
_NAME = re.compile(r"step-(\d+)\.(json|safetensors)")
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored state of a training."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_checkpoint(folder: Path, step: int, *, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all, and remove all but the last two.

    Args:
        folder: folder of the checkpoints; made where there is none.
        step: number of the last step that is done; an existing checkpoint of this step is replaced.
        tensors: tensors by name, on any device.
        facts: plain data.

    Raises:
        StoreError: the folder cannot be written.
    """
    weights, record = _paths(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)  # between the two renames there is no checkpoint of this step
        with published(weights) as temporary:
            save_file({name: _plain(tensor) for name, tensor in tensors.items()}, temporary)
            digest = _sha256(temporary, facts)
        text = json.dumps({"step": step, "sha256": digest, "facts": dict(facts)}, indent=1, allow_nan=False)
        with published(record) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        _forget(folder)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            cannot(f"write the checkpoint {record}", error, "make room and run again, which goes on from the last one")
        ) from None


def read_checkpoint(folder: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Newest checkpoint that is whole, on the CPU, and a sentence for each newer one that is damaged.

    Returns:
        None where there is no checkpoint.

    Raises:
        StoreError: there are checkpoints, and all are damaged.
    """
    notes: list[str] = []
    for step in _steps(folder):
        found = _read(folder, step)
        if isinstance(found, Checkpoint):
            before = [f"{note}; training goes on from step {step:,}" for note in notes]
            return found, tuple(before)
        notes.append(found)
    if notes:
        raise StoreError(f"{notes[0]}, and there is no older one that is whole; remove {folder} to train anew")
    return None, ()


def _read(folder: Path, step: int) -> Checkpoint | str:
    """Checkpoint of a step, or why it is none."""
    weights, record = _paths(folder, step)
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
        digest, facts = str(data["sha256"]), dict(data["facts"])
        if _sha256(weights, facts) != digest:
            return f"the checkpoint {weights} is damaged (its sha256 is not {digest[:12]}…)"
        return Checkpoint(step, load_file(weights), facts)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        return f"the checkpoint {record} is damaged ({type(error).__name__})"


def _steps(folder: Path) -> Iterator[int]:
    """Steps of the checkpoints that were finished, the newest first."""
    names = (_NAME.fullmatch(path.name) for path in folder.glob("step-*.json"))
    yield from sorted((int(name[1]) for name in names if name), reverse=True)


def _forget(folder: Path) -> None:
    kept = list(_steps(folder))[:KEPT]
    for path in folder.glob("step-*"):
        name = _NAME.fullmatch(path.name)
        if name and int(name[1]) not in kept:
            path.unlink(missing_ok=True)


def _paths(folder: Path, step: int) -> tuple[Path, Path]:
    return folder / f"step-{step:08d}.safetensors", folder / f"step-{step:08d}.json"


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _sha256(path: Path, facts: Mapping[str, Any]) -> str:
    """Hash of a file and of plain data beside it."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
