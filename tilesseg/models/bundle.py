"""Bundles: a `model.yaml` and its weights file, found by what a user writes for MODEL.

MODEL is a folder, a file, `package://name/path`, an https address with its sha256, or the name of a known bundle.
Models that bioimage.io, STAC MLM and MONAI describe, instead of a `model.yaml`, are bundles too.
`find_bundle` reads the spec alone; `verify_weights` hashes the weights, before anything loads them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tilesseg.errors import ModelError, cannot, reason_of
from tilesseg.models.download import fetch_bundle
from tilesseg.models.elsewhere.deepness_metadata import read_deepness
from tilesseg.models.foreign_files import foreign_problem
from tilesseg.models.spec import ModelSpec, Weights, read_spec
from tilesseg.models.spec_file import SPEC_FILE as SPEC_FILE
from tilesseg.models.spec_file import folder_of, is_foreign, onnx_beside, read_foreign, spec_in, unpacked

SPEC_SUFFIXES = (".yaml", ".yml")
SHIPPED = Path(__file__).parent.parent / "bundles"
EXTRAS = {"ukis_csmask": "clouds", "onnxruntime": "onnx"}
"""Extra of tilesseg that installs a package, by the package's name."""
FOREIGN = ("torchscript", "exported", "onnx")
"""Engines of networks that other libraries export."""
RUNTIMES = {"onnx": "onnxruntime"}
"""Engines whose runtime is not always installed."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on disk, not loaded."""

    spec: ModelSpec
    folder: Path
    """Folder of the spec."""
    weights_path: Path | None
    """None for an engine that is code alone."""
    onnx: Weights | None = None
    """ONNX file of the same network, which its description states beside TorchScript."""

    @property
    def sha256(self) -> str:
        """Identity of the model: hash of the spec, which holds the hash of the weights file.

        The description and values left at their defaults are not hashed: later versions of tilesseg give the same hash.
        """
        text = self.spec.model_dump_json(exclude={"description"}, exclude_defaults=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A row of `tilesseg models`."""

    name: str
    folder: Path
    spec: ModelSpec | None
    """None where the spec cannot be read; `problem` says why."""
    problem: str | None
    """Reason why it cannot be used here, such as `needs extra clouds`; None if it can."""


def find_bundle(reference: str | Path, *, schemes: Sequence[str] = ("https",)) -> Bundle:
    """Find the bundle that MODEL names. A bare name is a known model first, a path second; write `./name` for a path.

    Args:
        reference: a bundle folder or its `model.yaml`, or the description of another project in their place; a zip of
            bioimage.io; a weights file with its spec beside it;
            `package://name/path`; `https://…/model.yaml#sha256=…`; or a name from `list_models`.
        schemes: schemes that an address may have.

    Raises:
        ModelError: there is no such bundle, the spec is wrong, or the weights or their package are missing.
    """
    text = str(reference)
    try:
        if "://" not in text:
            known = {row.name: row.folder for row in _known()} if Path(text).name == text else {}
            return _at(known.get(text, Path(text).expanduser()))
        if text.startswith("package://"):
            package, _, path = text.removeprefix("package://").partition("/")
            return _at(_package_folder(package, wanted_by=text) / path)
        return _at(fetch_bundle(text, schemes=schemes))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ModelError(cannot(f"find the model {text[:100]}", error, "give the folder of a bundle")) from None


def list_models() -> tuple[KnownModel, ...]:
    """Bundles in the wheel, then bundles in the folders on `TILESSEG_MODELS`; an unusable bundle says why."""
    return tuple(_known())


def verify_weights(bundle: Bundle) -> None:
    """Compare the weights file with the sha256 in the spec, and refuse a file of another library.

    Raises:
        ModelError: the file cannot be read, has another sha256, or is of a kind that no engine loads.
    """
    if bundle.weights_path is None or bundle.spec.weights is None:
        return
    try:
        with bundle.weights_path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        why = error.strerror or error
        raise ModelError(cannot(f"read the weights {bundle.weights_path}", why, "get the file again")) from None
    if digest != bundle.spec.weights.sha256:
        raise ModelError(
            f"{bundle.weights_path} has sha256 {digest[:12]}…, the spec says {bundle.spec.weights.sha256[:12]}…; "
            "get the weights file again, or correct weights.sha256 if you meant to change it"
        )
    problem = foreign_problem(bundle.weights_path) if bundle.spec.engine in FOREIGN else None
    if problem:
        raise ModelError(problem)


def _is_name(text: str) -> bool:
    return Path(text).name == text and not Path(text).suffix


def _at(path: Path) -> Bundle:
    if path.is_dir():
        _refuse_foreign(path, spec=spec_in(path))
        return _read(spec_in(path))
    if path.suffix.lower() in SPEC_SUFFIXES or is_foreign(path):
        return _read(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return _read(spec_in(unpacked(path)))
    if path.is_file():
        return _of_weights(path)
    if _is_name(str(path)):
        known = ", ".join(row.name for row in _known()) or "none"
        raise ModelError(f"no model is named {path}; give a bundle folder, or a known name: {known}")
    raise ModelError(f"no model at {path}; give a bundle folder, a weights file with its spec, or a known name")


def _read(spec_file: Path, weights: Path | None = None) -> Bundle:
    """Read a spec with its weights file; `weights` chooses among the weights that another project describes."""
    if is_foreign(spec_file):
        spec, path = read_foreign(spec_file, weights=weights)
        other = onnx_beside(spec_file) if weights is None and spec.engine == "torchscript" else None
        return Bundle(spec, folder_of(spec_file), path, other)
    spec = read_spec(spec_file)
    held = None if spec.weights is None else _weights_path(spec.weights, spec_file.parent, name=spec.name)
    return Bundle(spec, spec_file.parent, held)


def _of_weights(weights: Path) -> Bundle:
    own = [weights.with_suffix(suffix) for suffix in SPEC_SUFFIXES]
    spec_file = next((path for path in own if path.is_file()), spec_in(weights.parent))
    _refuse_foreign(weights, spec=spec_file)
    if not spec_file.is_file():
        if weights.suffix.lower() == ".onnx" and (spec := read_deepness(weights)) is not None:
            return Bundle(spec, weights.parent, weights)
        names = dict.fromkeys((own[0].name, SPEC_FILE))
        raise ModelError(
            f"{weights} has no spec: no {' or '.join(names)} lies beside it; write one: tilesseg models new {weights}"
        )
    bundle = _read(spec_file, weights)
    if bundle.weights_path is None or bundle.weights_path.resolve() != weights.resolve():
        named = "none" if bundle.spec.weights is None else bundle.spec.weights.file
        raise ModelError(f"{spec_file} is the spec of {named}, not of {weights.name}; write {own[0].name} beside it")
    return bundle


def _refuse_foreign(path: Path, *, spec: Path) -> None:
    """Refuse a file or folder of another library that has no spec; with one, the engine that it names reads the file.

    Raises:
        ModelError: no spec would help.
    """
    problem = None if spec.is_file() else foreign_problem(path)
    if problem:
        raise ModelError(problem)


def _weights_path(weights: Weights, folder: Path, *, name: str) -> Path:
    if weights.package is not None:
        folder = _package_folder(weights.package, wanted_by=f"model {name}")
    path = folder / weights.file
    if not path.is_file():
        raise ModelError(f"model {name} needs the weights file {path}, which does not exist; put it there")
    return path


def _package_folder(package: str, *, wanted_by: str) -> Path:
    # find_spec locates without importing: a package of weights may need imports of its own
    installed = find_spec(package) if package.isidentifier() else None
    if installed is None or not installed.submodule_search_locations:
        extra = EXTRAS.get(package)
        todo = f"pip install 'tilesseg[{extra}]'" if extra else "install it"
        raise ModelError(f"{wanted_by} needs the package {package}, which is not installed; {todo}")
    return Path(next(iter(installed.submodule_search_locations)))


def _known() -> Iterator[KnownModel]:
    """Rows of known bundles; the first of two bundles of the same name hides the second."""
    seen: set[str] = set()
    for folder in _folders():
        if folder.name not in seen:
            seen.add(folder.name)
            yield _row(folder)


def _folders() -> Iterator[Path]:
    listed = os.environ.get("TILESSEG_MODELS", "").split(os.pathsep)
    for place in (SHIPPED, *(Path(entry).expanduser() for entry in listed if entry)):
        if spec_in(place).is_file():
            yield place
        else:
            yield from (folder for folder in sorted(place.glob("*")) if spec_in(folder).is_file())


def _row(folder: Path) -> KnownModel:
    spec_file = spec_in(folder)
    try:
        spec = _read(spec_file).spec if is_foreign(spec_file) else read_spec(spec_file)
    except (ModelError, OSError) as error:
        return KnownModel(folder.name, folder, None, reason_of(error))
    return KnownModel(folder.name, folder, spec, _problem(spec, folder))


def _problem(spec: ModelSpec, folder: Path) -> str | None:
    package = spec.weights.package if spec.weights else None
    for needed in (package, RUNTIMES.get(spec.engine)):
        if needed is not None and find_spec(needed) is None:
            extra = EXTRAS.get(package or needed)
            return f"needs extra {extra}" if extra else f"needs the package {needed}"
    try:
        _read(spec_in(folder))
    except (ModelError, OSError) as error:
        return reason_of(error)
    return None
