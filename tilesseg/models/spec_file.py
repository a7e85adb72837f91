"""Spec files: `model.yaml`, or the description of another project in its place, found in a folder and read.

In this order: `model.yaml`; `bioimageio.yaml` or `rdf.yaml`; `item.json`, a STAC item of the extension MLM;
`configs/metadata.json` of a MONAI bundle. A zip of bioimage.io is unpacked once into the cache.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from tilesseg.atomic_write import published
from tilesseg.errors import ModelError, cannot
from tilesseg.models.bioimageio.rdf_description import FILES, is_description, onnx_weights, read_description
from tilesseg.models.download import cache_folder
from tilesseg.models.elsewhere.mlm_item import is_item, read_item
from tilesseg.models.elsewhere.monai_metadata import METADATA, read_metadata
from tilesseg.models.spec import ModelSpec, Weights

SPEC_FILE = "model.yaml"
ITEM = "item.json"
NAMES = (SPEC_FILE, *FILES, ITEM, str(METADATA))
"""Paths of spec files in a folder, the first one that exists counts."""
LARGEST = 64 << 30
"""Bytes that a zip may hold unpacked."""


def spec_in(folder: Path) -> Path:
    """Path of the spec in a folder: the first of `NAMES`, else the missing `model.yaml`."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), folder / SPEC_FILE)


def is_foreign(path: Path) -> bool:
    """Whether a file is the description of another project."""
    return is_description(path) or is_metadata(path) or (path.is_file() and is_item(path))


def is_metadata(path: Path) -> bool:
    """Whether a path is that of the metadata in a MONAI bundle."""
    return path.parts[-2:] == METADATA.parts


def folder_of(spec_file: Path) -> Path:
    """Folder of the bundle of a spec file."""
    return spec_file.parent.parent if is_metadata(spec_file) else spec_file.parent


def read_foreign(path: Path, *, weights: Path | None = None) -> tuple[ModelSpec, Path]:
    """Read the description of another project: the spec, and the path of the weights file.

    Args:
        path: a file of which `is_foreign` holds.
        weights: path of a weights file, where the description names several.

    Raises:
        ModelError: tilesseg cannot represent the model, or a file is missing.
    """
    if is_description(path):
        return read_description(path, weights=weights)
    return read_metadata(path) if is_metadata(path) else read_item(path, weights=weights)


def onnx_beside(path: Path) -> Weights | None:
    """ONNX file that a description of bioimage.io states with its hash, if it is there; else None.

    Raises:
        ModelError: the description cannot be read.
    """
    return onnx_weights(path) if is_description(path) else None


def unpacked(path: Path) -> Path:
    """Folder of a packed bundle, unpacked into the cache under the hash of the zip, unless it is there already.

    Raises:
        ModelError: the zip is damaged, holds no spec, is too large, or cannot be unpacked.
    """
    try:
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        target = cache_folder() / "models" / sha256
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path) as archive, published(target, folder=True) as folder:
                _unpack(archive, path, folder)
        return target
    except OSError as error:
        raise ModelError(cannot(f"unpack {path}", error, "unpack it by hand, and give the folder")) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(cannot(f"unpack {path}", error, "get it again")) from None


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    """Write the files of an archive, whose spec lies at its top or in its only folder, into a new folder.

    Raises:
        ModelError: there is no spec, a name leads out of the folder, or the files are too large.
    """
    files = [entry for entry in archive.infolist() if not entry.is_dir()]
    size = sum(entry.file_size for entry in files)
    if size > LARGEST:
        raise ModelError(f"{path} holds {size} bytes, more than {LARGEST}; unpack it by hand, and give the folder")
    tops = {PurePosixPath(entry.filename).parts[0] for entry in files}
    top = PurePosixPath(tops.pop()) if len(tops) == 1 and len(files) > 1 else PurePosixPath()
    folder.mkdir()
    for entry in files:
        name = PurePosixPath(entry.filename).relative_to(top)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
            raise ModelError(f"{path} has a file {entry.filename!r} outside of its folder; get it from a better source")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    if not spec_in(folder).is_file():
        raise ModelError(f"{path} holds no model: none of {', '.join(NAMES)}; give the zip of a model")
