"""The U-Net of Ronneberger, Fischer and Brox (2015): ours to train, to ship in a bundle, and to run.

`UNetShape` gives it a depth, a width, batch normalisation, and padded (`same`) or unpadded (`valid`, as published)
convolutions. No branch looks at the size of the input, so the module exports as it is; a size outside `patch_rule`
fails where a skip meets the path from below. Source: https://arxiv.org/abs/1505.04597
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilesseg.models.spec import UNetShape

_KERNEL = 3
_CONVOLUTIONS = 2
"""Convolutions of a level, on the way down and again on the way up."""


class UNet(nn.Module):
    """Scores before activation for every pixel of a patch."""

    def __init__(self, channels: int, classes: int, shape: UNetShape) -> None:
        """Make a network with He's initial weights, drawn from torch's global generator.

        Args:
            channels: bands of the input.
            classes: channels of the output.
            shape: what the network looks like.
        """
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        self.down = nn.ModuleList(_Level(i, o, shape) for i, o in zip([channels, *widths], widths, strict=False))
        self.rise = nn.ModuleList(_Rise(2 * width, width, shape) for width in widths[:-1])
        self.up = nn.ModuleList(_Level(2 * width, width, shape) for width in widths[:-1])
        self.head = nn.Conv2d(shape.width, classes, 1)
        self.pool = nn.MaxPool2d(2)
        self.crops = tuple(_crop(shape, level) for level in range(shape.depth))
        self.apply(_initialise)

    def forward(self, patches: Tensor) -> Tensor:
        """Score patches.

        Args:
            patches: `(n, channels, P, Q)` float, normalised; P and Q by `patch_rule`.

        Returns:
            `(n, classes, P − shrink, Q − shrink)`, before softmax or sigmoid.

        Raises:
            RuntimeError: a side does not follow `patch_rule`, or leaves nothing to predict.
        """
        skips, x = [], patches
        for level in self.down[:-1]:
            skips.append(level(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for depth in reversed(range(len(skips))):
            skip = _centre(skips[depth], self.crops[depth])
            x = self.up[depth](torch.cat([skip, self.rise[depth](x)], dim=1))
        scores: Tensor = self.head(x)
        return scores


class _Level(nn.Sequential):
    """Two convolutions, each with its rectifier."""

    def __init__(self, inputs: int, outputs: int, shape: UNetShape) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            padding = _KERNEL // 2 if shape.convolutions == "same" else 0
            layers.append(nn.Conv2d(channels, outputs, _KERNEL, padding=padding, bias=not shape.batch_norm))
            if shape.batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class _Rise(nn.Sequential):
    """Twice the size, half the channels."""

    def __init__(self, inputs: int, outputs: int, shape: UNetShape) -> None:
        if shape.up == "transposed":
            super().__init__(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
        else:  # a 1 × 1 convolution commutes with interpolation, and costs a quarter before it
            super().__init__(
                nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            )


def shrink_of(shape: UNetShape) -> int:
    """How many pixels the prediction is smaller than the patch, both sides together (184 for depth 4, valid)."""
    return _shrink(shape.depth) if shape.convolutions == "valid" else 0


def stride_multiple(shape: UNetShape) -> int:
    """Shifting a patch by a multiple of this shifts its prediction and changes nothing else: 2^depth."""
    return int(2**shape.depth)


def patch_rule(shape: UNetShape) -> tuple[int, int]:
    """Legal patch sizes as `(offset, multiple)`: `offset + k · multiple`, larger than `shrink_of(shape)`."""
    multiple = stride_multiple(shape)
    lost = (_KERNEL - 1) * _CONVOLUTIONS * (multiple - 1)  # on the way down, in pixels of the patch
    return (lost % multiple if shape.convolutions == "valid" else 0), multiple


def reach_of(shape: UNetShape) -> int:
    """Receptive half-width: how far from a pixel an input can lie and still change its score, at the worst phase."""
    blur = 0 if shape.up == "transposed" else 1  # pixels of the lower level beside its own that interpolation uses
    seen = [_seen(phase, phase, blur, shape.depth) for phase in range(stride_multiple(shape))]
    return max(max(phase - low, high - phase) for phase, (low, high) in enumerate(seen))


def _seen(low: int, high: int, blur: int, depth: int) -> tuple[int, int]:
    """First and last input that a network of this depth looks at to score the pixels `low … high`."""
    level = (_KERNEL // 2) * _CONVOLUTIONS
    low, high = low - level, high + level
    if depth == 0:
        return low, high
    below = _seen((low - blur) // 2, (high + blur) // 2, blur, depth - 1)
    return min(low, 2 * below[0]) - level, max(high, 2 * below[1] + 1) + level


def _shrink(depth: int) -> int:
    lost = (_KERNEL - 1) * _CONVOLUTIONS
    return lost if depth == 0 else 2 * _shrink(depth - 1) + 2 * lost


def _crop(shape: UNetShape, level: int) -> int:
    """What the skip of a level loses on each side: as much as the path below it, whose pixels count double."""
    return _shrink(shape.depth - level - 1) if shape.convolutions == "valid" else 0


def _centre(skip: Tensor, crop: int) -> Tensor:
    return skip[..., crop:-crop, crop:-crop] if crop else skip


def _initialise(module: nn.Module) -> None:
    """He's initial weights, as the paper asks for; torch's own default is narrower."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
