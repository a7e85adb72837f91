"""The network of a bundle as TorchScript, `.pt2` or ONNX, for any batch and side that it takes; checked against it.

Batch normalisation is folded into the convolutions. Nothing is quantised or optimised: the difference from the bundle's
own network is rounding, is measured on batches of two sizes, and is refused where it is more.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilesseg.errors import ModelError, cannot, one_line
from tilesseg.models.bundle import Bundle
from tilesseg.models.engines.torch_weights import load_script, read_unet
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.exporting.source_traces import strip_script, stripped
from tilesseg.models.load import load_model
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.trial_batches import normalised_patches, small_sides

ROUNDING = 1e-3
"""Largest difference of scores before activation that counts as rounding, as a share of the largest score."""
AXES = {0: "n", 2: "y", 3: "x"}
"""Names of the axes of the patches that may have any size."""
NETWORKS = {"torchscript": "torchscript", "exported": "pt2", "onnx": "onnx"}
"""Kind of file of each engine whose weights file is a network of its own."""
SUFFIXES = {"torchscript": ".pt", "pt2": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True, slots=True)
class PortableNetwork:
    """A network in a file, with its largest difference from the bundle's own network."""

    file: Path
    kind: str
    """Kind of the file: `torchscript`, `pt2` or `onnx`."""
    difference: float
    """Largest difference of scores before activation; 0 where it is the bundle's own file."""
    side: int | None
    """Only side of patches that the file takes; None where it takes all that the spec allows."""

    def described(self, spec: ModelSpec) -> ModelSpec:
        """Spec of this file: that of the bundle, with a single side of patches where the file takes no other."""
        if self.side is None or spec.patch.fixed:
            return spec
        patch = spec.patch.model_copy(update={"fixed": self.side, "offset": 0, "multiple": 1, "preferred": None})
        return spec.model_copy(update={"patch": patch})


def write_network(bundle: Bundle, kind: str, folder: Path) -> PortableNetwork:
    """Write the network of a bundle as a file of this kind, and compare both.

    Args:
        bundle: a bundle with an engine of ours.
        kind: `torchscript`, `pt2` or `onnx`.
        folder: existing folder; the file is named `network` with the suffix of its kind.

    Raises:
        ModelError: the bundle brings its own code, the file cannot be made from its network, a library is missing, or
            the scores differ by more than rounding.
    """
    spec, weights = bundle.spec, _weights(bundle)
    file = folder / f"network{SUFFIXES[kind]}"
    if NETWORKS.get(spec.engine) == kind:
        shutil.copyfile(weights, file)
        return PortableNetwork(file, kind, 0.0, spec.patch.fixed)
    if spec.engine == "onnx":
        raise ModelError(f"model {spec.name} is ONNX, which has no way to {kind}; export it to onnx or bioimageio")
    side = small_sides(spec)[0]
    network, patches = _module(bundle), normalised_patches(spec, side)
    with _quiet():
        free = _WRITERS[kind](network, torch.from_numpy(patches), file, spec)
    return PortableNetwork(file, kind, _difference(bundle, file, kind, free=free), None if free else side)


def _weights(bundle: Bundle) -> Path:
    spec = bundle.spec
    if ":" in spec.engine or bundle.weights_path is None:
        raise ModelError(
            f"model {spec.name} brings its own code ({spec.engine}), which no other format carries; export its network "
            "where it comes from"
        )
    return bundle.weights_path


def _module(bundle: Bundle) -> nn.Module:
    """The bundle's network in evaluation mode, on the CPU."""
    weights = _weights(bundle)
    if bundle.spec.engine == "unet":
        return read_unet(bundle.spec, weights)
    return load_script(weights).eval() if bundle.spec.engine == "torchscript" else read_program(weights).eval()


def _to_script(network: nn.Module, patches: torch.Tensor, file: Path, spec: ModelSpec) -> bool:
    with torch.inference_mode(mode=False), torch.no_grad():
        traced = torch.jit.trace(network, patches, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, file)
    strip_script(file)
    return _takes_others(spec, lambda values: traced(torch.from_numpy(values)).numpy())


