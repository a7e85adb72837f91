"""Choice of the runtime and the precision of a network, with the reason: `engine` and `precision` of a job.

`spec.engine` is the kind of the network's file; the runtime that reads it is chosen here. The abilities of a machine
are read on the machine that will compute (`hardware`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from tilesseg.errors import ModelError
from tilesseg.models.spec import ModelSpec

Runtime = Literal["torch", "openvino", "onnxruntime", "own"]
"""`own`: the engine of a model that brings its own code."""
Precision = Literal["fp32", "bf16", "fp16"]

KINDS: Mapping[str, tuple[Runtime, ...]] = {
    "unet": ("torch", "openvino"),
    "torchscript": ("torch", "openvino"),
    "exported": ("torch",),
    "onnx": ("onnxruntime", "openvino"),
}
"""Runtimes that read each kind of file, the native runtime first."""
TITLES: Mapping[Runtime, str] = {"torch": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "onnxruntime"}
EXTRAS: Mapping[str, str] = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Extra of tilesseg that installs a runtime, by its name."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
VARIES = "scores may differ in the last bits with the number of threads and the size of patches"
NOT_INSTALLED = ", OpenVINO is not installed"


@dataclass(frozen=True, slots=True)
class Able:
    """Abilities of a machine on which networks run."""

    runtimes: tuple[str, ...] = ("torch",)
    """Installed runtimes."""
    fast: tuple[str, ...] = ("fp32",)
    """Precisions that the device accelerates, the best first."""
    device: str = "cpu"
    processor: str = ""
    """Name of the processor or GPU: stored measurements belong to it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen runtime and precision; stored in the plan, and every worker must be able to follow it."""

    runtime: Runtime = "torch"
    precision: Precision = "fp32"
    why: str = ""
    """One sentence for people, such as `OpenVINO is installed and computes unet on CPUs; this processor accelerates
    bf16`."""


NATIVE, LEAST = Choice(), Able()
"""Defaults: the native runtime of PyTorch in fp32; a machine with PyTorch and fp32 only."""


def varies(kind: str, runtime: Runtime, device: str, *, compiled: bool = False) -> bool:
    """Whether the last bits of a network's scores may change with threads and sizes: docs/concepts.md has the table."""
    return device == "cpu" and runtime == "torch" and (kind != "unet" or compiled)


def choose(spec: ModelSpec, able: Able, engine: str = "auto", precision: str = "auto") -> Choice:
    """Choose by the installed runtimes and the precisions that the device accelerates.

    Args:
        spec: spec of the network.
        able: abilities of the machine that will compute.
        engine: `auto`, or a runtime: `torch`, `openvino`, `onnxruntime`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        ModelError: the requested runtime is not installed, does not read this kind of file, or does not support this
            device or precision.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ModelError(f"precision {precision} is unknown; write auto, {', '.join(PRECISIONS)}")
    if ":" in spec.engine:
        return _own(spec, engine, precision)
    if spec.engine not in KINDS:
        known = ", ".join(KINDS)
        raise ModelError(f"model {spec.name} has unknown engine {spec.engine}; write {known}, or package.module:Class")
    runtime, because = _runtime(spec, able, engine)
    computed, why = _precision(runtime, able, precision)
    return Choice(runtime, computed, f"{because}; {why}")


def _own(spec: ModelSpec, engine: str, precision: str) -> Choice:
    if engine not in ("auto", "own") or precision not in ("auto", "fp32"):
        raise ModelError(
            f"model {spec.name} brings its own code ({spec.engine}), and {engine} in {precision} is requested; write "
            "engine: auto and precision: auto"
        )
    return Choice("own", "fp32", f"the model brings its own code ({spec.engine})")


def _runtime(spec: ModelSpec, able: Able, engine: str) -> tuple[Runtime, str]:
    """Runtime, and the reason for it."""
    reads, on_cpu, kind = KINDS[spec.engine], able.device == "cpu", spec.engine
    if engine == "auto":
        if on_cpu and "openvino" in reads and "openvino" in able.runtimes:
            return "openvino", f"OpenVINO is installed and computes {kind} on CPUs"
        native = reads[0]
        if native not in able.runtimes:
            raise ModelError(
                f"model {spec.name} has engine {kind}, and {native} is not installed; "
                f"pip install 'tilesseg[{EXTRAS[native]}]'"
            )
        no_other = on_cpu and "openvino" in reads
        return native, f"{TITLES[native]} computes {kind}" + (NOT_INSTALLED if no_other else "")
    if engine not in TITLES:
        raise ModelError(f"engine {engine} is unknown; write auto, {', '.join(TITLES)}")
    runtime = cast("Runtime", engine)
    if runtime not in reads:
        raise ModelError(
            f"model {spec.name} has engine {kind}, which {engine} does not read; write auto or {' or '.join(reads)}"
        )
    if runtime not in able.runtimes:
        raise ModelError(
            f"engine {engine} is requested and not installed; pip install 'tilesseg[{EXTRAS.get(engine, engine)}]'"
        )
    if runtime == "openvino" and not on_cpu:
        raise ModelError(f"engine openvino computes on CPUs, and the device is {able.device}; write device cpu or auto")
    return runtime, f"{TITLES[runtime]} is requested"


def _precision(runtime: Runtime, able: Able, requested: str) -> tuple[Precision, str]:
    """Precision, and the reason for it."""
    offered, place = _offered(runtime, able.device), "processor" if able.device == "cpu" else "device"
    if requested == "auto":
        for fast in able.fast:
            if fast != "fp32" and fast in offered and runtime != "onnxruntime":
                return fast, f"this {place} accelerates {fast}"
        return "fp32", "in fp32" if runtime == "onnxruntime" else f"this {place} accelerates nothing below fp32"
    if requested not in offered:
        raise ModelError(
            f"precision {requested} is requested, and {runtime} on {able.device} computes in {', '.join(offered)}; "
            "write auto, or a precision of this list"
        )
    slowly = requested not in able.fast and requested != "fp32"
    return requested, f"{requested} is requested" + (f", which this {place} does not accelerate" if slowly else "")


def _offered(runtime: Runtime, device: str) -> tuple[Precision, ...]:
    """Precisions of a runtime; onnxruntime computes fp16 by TensorRT, which rebuilds the network: only on request."""
    if runtime == "onnxruntime":
        return ("fp32",) if device == "cpu" else ("fp32", "fp16")
    return ("fp32", "bf16") if device == "cpu" else PRECISIONS
