"""What a runtime says when it cannot go on, as a refusal: a full device, a lost one, or anything else."""

from __future__ import annotations

import re

from tilesseg.errors import DeviceLost, ModelError, OutOfDeviceMemory, one_line

FULL = re.compile(
    r"out of memory|can't allocate memory|bad[_ ]alloc|failed to allocate|not enough memory|STATUS_ALLOC_FAILED", re.I
)
LOST = re.compile(
    r"illegal memory access|illegal instruction|device-side assert|unspecified launch failure|misaligned address"
    r"|invalid program counter|launch timed out|uncorrectable ECC|ECC error|hardware stack|device is lost"
    r"|CU(BLAS|DNN)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)",
    re.I,
)
"""Errors of CUDA that every later call in the same process repeats."""


def refusal(error: Exception, *, name: str, device: str, shape: tuple[int, ...]) -> ModelError:
    """The refusal that an error of a runtime means.

    Args:
        error: as the runtime raised it.
        name: of the model.
        device: where it computes.
        shape: of the patches.
    """
    text, where = str(error), f"model {name} fails on patches {shape}"
    if isinstance(error, MemoryError) or FULL.search(text):
        return OutOfDeviceMemory(
            f"model {name}: {device} has no memory for patches {shape}; take a smaller batch or patch"
        )
    if LOST.search(text):
        return DeviceLost(f"{where}: {one_line(error)}; {device} answers nothing any more in this process")
    return ModelError(f"{where}: {one_line(error)}")
