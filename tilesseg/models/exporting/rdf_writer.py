"""A bundle as a model of bioimage.io: `rdf.yaml` of format 0.5, test tensors, weights; as a folder or a zip.

`models.bioimageio` reads what is written here. Facts for which the format has no place (colours, the threshold, the
margin, the exact sides) lie in `config: {tilesseg: …}`; the bundle's own weights file lies beside, as an attachment.
Source: the documentation of bioimageio.spec, `model/v0_5`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tilesseg.errors import ModelError
from tilesseg.models.bundle import Bundle
from tilesseg.models.elsewhere.onnx_header import read_header
from tilesseg.models.elsewhere.tilesseg_block import block_of
from tilesseg.models.exporting.example_tensors import ExampleTensors, image_dtype, make_example_tensors
from tilesseg.models.exporting.portable_network import PortableNetwork, write_network
from tilesseg.models.load import load_model
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.trial_batches import small_sides

FORMAT = "0.5.4"
EPS = 1e-6
"""Least `eps` that the format allows, in place of 0."""
LICENCES = re.compile(
    r"Apache-2\.0|MIT|ISC|Unlicense|BSD-[23]-Clause|CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-[34]\.0|[AL]?GPL-[23]\.[01]"
    r"-(only|or-later)|MPL-2\.0|EUPL-1\.2"
)
"""Licences whose names the format takes; another one is named in the README alone."""


def write_rdf(bundle: Bundle, folder: Path, *, authors: Sequence[str] = ()) -> tuple[PortableNetwork, ...]:
    """Write a bundle into an existing folder as a model of bioimage.io.

    TorchScript is written of networks of PyTorch, ONNX of ONNX. The bundle's own file is attached where it is another.

    Raises:
        ModelError: its network or its normalisation has no form in this format.
    """
    spec = bundle.spec
    portable = write_network(bundle, "onnx" if spec.engine == "onnx" else "torchscript", folder)
    carried = _carry(bundle, folder) if spec.engine in ("unet", "exported") else None
    model = load_model(bundle, device="cpu", threads=1, engine=_native(spec), precision="fp32")
    side = portable.side or max(small_sides(spec)[0], _least(spec))
    made = make_example_tensors(model, side, eps=max(spec.normalise.eps, EPS))
    np.save(folder / "test_input.npy", made.image)
    np.save(folder / "test_output.npy", made.scores)
    (folder / "README.md").write_text(_readme(spec, portable), encoding="utf-8")
    data = _rdf(spec, portable, made, carried=carried, authors=authors)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(data, sort_keys=False, width=110), encoding="utf-8")
    return (portable,)


def _carry(bundle: Bundle, folder: Path) -> Path:
    """Copy the bundle's own weights file, under its own name."""
    assert bundle.weights_path is not None  # write_network has refused anything else
    target = folder / bundle.weights_path.name
    shutil.copyfile(bundle.weights_path, target)
    return target


def _native(spec: ModelSpec) -> str:
    return "onnxruntime" if spec.engine == "onnx" else "torch"


def _rdf(
    spec: ModelSpec, network: PortableNetwork, made: ExampleTensors, *, carried: Path | None, authors: Sequence[str]
) -> dict[str, Any]:
    attached = {"attachments": [{"source": carried.name, "sha256": _sha256(carried)}]} if carried else {}
    stated = _named(spec, carried) if carried else network.described(spec)
    block = block_of(stated, carried=carried is not None)
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": _name(spec.name),
        "description": spec.description[:1024] or f"Semantic segmentation: {', '.join(spec.score_names)}"[:1024],
        **({"license": spec.licence} if LICENCES.fullmatch(spec.licence) else {}),
        **({"authors": [{"name": name} for name in authors]} if authors else {}),
        "documentation": "README.md",
        "tags": ["semantic-segmentation", "2d", "tilesseg"],
        "inputs": [_input(spec, made, side=network.side)],
        "outputs": [_output(spec, made)],
        "weights": {network.kind: _weights_entry(network)},
        **attached,
        "config": {"tilesseg": block},
    }


def _named(spec: ModelSpec, carried: Path) -> ModelSpec:
    """Spec whose weights file lies beside the description."""
    assert spec.weights is not None  # a carried file is the spec's own
    held = spec.weights.model_copy(update={"file": carried.name, "package": None})
    return spec.model_copy(update={"weights": held})


def _name(name: str) -> str:
    """Name of 5 to 128 letters, digits and `_+- ()`, as the format demands."""
    plain = re.sub(r"[^A-Za-z0-9_+\- ()]", "-", name)[:128]
    return plain if len(plain) >= 5 else f"{plain} model"


def _weights_entry(network: PortableNetwork) -> dict[str, Any]:
    entry: dict[str, Any] = {"source": network.file.name, "sha256": _sha256(network.file)}
    if network.kind == "torchscript":
        version = importlib.metadata.version("torch").partition("+")[0]
        return {**entry, "pytorch_version": version, "comment": _measured(network)}
    opset = read_header(network.file).opset
    return {**entry, "opset_version": opset, "comment": _measured(network)}


