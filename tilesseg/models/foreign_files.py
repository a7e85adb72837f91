"""Files and folders of other libraries that are no network tilesseg loads, each with the way to one that it does."""

from __future__ import annotations

import zipfile
from pathlib import Path

EXPORT = (
    "in the code that it comes from, load it, call eval(), and save it by torch.jit.save(torch.jit.trace(network, "
    "torch.zeros(1, 3, 256, 256)), 'net.ts') or torch.onnx.export, then run: tilesseg models new net.ts"
)
_KERAS = (
    "convert it with tf2onnx: python -m tf2onnx.convert {how} --inputs-as-nchw INPUT --outputs-as-nchw OUTPUT "
    "--output net.onnx"
)
_HEADS = {b"\x89HDF\r\n\x1a\n": "keras", b"TFL3": "tflite"}


def foreign_problem(path: Path) -> str | None:
    """Sentence about a file or folder of another library, and its way to a network that tilesseg loads; else None.

    The content decides where it can be told, then the name.

    Raises:
        OSError: the path cannot be read.
    """
    kind = _folder_kind(path) if path.is_dir() else _file_kind(path)
    return kind and f"{path} {_TITLES[kind]}; {_REMEDIES[kind]}"


_TITLES = {
    "savedmodel": "is a TensorFlow SavedModel, which tilesseg does not load",
    "keras": "is a Keras model, which tilesseg does not load",
    "tflite": "is a TensorFlow Lite model, which tilesseg does not load",
    "graphdef": "is a frozen graph of TensorFlow, which tilesseg does not load",
    "checkpoint": "is a pickled checkpoint of PyTorch, and tilesseg never unpickles",
    "lightning": "is a pickled checkpoint of Lightning, and tilesseg never unpickles",
    "huggingface": "is a folder of Hugging Face or smp, parameters without a network",
    "safetensors": "holds parameters without a network",
    "esri": "is a package of ArcGIS, which tilesseg does not load",
}
_REMEDIES = {
    "savedmodel": _KERAS.format(how="--saved-model FOLDER"),
    "keras": "export it to a SavedModel (model.export), then " + _KERAS.format(how="--saved-model FOLDER"),
    "tflite": _KERAS.format(how="--tflite FILE"),
    "graphdef": _KERAS.format(how="--graphdef FILE"),
    "checkpoint": EXPORT,
    "lightning": EXPORT.replace("load it", "load it by load_from_checkpoint"),
    "huggingface": "convert it: tilesseg models convert FOLDER; or "
    + EXPORT.replace("load it", "load it by from_pretrained"),
    "safetensors": EXPORT + "; of safetensors tilesseg reads its own U-Net alone",
    "esri": "export its network to ONNX with the ArcGIS API (model.learn.model and torch.onnx.export)",
}


def _folder_kind(folder: Path) -> str | None:
    if (folder / "saved_model.pb").is_file():
        return "savedmodel"
    parameters = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]
    if parameters and (folder / "config.json").is_file():
        return "huggingface"
    return None


def _file_kind(file: Path) -> str | None:
    suffix = file.suffix.lower()
    with file.open("rb") as opened:
        head = opened.read(8)
    for start, kind in _HEADS.items():
        if head.startswith(start) or head[4:].startswith(start):
            return kind
    if suffix == ".keras":
        return "keras"
    if suffix in (".emd", ".dlpk"):
        return "esri"
    if suffix == ".pb":
        return "savedmodel" if file.name == "saved_model.pb" else "graphdef"
    if suffix == ".safetensors":
        return "safetensors"
    if _is_pickled(file, head):
        return "lightning" if suffix == ".ckpt" else "checkpoint"
    return None


def _is_pickled(file: Path, head: bytes) -> bool:
    """Whether a file is pickled by torch.save: an archive with `data.pkl` and no code, or a bare pickle."""
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # damaged: its reader says so
    return "data.pkl" in names and "constants.pkl" not in names
