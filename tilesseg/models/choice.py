"""Which runtime carries a network, in which precision, and why: `engine` and `precision` of a job, `auto` decided.

`spec.engine` says what kind of file a network is; the runtime that reads it is chosen here. What a machine is able to
do is asked on the machine that will compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runtime = Literal["torch", "openvino", "onnxruntime", "own"]
"""`own`: the engine of a model that brings its own code."""
Precision = Literal["fp32", "bf16", "fp16"]


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
    """One sentence for people, such as `OpenVINO is installed; this processor computes bf16 natively (amx_bf16)`."""


NATIVE, LEAST = Choice(), Able()
"""What nobody has chosen, and what every machine can do."""