def _measured(network: PortableNetwork) -> str:
    if not network.difference:
        return "scores before activation equal those of the bundle"
    return f"scores before activation differ by at most {network.difference:.2g} from those of the bundle"


def _least(spec: ModelSpec) -> int:
    """Smallest side that is described: so large that a prediction remains inside of the halo."""
    return spec.patch.at_least(spec.patch.shrink + 2 * _halo(spec) + spec.patch.multiple)


def _halo(spec: ModelSpec) -> int:
    """Border of a prediction that other tools are to leave out: the halo, else the margin of a padded network."""
    return spec.patch.halo or (0 if spec.patch.shrink else spec.margin or 0)


def _input(spec: ModelSpec, made: ExampleTensors, *, side: int | None) -> dict[str, Any]:
    size = side or {"min": _least(spec), "step": spec.patch.multiple}
    low, high = spec.input_range
    return {
        "id": "image",
        "axes": [*_first_axes(spec.bands), *({"type": "space", "id": a, "size": size, **_unit(spec)} for a in "yx")],
        "data": {"type": image_dtype(spec), "range": [_end(low), _end(high)]},
        "preprocessing": _preprocessing(spec),
        "test_tensor": {"source": "test_input.npy"},
    }


def _output(spec: ModelSpec, made: ExampleTensors) -> dict[str, Any]:
    axes, halo = [], _halo(spec)
    for axis in "yx":
        size: Any = {"tensor_id": "image", "axis_id": axis, "offset": -spec.patch.shrink}
        border = {"halo": halo} if halo and 2 * halo < made.scores.shape[-1] else {}
        axes.append({"type": "space", "id": axis, "size": size, **border, **_unit(spec)})
    unit = spec.activation != "none" or bool(made.scores.min() >= 0 and made.scores.max() <= 1)
    steps = {"softmax": [{"id": "softmax", "kwargs": {"axis": "channel"}}], "sigmoid": [{"id": "sigmoid"}]}
    return {
        "id": "scores",
        "axes": [*_first_axes(spec.score_names), *axes],
        "data": {"type": "float32", **({"range": [0.0, 1.0]} if unit else {})},
        "postprocessing": steps.get(spec.activation, []),
        "test_tensor": {"source": "test_output.npy"},
    }


def _first_axes(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"type": "batch"}, {"type": "channel", "channel_names": list(names)}]


def _unit(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.mpp is None else {"unit": "micrometer", "scale": spec.mpp}


def _end(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _preprocessing(spec: ModelSpec) -> list[dict[str, Any]]:
    """Steps of the spec's scaling and normalisation, in the words of the format.

    Raises:
        ModelError: a number that the format does not allow.
    """
    rule, steps = spec.normalise, [_step("ensure_dtype", dtype="float32")]
    if spec.scaling != (1.0, 0.0):
        steps.append(_step("scale_linear", gain=spec.scaling[0], offset=spec.scaling[1]))
    if rule.needs_scene:
        steps.append(_statistics(spec))
    elif rule.kind != "none":
        fixed = spec.normalisation()
        if min(fixed.divide) < EPS:
            raise ModelError(
                f"model {spec.name} divides by {min(fixed.divide):g}, and bioimage.io allows {EPS:g} at least; give "
                "scaling in model.yaml"
            )
        steps.append(
            _step("fixed_zero_mean_unit_variance", mean=list(fixed.subtract), std=list(fixed.divide), axis="channel")
        )
    if rule.clip is not None:
        steps.append(_step("clip", min=rule.clip[0], max=rule.clip[1]))
    if rule.sigmoid:
        steps.append({"id": "sigmoid"})
    if rule.binarize is not None:
        steps.append(_step("binarize", threshold=rule.binarize))
    return [*steps, _step("ensure_dtype", dtype="float32")]  # without it the values are cast to the image's type


def _statistics(spec: ModelSpec) -> dict[str, Any]:
    """Step of statistics of the whole image."""
    rule = spec.normalise
    axes = ["channel", "y", "x"] if rule.joint else ["y", "x"]
    eps = min(0.1, max(rule.eps, EPS))
    if rule.kind == "scene_mean_std":
        return _step("zero_mean_unit_variance", axes=axes, eps=eps)
    assert isinstance(rule.high, int | float)  # its spec refuses lists
    if rule.high <= 1:
        raise ModelError(
            f"model {spec.name} takes the percentile {rule.high:g}, and bioimage.io allows more than 1; raise "
            "normalise.high"
        )
    return _step("scale_range", axes=axes, eps=eps, min_percentile=rule.low, max_percentile=rule.high)


def _step(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "kwargs": arguments}


def _readme(spec: ModelSpec, network: PortableNetwork) -> str:
    """Documentation that the format demands."""
    classes = "\n".join(f"* {number}: {each.name}" for number, each in enumerate(spec.classes))
    return (
        f"# {spec.name}\n\n{spec.description or 'Semantic segmentation.'}\n\nLicence: {spec.licence}\n\n## Labels\n\n"
        f"{classes}\n\n## Validation\n\nSegment an image whose truth is known, and compare: `tilesseg segment "
        f"image.tif --model FOLDER --out mask.tif`. In {network.file.name}, {_measured(network)}.\n"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
