"""Instruction sets that this processor can pretend to be limited to, by the environment of a new process.

Each library looks at its own variable when it is loaded: ATen, oneDNN (PyTorch's and OpenVINO's), MKL and NumPy.
onnxruntime knows no such variable, and always computes with what the processor has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

LIMITS: dict[str, dict[str, str]] = {
    "AVX-512": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""Variables for each, the widest first; the widest is what such a processor does by itself. Below SSE4.1 there is no
oneDNN."""
BEYOND: dict[str, tuple[str, ...]] = {
    "AVX-512": (),
    "AVX2": ("AVX512", "X86_V4"),
    "SSE4.1": ("AVX", "FMA", "F16C", "X86_V3", "X86_V4"),
}
"""How the names of NumPy's features begin that a set does not have."""
_NEEDS = {"AVX-512": "AVX512BW", "AVX2": "AVX2", "SSE4.1": "SSE41"}

HERE = [name for name, feature in _NEEDS.items() if __cpu_features__.get(feature)]
"""Sets that this processor has."""


def skip_what_cannot_be_pretended(engine: str, precision: str) -> None:
    """OpenVINO chooses kernels of bf16 by what the processor has, whatever its oneDNN is limited to."""
    if (engine, precision) == ("openvino", "bf16") and "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("bf16 of OpenVINO cannot be pretended on another processor")


def environment(name: str) -> dict[str, str]:
    """Variables for a process that is limited to a set."""
    less = [one for one in __cpu_dispatch__ if one.startswith(BEYOND[name]) and __cpu_features__.get(one)]
    own = {"NPY_DISABLE_CPU_FEATURES": " ".join(less)} if less else {}
    inherited = {key: value for key, value in os.environ.items() if key not in LIMITS["AVX2"]}
    return {**inherited, **LIMITS[name], **own, "PYTHONPATH": os.pathsep.join(sys.path)}


def run_limited(name: str, script: str, *arguments: str, timeout: float = 900) -> tuple[Any, str]:
    """Run a script of this folder in a process limited to a set.

    Returns:
        What it printed last, read as JSON, and all that it printed.

    Raises:
        RuntimeError: it failed, with what it printed.
    """
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(command, env=environment(name), capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} on {name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), done.stdout
