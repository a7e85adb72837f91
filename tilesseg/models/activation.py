"""From a network's raw scores to scores between 0 and 1, on the CPU.

In NumPy for every engine, where an element's result does not depend on its place in the array (a test shows it):
vectorised loops may treat the last elements of a row apart, and then `crop` would not be exact.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Activation = Literal["softmax", "sigmoid", "none"]


def activate(scores: NDArray[Any], activation: Activation) -> NDArray[np.float32]:
    """Activate `scores (n, score, y, x)`; softmax is over the scores of a pixel. The result is contiguous float32."""
    result = np.ascontiguousarray(scores, np.float32)
    if activation == "softmax":
        result = np.exp(result - result.max(axis=1, keepdims=True))
        result /= result.sum(axis=1, keepdims=True)
    elif activation == "sigmoid":
        small = np.exp(-np.abs(result))  # of a negative number only: it cannot overflow
        result = np.where(result >= 0, np.float32(1), small) / (1 + small)
    return result