def _to_program(network: nn.Module, patches: torch.Tensor, file: Path, spec: ModelSpec) -> bool:
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(f"model {spec.name} is TorchScript, which torch.export does not take; export it to another")
    free = None if spec.patch.fixed else (dict.fromkeys(AXES, torch.export.Dim.AUTO),)
    with torch.no_grad(), _refusing(spec, "torch.export"):
        torch.export.save(stripped(torch.export.export(network, (patches,), dynamic_shapes=free)), file)
    return free is not None and _takes_others(spec, lambda values: read_program(file)(torch.from_numpy(values)).numpy())


def _to_onnx(network: nn.Module, patches: torch.Tensor, file: Path, spec: ModelSpec) -> bool:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ModelError(f"cannot write {file.name}: {package} is not installed; pip install 'tilesseg[export]'")
    names: dict[str, Any] = {"input_names": ["patches"], "output_names": ["scores"]}
    axes = {} if spec.patch.fixed else AXES
    with torch.no_grad(), _refusing(spec, "torch.onnx.export"):
        if isinstance(network, torch.jit.ScriptModule):  # which the newer exporter does not take
            free = {"patches": axes, "scores": axes}
            torch.onnx.export(network, (patches,), file, dynamo=False, dynamic_axes=free, **names)
        else:
            program = torch.onnx.export(
                network, (patches,), dynamo=True, dynamic_shapes=(axes,) if axes else None, verbose=False, **names
            )
            assert program is not None  # of the newer exporter
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # the lines of code that made it, with the paths of this machine
            program.save(file)
    return bool(axes) and _takes_others(spec, _runner(file))


_WRITERS: dict[str, Callable[[nn.Module, torch.Tensor, Path, ModelSpec], bool]] = {
    "torchscript": _to_script, "pt2": _to_program, "onnx": _to_onnx,
}  # fmt: skip


def _runner(file: Path) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: session.run(None, {name: values})[0]


def _takes_others(spec: ModelSpec, run: Callable[[NDArray[np.float32]], NDArray[Any]]) -> bool:
    """Whether a network takes another batch and a larger side than those it was written with."""
    first, second = small_sides(spec)
    patches = normalised_patches(spec, second, number=1)
    try:
        shape = run(patches).shape
    except Exception:  # of any class: each runtime has its own
        return False
    return second > first and shape[0] == 1 and shape[-1] == second - spec.patch.shrink


def _difference(bundle: Bundle, file: Path, kind: str, *, free: bool) -> float:
    """Largest difference of scores before activation on batches of one side, and of two if the sides are free.

    Raises:
        ModelError: it is more than rounding.
    """
    spec = bundle.spec
    engine = "onnxruntime" if kind == "onnx" else "torch"
    own = load_model(bundle, device="cpu", threads=1, engine="torch", precision="fp32")
    kinds = {"torchscript": "torchscript", "pt2": "exported", "onnx": "onnx"}
    held = spec.weights.model_copy(update={"file": file.name, "sha256": _sha256(file)}) if spec.weights else None
    other = spec.model_copy(update={"engine": kinds[kind], "unet": None, "weights": held})
    made = load_model(Bundle(other, file.parent, file), device="cpu", threads=1, engine=engine, precision="fp32")
    worst = 0.0
    for number, side in enumerate(dict.fromkeys(small_sides(spec) if free else small_sides(spec)[:1]), start=1):
        patches = normalised_patches(spec, side, number=3 - number, seed=number)
        expected, got = own.raw(patches), made.raw(patches)
        found = float(np.abs(expected - got).max()) if expected.shape == got.shape else float("inf")
        if not found <= ROUNDING * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"model {spec.name} as {kind} gives scores that differ by {found:.2g} from its own, of at most "
                f"{np.abs(expected).max():.2g}; export it to another format, or report this"
            )
        worst = max(worst, found)
    return worst


def _sha256(file: Path) -> str:
    import hashlib

    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _refusing(spec: ModelSpec, exporter: str) -> Iterator[None]:
    """Context that turns an error of torch's exporters, of any class, into a refusal of a single line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        why = one_line(error)
        raise ModelError(cannot(f"export model {spec.name} by {exporter}", why, "take another format")) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the warnings and log lines of torch's exporters, which are for authors of exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
