"""What the machine of a benchmark is: without it no figure means anything."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

LIBRARIES = ("tilesseg", "torch", "openvino", "onnxruntime", "numpy", "dask", "zarr", "tifffile", "rasterio")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_fp16")


def flags() -> set[str]:
    """What the processor can do, of what matters to a network."""
    return set(FLAGS) & set(_cpuinfo("flags").split())


def native_bf16() -> bool:
    return bool({"amx_bf16", "avx512_bf16"} & flags())


def runtimes() -> tuple[str, ...]:
    """Those that are installed and run a network of torch."""
    return ("torch", *(["openvino"] if importlib.util.find_spec("openvino") else []))


def cuda() -> str | None:
    """Name of the first CUDA device."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def memory_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def describe(peers: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Hardware, versions and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _cpuinfo("model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": sorted(flags()),
        "native_bf16": native_bf16(),
        "memory_gb": round(memory_gb(), 1),
        "gpu": cuda(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "peers": peers,
    }


def headline(machine: dict[str, Any]) -> str:
    """One paragraph for people."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    bf16 = "with" if machine["native_bf16"] else "without"
    return (
        f"{machine['date']}: {machine['cores']} cores of {machine['processor']} ({', '.join(machine['flags'])}; "
        f"{bf16} native bf16), {machine['memory_gb']} GB, GPU: {machine['gpu'] or 'none'}; load before the first run "
        f"{machine['load_before']}. Python {machine['python']}, {versions}."
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.partition(":")[0].strip() == key:
            return line.partition(":")[2].strip()
    return ""
