"""Hardware of this machine: its runtimes, the precisions that its device accelerates, the name of its processor."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tilesseg.models.runtime_choice import Able

RUNTIMES = ("torch", "openvino", "onnxruntime")
CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Flags in `/proc/cpuinfo` that mean bf16 in hardware: of Intel, of AMD and Intel, of ARM."""
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that limit oneDNN, which computes for PyTorch and OpenVINO, to an instruction set."""
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of these variables that leave oneDNN no instruction for bf16."""


def kind_of(device: str) -> str:
    """Kind of a device: `cpu` or `cuda`, also for `auto`.

    PyTorch takes a second and more to import: it is imported only if it may have been built for GPUs.

    Raises:
        ModelError: this machine has no such device.
    """
    if device == "cpu" or (device == "auto" and version("torch").endswith("+cpu")):
        return "cpu"
    from tilesseg.models.engines.torch_engine import pick_device

    return pick_device(device).type


def able(device: str = "auto") -> Able:
    """Abilities of this machine. PyTorch is imported only to find a GPU, so not for `cpu`.

    Args:
        device: `auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1` …

    Raises:
        ModelError: this machine has no such device.
    """
    runtimes = tuple(name for name in RUNTIMES if find_spec(name) is not None)
    if device != "cpu":
        from tilesseg.models.engines.torch_engine import pick_device

        place = pick_device(device)
        if place.type == "cuda":
            return _cuda(runtimes, str(place))
    flags, name = cpu_of(_cpuinfo())
    accelerated = flags & {*CPU_FLAGS} and not _without_bf16()
    return Able(runtimes, ("bf16", "fp32") if accelerated else ("fp32",), "cpu", name)


def _without_bf16() -> bool:
    """Whether the environment limits oneDNN to an instruction set without bf16."""
    return any(os.environ.get(variable, "").upper() in WITHOUT_BF16 for variable in ISA_LIMITS)


def cpu_of(cpuinfo: str) -> tuple[frozenset[str], str]:
    """Flags and name of the first processor in the text of `/proc/cpuinfo`, which is empty if this is not Linux."""
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    facts = {key.strip().lower(): value.strip() for key, _, value in reversed(lines)}
    flags = facts.get("flags") or facts.get("features") or ""
    return frozenset(flags.split()), facts.get("model name") or platform.processor() or platform.machine()


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cuda(runtimes: tuple[str, ...], device: str) -> Able:
    """Abilities of a GPU: its tensor cores take bf16 from capability 8, fp16 from 7. Has not been run on a GPU."""
    import torch

    major, _ = torch.cuda.get_device_capability(device)
    fast = ("bf16", "fp16", "fp32") if major >= 8 else ("fp16", "fp32") if major >= 7 else ("fp32",)
    return Able(runtimes, fast, device, torch.cuda.get_device_name(device))
