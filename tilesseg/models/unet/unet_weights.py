"""Weights file of our U-Net as arrays, without PyTorch, which takes seconds and 200 MB to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from tilesseg.errors import ModelError, one_line
from tilesseg.models.foreign_files import foreign_problem
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet.unet_shapes import tensors_of

EPSILON = 1e-5
"""Epsilon of PyTorch's batch normalisation."""

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
"""Types of the format, as NumPy reads them; NumPy has no bfloat16."""

Arrays = Mapping[str, NDArray[Any]]


class Convolution(NamedTuple):
    """Weights `(output, input, y, x)` and a bias for each output, float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def read_tensors(spec: ModelSpec, weights: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a U-Net of the shape `spec.unet`, by name.

    Raises:
        ModelError: the file is not safetensors, or its tensors do not fit the shape.
    """
    assert spec.unet is not None  # the spec refuses anything else
    try:
        found = {name: _array(tensor) for name, tensor in deserialize(weights.read_bytes())}  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is not a safetensors file: {one_line(error)}; get the file again") from None
    except KeyError as error:
        raise ModelError(f"{weights} has tensors of type {error}, not {', '.join(_TYPES)}; save float32") from None
    _compare(tensors_of(len(spec.bands), spec.score_channels, spec.unet), found, weights)
    return found


def _array(tensor: Mapping[str, Any]) -> NDArray[Any]:
    values = np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.copy()


def folded(tensors: Arrays, name: str, norm: str | None) -> Convolution:
    """A convolution with the batch normalisation behind it folded in: the same function, up to rounding."""
    weight = tensors[f"{name}.weight"].astype(np.float32)
    if norm is None:
        return Convolution(weight, tensors[f"{name}.bias"].astype(np.float32))
    scale, bias, mean, variance = (
        tensors[f"{norm}.{what}"].astype(np.float32) for what in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(variance + np.float32(EPSILON))
    return Convolution(weight * scale[:, None, None, None], bias - mean * scale)


def _compare(wanted: Mapping[str, tuple[int, ...]], found: Arrays, path: Path) -> None:
    if not wanted.keys() & found.keys():
        raise ModelError(foreign_problem(path) or f"{path} holds no tensor of the U-Net; give its own weights file")
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            who = "lacks" if name not in found else "has, beyond the network,"
            raise ModelError(f"{path} {who} the tensor {name}; correct the section `unet` or bands of its spec")
        if found[name].shape != wanted[name]:
            raise ModelError(
                f"{path} has {name} of shape {found[name].shape}, the spec makes it {wanted[name]}; "
                "correct bands, classes or the section `unet` of its spec"
            )
        if found[name].dtype.kind == "f" and not np.isfinite(found[name]).all():
            raise ModelError(f"{path} has {name} with values that are not finite numbers; train it again")
