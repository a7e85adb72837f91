"""ONNX copy of a trained network (`output.onnx`): a bundle of its own, compared with torch before it is trusted."""

from __future__ import annotations

import copy
import hashlib
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tilesseg.errors import JobError, ModelError, joined_lines
from tilesseg.models.bundle import SPEC_FILE, find_bundle
from tilesseg.models.load import load_model
from tilesseg.models.spec import ModelSpec, Weights
from tilesseg.models.trial.trial_batches import normalised_patches, small_sides
from tilesseg.raster.labels import decide

ONNX_FILE = "network.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages that write an ONNX file, and compute it."""
TOLERANCE = 1e-3
"""Largest difference of a score to torch that is accepted."""


def check_onnx() -> None:
    """Look for the packages that an ONNX copy needs.

    Raises:
        JobError: one is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise JobError(
            f"output.onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            f"pip install {' '.join(missing)}, or leave output.onnx out"
        )


def onnx_files(spec: ModelSpec, network: nn.Module) -> dict[str, bytes]:
    """Content of the files of a bundle of engine `onnx`.

    Args:
        spec: spec of the network, of any engine.
        network: network on any device, in any mode; not changed.

    Raises:
        ModelError: torch cannot write it as ONNX.
    """
    content = _exported(spec, network)
    weights = Weights(file=ONNX_FILE, sha256=hashlib.sha256(content).hexdigest())
    copied = spec.model_copy(update={"engine": "onnx", "unet": None, "weights": weights})
    return {ONNX_FILE: content, SPEC_FILE: copied.to_yaml().encode()}


def _exported(spec: ModelSpec, network: nn.Module) -> bytes:
    served = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    first = small_sides(spec)[0]
    second = first if spec.patch.fixed else spec.patch.at_least(first + 1)
    free = torch.export.Dim.DYNAMIC
    axes = {0: free} if spec.patch.fixed else {0: free, 2: free, 3: free}
    given = torch.zeros(2, len(spec.bands), first, second)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # torch's own of its own deprecations
        path = Path(folder) / ONNX_FILE
        try:
            torch.onnx.export(
                served, (given,), str(path), input_names=["patches"], output_names=["scores"], dynamo=True,
                dynamic_shapes=(axes,), external_data=False, verbose=False,
            )  # fmt: skip
            return path.read_bytes()
        except Exception as error:  # of any class: each part of the exporter has its own
            raise ModelError(
                f"model {spec.name} cannot be written as ONNX: {joined_lines(error)[:200]}; leave output.onnx out"
            ) from None


def compare_with_torch(copied: Path, bundle: Path) -> str:
    """Sentence about the differences of an ONNX copy, computed by onnxruntime, to its bundle, computed by torch.

    Raises:
        ModelError: they differ by more than rounding.
    """
    spec = find_bundle(bundle).spec
    patches = normalised_patches(spec, small_sides(spec)[0])
    first, second = (
        load_model(folder, device="cpu", engine=engine, precision="fp32").predict(patches)
        for folder, engine in ((bundle, "torch"), (copied, "onnxruntime"))
    )
    difference = float(np.abs(first - second).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the ONNX copy of model {spec.name} gives scores that differ from torch's by {difference:.2g}, more than "
            f"{TOLERANCE:g}; leave output.onnx out"
        )
    threshold = spec.decision.threshold
    equal = np.mean([decide(a, threshold) == decide(b, threshold) for a, b in zip(first, second, strict=True)])
    return (
        f"ONNX copy in `onnx/`: scores differ from torch's by {difference:.1e} at most, {equal:.3%} of labels are equal"
    )
