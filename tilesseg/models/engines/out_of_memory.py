"""Errors of a runtime as refusals: the device is out of memory, the device is lost, or anything else.

After `OutOfDeviceMemory` a worker halves its batches (`inference.segment_tile`).
"""

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
"""Errors of CUDA that repeat at every later call in the same process."""


def refusal(error: Exception, *, name: str, device: str, shape: tuple[int, ...]) -> ModelError:
    """Refusal for an error of a runtime.

    Args:
        error: error of the runtime.
        name: name of the model.
        device: device that computes.
        shape: shape of the patches.
    """
    text, where = str(error), f"model {name} fails on patches {shape}"
    if isinstance(error, MemoryError) or FULL.search(text):
        return OutOfDeviceMemory(
            f"model {name}: {device} has no memory for patches {shape}; take a smaller batch or patch"
        )
    if LOST.search(text):
        return DeviceLost(f"{where}: {one_line(error)}; start another process, {device} is lost in this one")
    return ModelError(f"{where}: {one_line(error)}; correct patch, bands or the weights file")
