"""A `model.yaml` for a weights file, from what the file says and what a trial of it shows.

Nothing is guessed: what neither says (the values of the imagery, the order of the bands) stays open, and is named. Of
ONNX the metadata of the QGIS plugin Deepness are read, too: class names, resolution, mean and standard deviation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tilesseg.errors import ModelError, cannot
from tilesseg.models.bundle import Bundle
from tilesseg.models.elsewhere.deepness_metadata import class_names, classes_of, facts_of, tile_size
from tilesseg.models.foreign_files import EXPORT, foreign_problem
from tilesseg.models.load import load_model
from tilesseg.models.shape_advice import LABELS, LAST, type_problem
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.models.trial.trial_batches import SIDES, Run, first_answers, sides_taken, small_sides
from tilesseg.models.trial.value_checks import is_whole, sums_to_one, within_unit

MOST_BANDS = 32
"""Largest number of bands that is tried where the file does not state it."""
GAPS = {
    "input_range": "[0, 255]   # lowest and highest value of the imagery that it was trained on, before normalise",
    "normalise": "{kind: mean_std, mean: […], std: […]}   # as in its training; kind: none if it normalises itself",
}
"""Keys that no file says, as they stand in the comment of a new spec."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Facts that a file states about itself."""

    shape: tuple[int | None, ...] | None = None
    """Shape of the input, None for each free axis; None where the file states none."""
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NewSpec:
    """Text of a new `model.yaml`."""

    text: str
    gaps: tuple[str, ...]
    """Required keys that are still to be stated."""
    checks: tuple[str, ...]
    """Sentences about values that the file does not state, and that are to be checked."""


def new_spec(
    file: Path, *, bands: Sequence[str] = (), classes: Sequence[str] = (), facts: Mapping[str, Any] | None = None
) -> NewSpec:
    """Write the text of a spec for a weights file.

    Args:
        file: the weights file.
        bands: names of the bands, which no file states.
        classes: names of the classes, where the file states none.
        facts: keys of the spec that are known from elsewhere, such as `normalise`.

    Raises:
        ModelError: the file is no network that tilesseg loads, or it fits no spec.
    """
    kind, declared = _kind(file), Declared()
    if kind == "onnx":
        declared = _onnx(file)
    elif kind == "exported":
        from tilesseg.models.exported.export_archive import read_program

        declared = Declared(tuple(size.fixed for size in read_program(file).shape))
    held = {"file": file.name, "sha256": _sha256(file)}
    base = {"name": file.stem, "engine": kind, "weights": held, "normalise": {"kind": "none"}, "input_range": [-1, 1]}
    number, sides, run = _run(base, file, declared)
    if bands and len(bands) != number:
        raise ModelError(f"{file} takes {number} channels, and --bands names {len(bands)}; name {number} bands")
    scores, found, checks = _scores(file, base, number, sides, run)
    names = list(classes) or class_names(declared.metadata or {})
    spec: dict[str, Any] = {"format": 1, **base, "bands": list(bands) or [f"band {k}" for k in range(1, number + 1)]}
    known = {**_deepness(declared, number, sides, found), **(facts or {})}
    spec |= {"patch": sides, **found, **known}
    spec["classes"] = classes_of(names, scores, threshold="decision" in spec, file=file)
    if not bands:
        checks = (*checks, "bands: write their names in the order of the network's channels, such as red, green, blue")
    gaps = tuple(key for key in GAPS if key not in known)
    parse_spec(spec, where=f"the new spec of {file}")
    for key in [*gaps, *([] if spec["patch"] else ["patch"])]:
        del spec[key]
    comment = "".join(f"# {key}: {GAPS[key]}\n" for key in gaps)
    head = "# to state, for no file says it:\n" if gaps else ""
    return NewSpec(yaml.safe_dump(spec, sort_keys=False, width=110) + head + comment, gaps, checks)


def _kind(file: Path) -> str:
    """Engine of a weights file, by its content.

    Raises:
        ModelError: it is the file of another library, or of none.
    """
    try:
        problem = foreign_problem(file)
        with file.open("rb") as opened:
            head = opened.read(4)
    except OSError as error:
        raise ModelError(cannot(f"read {file}", error, "give a weights file")) from None
    if problem:
        raise ModelError(problem)
    if head == b"PK\x03\x04":
        return "exported" if file.suffix.lower() == ".pt2" else "torchscript"
    if file.suffix.lower() == ".onnx" or head[:1] == b"\x08":
        return "onnx"
    raise ModelError(f"{file} is neither TorchScript, a .pt2 program nor ONNX; {EXPORT}")


def _onnx(file: Path) -> Declared:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"cannot read {file}: onnxruntime is missing; pip install 'tilesseg[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes of onnxruntime's errors are private and have no common base
        raise ModelError(cannot(f"run {file} by onnxruntime", error, "export it again")) from None
    if len(session.get_inputs()) != 1:
        raise ModelError(f"{file} has {len(session.get_inputs())} inputs; export it with one")
    source = session.get_inputs()[0]
    if problem := type_problem(file, source.type):
        raise ModelError(problem)
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in source.shape)
    return Declared(shape, session.get_modelmeta().custom_metadata_map)


