"""Models of bioimage.io as they are published: `rdf.yaml` or `bioimageio.yaml`, formats 0.4 and 0.5, as a `ModelSpec`.

Sizes, halo, pre- and postprocessing and pixel size are taken as described. Anything that a spec cannot express is
refused in one line. Nothing is downloaded: the folder holds the files. What `tilesseg models export` adds in
`config: {tilesseg: …}` completes the description. Source: the documentation of bioimageio.spec.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError, cannot, joined_lines, one_line
from tilesseg.models.bioimageio.input_output_tensors import Side, Tensor, tensors
from tilesseg.models.bioimageio.processing_steps import decision_of, normalise_of
from tilesseg.models.elsewhere.tilesseg_block import carried_weights, with_block
from tilesseg.models.spec import CLASS_COLOURS, Decision, ModelSpec, Weights, load_yaml, parse_spec

FILES = ("bioimageio.yaml", "rdf.yaml")
FORMATS = ("0.4", "0.5")
ENGINES = ("torchscript", "onnx")
"""Kinds of weights that are also our engines, the preferred kind first: torch is always installed."""
WHOLE = 32
"""Largest stride multiple: 2^5, of networks that halve the size five times."""
NAMELESS = re.compile(r"background|prediction|probabilit(y|ies)|scores?|masks?|output\d*|(channel|c)[ _]?\d*")
"""Names of an output that do not name a class."""
BACKGROUND = re.compile(r"back[ _-]?ground|bg|others?|none|nothing|void|unlabell?ed")
"""Names of an output for the pixels that belong to no other output."""
WHOLE_SUM = 0.01
"""Largest distance from 1 of the sum of scores of classes that exclude each other."""


def is_description(path: Path) -> bool:
    """Whether a file is a bioimage.io description, by its name."""
    return path.name.lower().endswith(FILES)


def read_description(path: Path, *, weights: Path | None = None) -> tuple[ModelSpec, Path]:
    """Read a description: the spec, and the path of the weights file that it names.

    Args:
        path: `rdf.yaml` or `bioimageio.yaml`, in the folder that holds the files it names.
        weights: path of a weights file, if it names several; default: TorchScript, else ONNX.

    Raises:
        ModelError: it is no description of a model, or tilesseg cannot represent the model.
    """
    data, where = _load(path), str(path)
    try:
        block = (data.get("config") or {}).get("tilesseg") or {}
        held, file = _held(data, block, path.parent, wanted=weights, where=where)
        source, target = tensors(data, where=where)
        spec = _spec(data, source, target, where=where, folder=path.parent, block=block)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
        problem = f"{type(error).__name__}: {joined_lines(error)[:100]}"
        raise ModelError(
            f"{where} does not follow its format {data['format_version']} ({problem}); check it with bioimageio.spec"
        ) from None
    except OSError as error:
        raise ModelError(cannot(f"read the files of {where}", error, "get the model again")) from None
    return parse_spec({**spec, **held}, where=where), file


def onnx_weights(path: Path) -> Weights | None:
    """ONNX file of a description, with its hash and without external data, if it lies in the folder; else None.

    Raises:
        ModelError: the description cannot be read.
    """
    entry = (_load(path).get("weights") or {}).get("onnx") or {}
    source, sha256 = entry.get("source"), str(entry.get("sha256") or "").lower()
    if not isinstance(source, str) or len(sha256) != 64 or entry.get("external_data"):
        return None
    file = _local(source, path.parent)
    return Weights(file=file.name, sha256=sha256) if file.parent == path.parent and file.is_file() else None


def _held(
    data: Mapping[str, Any], block: Mapping[str, Any], folder: Path, *, wanted: Path | None, where: str
) -> tuple[dict[str, Any], Path]:
    """Keys of a spec about its weights, and the path of the weights file: the attached one, else a portable one."""
    carried = carried_weights(block, folder, wanted=wanted, where=where)
    if carried:
        return carried, folder / carried["weights"]["file"]
    kind, entry, file = _weights(data.get("weights") or {}, folder, wanted=wanted, where=where)
    return {"engine": kind, "weights": {"file": file.name, "sha256": _sha256(entry, file)}}, file


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = load_yaml(path)
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "give the folder of the model")) from None
    version = str(data.get("format_version")) if isinstance(data, dict) else "none"
    if not version.startswith(tuple(f"{known}." for known in FORMATS)):
        raise ModelError(f"{path} has format_version {version}, tilesseg reads {' and '.join(FORMATS)}; convert it")
    if data.get("type", "model") != "model":
        raise ModelError(f"{path} describes a {data['type']}; give the description of a model")
    return dict(data)


def _weights(
    entries: Mapping[str, Any], folder: Path, *, wanted: Path | None, where: str
) -> tuple[str, Mapping[str, Any], Path]:
    """Kind, entry and path of the weights to load."""
    missing = []
    for kind in ENGINES:
        if kind in entries:
            source = entries[kind].get("source")
            if not isinstance(source, str):
                raise ValueError(f"the source of its {kind} weights is no name of a file")
            file = _local(source, folder)
            if not file.is_file():
                missing.append(f"{kind} ({file.name}, which is not in the folder)")
            elif wanted is None or wanted.resolve() == file.resolve():
                if entries[kind].get("external_data"):
                    raise ModelError(
                        f"{where}: the {kind} weights have a second file without a hash; export them as one file"
                    )
                return kind, entries[kind], file
    if wanted is not None:
        raise ModelError(f"{wanted} is not a weights file of {where}; take one of {', '.join(entries) or 'none'}")
    there = missing or list(entries) or ["none"]
    raise ModelError(
        f"{where} has weights as {', '.join(there)}, tilesseg loads {' and '.join(ENGINES)} files; convert the weights"
    )


def _local(source: str, folder: Path) -> Path:
    """Path in the folder of a file that is named by a path or an address."""
    return folder / (Path(urlsplit(source).path).name if "://" in source else source)


def _sha256(entry: Mapping[str, Any], file: Path) -> str:
    """Published hash of the weights; without it, the hash of the file as it is now."""
    if entry.get("sha256"):
        return str(entry["sha256"]).lower()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _spec(
    data: Mapping[str, Any], source: Tensor, target: Tensor, *, where: str, folder: Path, block: Mapping[str, Any]
) -> dict[str, Any]:
    """Spec as plain data, without engine and weights."""
    normalise, scaling = normalise_of(source.steps, bands=len(source.channels), dtype=source.dtype, where=where)
    out = target.range or _example_range(target, folder)
    stated = (block.get("model") or {}).get("decision")
    probability = stated is not None or (out is not None and out[0] >= 0 and out[1] <= 1)
    activation, decision = decision_of(
        target.steps,
        scores=len(target.channels),
        probability=probability,
        independent=_independent(target, folder),
        where=where,
    )
    described = {
        "name": str(data["name"]),
        "description": str(data.get("description") or ""),
        "licence": str(data.get("license") or "unknown"),
        "bands": source.channels,
        "dtype": source.dtype,
        "input_range": _input_range(source, folder, where=where, matters=not normalise.needs_scene),
        "scaling": scaling,
        "normalise": normalise.model_dump(exclude_defaults=True),
        "mpp": source.mpp,
        "patch": _patch(source, target, where=where),
        "activation": activation,
        "decision": decision.model_dump(),
        "classes": [{"name": name, "colour": colour} for name, colour in _classes(target, decision)],
    }
    return with_block(described, block, where=where) if block else described


def _patch(source: Tensor, target: Tensor, *, where: str) -> dict[str, Any]:
    """Section `patch`: sides of a square patch that both axes allow."""
    assert source.sides is not None  # of an input
    y, x = source.sides
    least = max(y.smallest, x.smallest)
    if not (_allows(y, least) and _allows(x, least)) or (y.step and x.step and y.step != x.step):
        raise ModelError(
            f"{where} takes no square patch: y is {_in_words(y)} and x is {_in_words(x)}; "
            "take a network with square patches"
        )
    rest = {"shrink": target.cut, "halo": target.halo}
    if not (y.step and x.step):
        return {"fixed": least, "stride_multiple": math.gcd(least, WHOLE), **rest}
    multiple = math.gcd(y.step, WHOLE)
    return {"offset": least, "multiple": y.step, "stride_multiple": multiple, **rest}


def _allows(side: Side, size: int) -> bool:
    return size == side.smallest or (side.step > 0 and (size - side.smallest) % side.step == 0)


def _in_words(side: Side) -> str:
    return f"{side.smallest} + k·{side.step}" if side.step else str(side.smallest)


def _independent(target: Tensor, folder: Path) -> bool | None:
    """Whether several scores are probabilities, each of its own, and none is the background's; None if unknown.

    The example shows it: scores of classes that exclude each other sum to 1.
    """
    if len(target.channels) == 1 or any(BACKGROUND.fullmatch(name.lower()) for name in target.channels):
        return False
    values = _example(target, folder)
    if values is None or values.ndim != 4 or values.shape[1] != len(target.channels):
        return None
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):  # NaN, too
        return None
    return bool(np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() > WHOLE_SUM)


def _classes(target: Tensor, decision: Decision) -> list[tuple[str, str]]:
    """Names and colours of the classes. Where no score belongs to the background, the background gets a name."""
    names, colours = list(target.channels), itertools.cycle(CLASS_COLOURS)
    if len(names) == 1 and NAMELESS.fullmatch(names[0].lower()):
        names = ["foreground"]
    if decision.kind == "threshold":
        return [("background", "black"), *((name, next(colours)) for name in names)]
    return [(name, "black" if name.lower() == "background" else next(colours)) for name in names]


def _input_range(source: Tensor, folder: Path, *, where: str, matters: bool) -> tuple[float, float]:
    """Range of the imagery: as described, else of 8 bit, else of the example."""
    if source.range is not None:
        return source.range
    if source.dtype == "uint8":
        return 0.0, 255.0
    example = _example_range(source, folder)
    if example is None and matters:
        raise ModelError(f"{where} states no range of its input, and its example {source.test} is missing; get it, too")
    return example or (0.0, 1.0)  # any range will do if the normalisation takes the scene's own statistics


def _example_range(tensor: Tensor, folder: Path) -> tuple[float, float] | None:
    """Lowest and highest value of the test tensor; None if it is missing."""
    values = _example(tensor, folder)
    if values is None:
        return None
    low, high = float(values.min()), float(values.max())
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _example(tensor: Tensor, folder: Path) -> NDArray[Any] | None:
    """Test tensor, not read yet; None if it is missing or empty."""
    file = _local(tensor.test, folder) if tensor.test else None
    if file is None or file.suffix != ".npy" or not file.is_file():
        return None
    try:
        values: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"its values are {values.dtype}")
    except Exception as error:  # of any class: a changed byte may be a length, or code of the header
        raise ModelError(f"{file} is no array of NumPy ({one_line(error)}); get it again") from None
    return values if values.size else None
