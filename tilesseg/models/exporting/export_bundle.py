"""`tilesseg models export`: a bundle written for another project, whole or not at all, with a record of its check.

`export.json` beside the files holds the model's hash, the versions, and the largest difference of each network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilesseg.atomic_write import published, scratch_folder
from tilesseg.errors import ModelError, cannot
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.exporting.mlm_writer import write_item
from tilesseg.models.exporting.portable_network import PortableNetwork, write_network
from tilesseg.models.exporting.rdf_writer import write_rdf
from tilesseg.models.spec import Weights
from tilesseg.models.spec_file import SPEC_FILE
from tilesseg.version import __version__

RECORD = "export.json"


@dataclass(frozen=True, slots=True)
class Export:
    """A written export."""

    target: Path
    files: tuple[str, ...]
    """Names of the files, in their order."""
    networks: tuple[PortableNetwork, ...]


def export_bundle(reference: str | Path, to: str, out: Path, *, authors: Sequence[str] = ()) -> Export:
    """Write a bundle for another project.

    Args:
        reference: MODEL, as `find_bundle` takes it.
        to: `bioimageio`, `mlm` or `onnx`.
        out: folder that does not exist yet, or is empty; for bioimageio also the path of a zip.
        authors: names for the description of bioimage.io.

    Raises:
        ModelError: the format is unknown, the target exists, or the bundle has no form in this format.
    """
    if to not in FORMATS:
        raise ModelError(f"format {to} is unknown; write {', '.join(FORMATS)}")
    packed = out.suffix.lower() == ".zip"
    if packed and to != "bioimageio":
        raise ModelError(f"{out} is a zip, which bioimageio alone knows; take --out with the path of a folder")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ModelError(f"{out} exists already, and is not replaced; take another --out, or remove it")
    bundle = find_bundle(reference)
    verify_weights(bundle)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if packed:
            with scratch_folder(out.with_suffix("")) as folder:
                made = _write(bundle, to, folder, authors)
                _pack(folder, out)
        else:
            with published(out, folder=True, replace=False) as folder:
                folder.mkdir()
                made = _write(bundle, to, folder, authors)
    except OSError as error:
        raise ModelError(cannot(f"write {out}", error, "take another --out")) from None
    return replace(made, target=out)


def _write(bundle: Bundle, to: str, folder: Path, authors: Sequence[str]) -> Export:
    networks = FORMATS[to](bundle, folder, authors)
    (folder / RECORD).write_text(_record(bundle, to, networks), encoding="utf-8")
    return Export(folder, tuple(sorted(file.name for file in folder.iterdir())), networks)


def _pack(folder: Path, target: Path) -> None:
    with published(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)


def _record(bundle: Bundle, to: str, networks: Sequence[PortableNetwork]) -> str:
    data: dict[str, Any] = {
        "to": to,
        "model": bundle.spec.name,
        "sha256": bundle.sha256,
        "networks": [
            {"file": each.file.name, "kind": each.kind, "largest_difference": each.difference, "side": each.side}
            for each in networks
        ],
        "versions": {"tilesseg": __version__, "torch": importlib.metadata.version("torch")},
    }
    return json.dumps(data, indent=1) + "\n"


def _to_onnx(bundle: Bundle, folder: Path, authors: Sequence[str]) -> tuple[PortableNetwork, ...]:
    """Write a bundle of ONNX: the network and its `model.yaml`."""
    network = write_network(bundle, "onnx", folder)
    with network.file.open("rb") as opened:
        held = Weights(file=network.file.name, sha256=hashlib.file_digest(opened, "sha256").hexdigest())
    spec = network.described(bundle.spec).model_copy(update={"engine": "onnx", "unet": None, "weights": held})
    (folder / SPEC_FILE).write_text(spec.to_yaml(), encoding="utf-8")
    return (network,)


def _to_bioimageio(bundle: Bundle, folder: Path, authors: Sequence[str]) -> tuple[PortableNetwork, ...]:
    return write_rdf(bundle, folder, authors=authors)


def _to_mlm(bundle: Bundle, folder: Path, authors: Sequence[str]) -> tuple[PortableNetwork, ...]:
    return write_item(bundle, folder)


FORMATS: dict[str, Callable[[Bundle, Path, Sequence[str]], tuple[PortableNetwork, ...]]] = {
    "bioimageio": _to_bioimageio, "mlm": _to_mlm, "onnx": _to_onnx,
}  # fmt: skip
"""Functions that write a bundle into a folder, by the name of the format."""