def _run(base: Mapping[str, Any], file: Path, declared: Declared) -> tuple[int, dict[str, int], Run]:
    """Number of bands, section `patch` without `shrink`, and the network.

    Raises:
        ModelError: the network takes no patches that tilesseg gives.
    """
    shape = declared.shape or (None, None, None, None)
    if len(shape) == 4 and (shape[3] or MOST_BANDS + 1) <= MOST_BANDS < (shape[1] or MOST_BANDS + 1):
        raise ModelError(f"{file} takes channels last (n, y, x, channel); {LAST}")
    fixed = shape[2] if len(shape) == 4 and shape[2] is not None else None
    problem = ""
    for number in [shape[1]] if len(shape) == 4 and shape[1] else range(1, MOST_BANDS + 1):
        patch = {"fixed": fixed} if fixed else {}
        spec = _provisional(base, number, patch)
        run = load_model(Bundle(spec, file.parent, file), device="cpu", engine=_native(spec), precision="fp32").raw
        taken = (fixed,) if fixed else sides_taken(spec, run)
        if taken:
            return number, patch or _sides(spec, run, taken), run
        problem = f"none of {', '.join(map(str, SIDES))} px"
    raise ModelError(f"{file} takes patches of {problem or 'no size'}; export it for (n, channel, y, x) of float32")


def _native(spec: ModelSpec) -> str:
    return "onnxruntime" if spec.engine == "onnx" else "torch"


def _provisional(base: Mapping[str, Any], bands: int, patch: Mapping[str, int]) -> ModelSpec:
    names = [f"band {k}" for k in range(1, bands + 1)]
    classes = [{"name": name, "colour": "grey"} for name in ("a", "b")]
    return parse_spec({**base, "bands": names, "patch": dict(patch), "classes": classes}, where="a trial")


def _sides(spec: ModelSpec, run: Run, taken: Sequence[int]) -> dict[str, int]:
    """Section `patch` of a network of free sides."""
    if len(taken) == 1:
        return {"fixed": taken[0]}
    multiple = math.gcd(*taken)
    even, odd = (np.zeros((1, len(spec.bands), side, side), np.float32) for side in (taken[-1], taken[-1] + 1))
    try:
        free = run(odd).shape[-1] == run(even).shape[-1] + 1
    except ModelError:
        free = False
    return {} if free else {"multiple": multiple, "stride_multiple": multiple & -multiple}


def _scores(
    file: Path, base: Mapping[str, Any], bands: int, sides: dict[str, int], run: Run
) -> tuple[int, dict[str, Any], tuple[str, ...]]:
    """Number of scores, the keys of activation and decision, and what is to be checked; completes `sides`.

    Raises:
        ModelError: the network gives no scores (n, class, y, x).
    """
    spec = _provisional(base, bands, sides)
    answers = first_answers(spec, run)
    given, got = answers.patches.shape, answers.first.shape
    if len(got) == 3 or (len(got) == 4 and got[1] == 1 and is_whole(answers.first) and answers.first.max() > 1):
        raise ModelError(f"{file} gives labels, not scores: {got} for patches {given}; {LABELS}")
    if len(got) != 4 or got[0] != given[0]:
        raise ModelError(f"{file} gives {got} for patches {given}; export it so that it gives scores (n, class, y, x)")
    cut = given[2] - got[2]
    if cut:
        larger = small_sides(spec)[1]
        if not 0 < cut < given[2] // 2 or cut % 2 or larger - answers.second.shape[2] != cut:
            raise ModelError(
                f"{file} gives {got} for patches {given}; add torch.nn.functional.interpolate at its end, so that "
                "scores have the size of the patch"
            )
        sides["shrink"] = cut
    scores, values = got[1], answers.first
    inside = all(within_unit(each) for each in (values, answers.second, answers.far))
    if scores == 1:
        threshold = {"decision": {"kind": "threshold", "threshold": 0.5}}
        return 1, {"activation": "none" if inside else "sigmoid", **threshold}, ()
    if sums_to_one(values):
        return scores, {"activation": "none"}, ()
    if inside:
        return scores, {"activation": "none", "decision": {"kind": "threshold", "background": True}}, ()
    return scores, {"activation": "softmax"}, ("activation: softmax, or sigmoid if a pixel may be of several classes",)


def _deepness(declared: Declared, bands: int, sides: Mapping[str, int], found: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that metadata of Deepness state; empty where the file has none."""
    metadata, decision = declared.metadata or {}, found.get("decision")
    keys = facts_of(metadata, bands=bands, threshold=decision is not None)
    if decision is not None and "decision" in keys:
        keys["decision"] = {**decision, "threshold": keys["decision"]["threshold"]}
    tile = tile_size(metadata)
    if keys and tile is not None and not sides.get("fixed") and tile % sides.get("multiple", 1) == 0:
        keys["patch"] = {**sides, "preferred": tile}
    return keys


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
