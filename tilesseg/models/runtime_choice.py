"""Which runtime carries a network, in which precision, and why: `engine` and `precision` of a job, `auto` decided.

`spec.engine` says what kind of file a network is; the runtime that reads it is chosen here. What a machine is able to
do is asked on the machine that will compute (`machine`).
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
"""Runtimes that read each kind of file, its own first."""
TITLES: Mapping[Runtime, str] = {"torch": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "onnxruntime"}
EXTRAS: Mapping[str, str] = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Which extra of tilesseg installs a runtime."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
NOT_INSTALLED = ", OpenVINO is not installed"


@dataclass(frozen=True, slots=True)
class Able:
    """What a machine can do: asked where the network will run."""

    runtimes: tuple[str, ...] = ("torch",)
    """Those that are installed."""
    fast: tuple[str, ...] = ("fp32",)
    """Precisions that the device accelerates, the best first."""
    device: str = "cpu"
    processor: str = ""
    """Its name, to remember measurements by."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision; stored in the plan, and every worker must be able to follow it."""

    runtime: Runtime = "torch"
    precision: Precision = "fp32"
    why: str = ""
    """One sentence for people, such as `OpenVINO is installed and computes unet on CPUs; this processor accelerates
    bf16`."""


NATIVE, LEAST = Choice(), Able()
"""What nobody has chosen, and what every machine can do."""


def choose(spec: ModelSpec, able: Able, engine: str = "auto", precision: str = "auto") -> Choice:
    """Decide by what is installed and what the device accelerates.

    Args:
        spec: of the network.
        able: what the machine can do that will compute.
        engine: `auto`, or a runtime: `torch`, `openvino`, `onnxruntime`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        ModelError: what is asked for is not installed, does not read this kind of file, or is not for this device.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ModelError(f"precision {precision} is unknown; write auto, {', '.join(PRECISIONS)}")
    if ":" in spec.engine:
        return _own(spec, engine, precision)
    if spec.engine not in KINDS:
        known = ", ".join(KINDS)
        raise ModelError(f"model {spec.name} has engine {spec.engine}; known are {known}, or package.module:Class")
    runtime, because = _runtime(spec, able, engine)
    computed, why = _precision(runtime, able, precision)
    return Choice(runtime, computed, f"{because}; {why}")


def _own(spec: ModelSpec, engine: str, precision: str) -> Choice:
    if engine not in ("auto", "own") or precision not in ("auto", "fp32"):
        raise ModelError(
            f"model {spec.name} brings its own code ({spec.engine}), and {engine} in {precision} is asked for; write "
            "engine: auto and precision: auto"
        )
    return Choice("own", "fp32", f"the model brings its own code ({spec.engine})")


def _runtime(spec: ModelSpec, able: Able, engine: str) -> tuple[Runtime, str]:
    """The runtime, and why."""
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
            f"engine {engine} is asked for and not installed; pip install 'tilesseg[{EXTRAS.get(engine, engine)}]'"
        )
    if runtime == "openvino" and not on_cpu:
        raise ModelError(f"engine openvino computes on CPUs, and the device is {able.device}; write device cpu or auto")
    return runtime, f"{TITLES[runtime]} is asked for"


def _precision(runtime: Runtime, able: Able, asked: str) -> tuple[Precision, str]:
    """The precision, and why."""
    offered, place = _offered(runtime, able.device), "processor" if able.device == "cpu" else "device"
    if asked == "auto":
        for fast in able.fast:
            if fast != "fp32" and fast in offered and runtime != "onnxruntime":
                return fast, f"this {place} accelerates {fast}"
        return "fp32", "in fp32" if runtime == "onnxruntime" else f"this {place} accelerates nothing below fp32"
    if asked not in offered:
        raise ModelError(
            f"precision {asked} is asked for, and {runtime} on {able.device} computes in {', '.join(offered)}; "
            "write one of them or auto"
        )
    slowly = asked not in able.fast and asked != "fp32"
    return asked, f"{asked} is asked for" + (f", which this {place} does not accelerate" if slowly else "")


def _offered(runtime: Runtime, device: str) -> tuple[Precision, ...]:
    """What a runtime can compute in; onnxruntime in fp16 by TensorRT, which rebuilds the network and is only asked."""
    if runtime == "onnxruntime":
        return ("fp32",) if device == "cpu" else ("fp32", "fp16")
    return ("fp32", "bf16") if device == "cpu" else PRECISIONS
