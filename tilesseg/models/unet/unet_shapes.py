"""Arithmetic of our U-Net, without PyTorch: legal patches, the border that it loses, its reach, its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tilesseg.models.spec import UNetShape

KERNEL = 3
CONVOLUTIONS = 2
"""Convolutions of a level, on the way down and again on the way up."""
_RISE = 2
"""Side of a transposed convolution, and its stride."""

Tensors = dict[str, tuple[int, ...]]


def padding_of(shape: UNetShape) -> int:
    """Padding of each convolution."""
    return KERNEL // 2 if shape.convolutions == "same" else 0


def joined_width(shape: UNetShape) -> int:
    """Channels of a level where its skip has met the path from below, as a multiple of the level's own."""
    return 2 if shape.skips == "concat" else 1


def shrink_of(shape: UNetShape) -> int:
    """Pixels by which the prediction is smaller than the patch, both sides together (184 for depth 4, valid)."""
    return _shrink(shape.depth) if shape.convolutions == "valid" else 0


def stride_multiple(shape: UNetShape) -> int:
    """Number by whose multiples a shift of the patch only shifts its prediction: 2^depth."""
    return int(2**shape.depth)


def patch_rule(shape: UNetShape) -> tuple[int, int]:
    """Legal patch sizes as `(offset, multiple)`: `offset + k · multiple`, larger than `shrink_of(shape)`."""
    multiple = stride_multiple(shape)
    lost = (KERNEL - 1) * CONVOLUTIONS * (multiple - 1)  # on the way down, in pixels of the patch
    return (lost % multiple if shape.convolutions == "valid" else 0), multiple


def reach_of(shape: UNetShape) -> int:
    """Receptive half-width: largest distance from a pixel to an input that changes its score, over all phases."""
    seen = [_seen(phase, phase, shape, shape.depth) for phase in range(stride_multiple(shape))]
    return max(max(phase - low, high - phase) for phase, (low, high) in enumerate(seen))


def margin_of(shape: UNetShape) -> int:
    """Margin that `crop` needs: reach of a cell of the stride multiple beyond itself, rounded up to that multiple."""
    multiple = stride_multiple(shape)
    low, high = _seen(0, multiple - 1, shape, shape.depth)
    return -(-max(-low, high - multiple + 1) // multiple) * multiple


def _seen(low: int, high: int, shape: UNetShape, depth: int) -> tuple[int, int]:
    """First and last input on which the scores of the pixels `low … high` depend, for a network of this depth."""
    level = (KERNEL // 2) * CONVOLUTIONS
    blur = 0 if shape.up == "transposed" else 1  # pixels of the lower level beside its own that interpolation uses
    first = 0 if shape.convolutions == "same" else level  # pixel of this level with which the lower one begins
    low, high = low - level, high + level
    if depth == 0:
        return low, high
    below = _seen((low - first - blur) // 2, (high - first + blur) // 2, shape, depth - 1)
    return min(low, 2 * below[0] + first) - level, max(high, 2 * below[1] + first + 1) + level


def _shrink(depth: int) -> int:
    lost = (KERNEL - 1) * CONVOLUTIONS
    return lost if depth == 0 else 2 * _shrink(depth - 1) + 2 * lost


def crop_of(shape: UNetShape, level: int) -> int:
    """Pixels that the skip of a level loses on each side: as many as the path below it, whose pixels count double."""
    return _shrink(shape.depth - level - 1) if shape.convolutions == "valid" else 0


class Unpadded(NamedTuple):
    """A padded network, computed without padding."""

    shape: UNetShape
    edge: int
    """Pixels by which a patch is cropped on each side beforehand, so that the same pixels are pooled together."""
    lost: int
    """Pixels on each side of a patch that have no prediction, `edge` among them."""


def unpadded(shape: UNetShape, margin: int) -> Unpadded | None:
    """Network without the padding of its convolutions, as published, if its prediction inside the margin is the same.

    The pixels that it does not predict lie in the margin and cost no time, as less of the way up is computed. The other
    pixels are the same, up to rounding.

    Args:
        shape: shape of the network.
        margin: unused pixels on each side of a patch.

    Returns:
        None if the convolutions have no padding, or the margin is too narrow.
    """
    bare = shape.model_copy(update={"convolutions": "valid"})
    edge = KERNEL // 2 * CONVOLUTIONS
    lost = edge + shrink_of(bare) // 2
    blurred = 0 if shape.up == "transposed" else stride_multiple(shape) - 1  # interpolated without a neighbour
    return Unpadded(bare, edge, lost) if shape.convolutions == "same" and margin >= lost + blurred else None


def tensors_of(channels: int, classes: int, shape: UNetShape) -> Tensors:
    """Names and shapes of all tensors of a network's state.

    Args:
        channels: bands of the input.
        classes: channels of the output.
        shape: shape of the network.
    """
    widths = [shape.width * 2**level for level in range(shape.depth + 1)]
    found: Tensors = {"head.weight": (classes, shape.width, 1, 1), "head.bias": (classes,)}
    for level, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
        found.update(_level_tensors(f"down.{level}", inputs, outputs, shape))
    for level, width in enumerate(widths[:-1]):
        found.update(_level_tensors(f"up.{level}", joined_width(shape) * width, width, shape))
        transposed = (2 * width, width, _RISE, _RISE)
        found[f"rise.{level}.0.weight"] = transposed if shape.up == "transposed" else (width, 2 * width, 1, 1)
        found[f"rise.{level}.0.bias"] = (width,)
    return found


def layers_of(level: str, shape: UNetShape) -> Iterator[tuple[str, str | None]]:
    """Names of a level's convolutions, each with the name of the batch normalisation behind it."""
    each = 3 if shape.batch_norm else 2
    for number in range(CONVOLUTIONS):
        yield f"{level}.{number * each}", f"{level}.{number * each + 1}" if shape.batch_norm else None


def _level_tensors(level: str, inputs: int, outputs: int, shape: UNetShape) -> Tensors:
    found: Tensors = {}
    for channels, (convolution, norm) in zip((inputs, outputs), layers_of(level, shape), strict=True):
        found[f"{convolution}.weight"] = (outputs, channels, KERNEL, KERNEL)
        if norm is None:
            found[f"{convolution}.bias"] = (outputs,)
            continue
        found |= {f"{norm}.{name}": (outputs,) for name in ("weight", "bias", "running_mean", "running_var")}
        found[f"{norm}.num_batches_tracked"] = ()
    return found
