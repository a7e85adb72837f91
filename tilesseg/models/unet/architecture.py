"""U-Net of Ronneberger, Fischer and Brox (2015): trained here, shipped in a bundle, and run.

`UNetShape` gives it a depth, a width, batch normalisation, padded (`same`) or unpadded (`valid`, as published)
convolutions, and skips that are concatenated (as published) or added. No branch depends on the size of the input, so
the module can be exported; a size outside `patch_rule` fails where a skip meets the path from below.
Source: https://arxiv.org/abs/1505.04597
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.unet_shapes import KERNEL, crop_of, joined_width, padding_of


class UNet(nn.Module):
    """Scores before activation for every pixel of a patch."""

    def __init__(self, channels: int, classes: int, shape: UNetShape, *, dropout: float = 0.0) -> None:
        """Make a network with He's initial weights, drawn from torch's global generator.

        Args:
            channels: bands of the input.
            classes: channels of the output.
            shape: shape of the network.
            dropout: share of channels set to 0 at the end of the contracting path, while training and no longer.
        """
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        joined = joined_width(shape)
        self.down = nn.ModuleList(_Level(i, o, shape) for i, o in zip([channels, *widths], widths, strict=False))
        self.rise = nn.ModuleList(_Rise(2 * width, width, shape) for width in widths[:-1])
        self.up = nn.ModuleList(_Level(joined * width, width, shape) for width in widths[:-1])
        self.head = nn.Conv2d(shape.width, classes, 1)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.crops = tuple(crop_of(shape, level) for level in range(shape.depth))
        self.added = shape.skips == "add"
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
        x = self.dropout(self.down[-1](x))
        for depth in reversed(range(len(skips))):
            skip, below = _centre(skips[depth], self.crops[depth]), self.rise[depth](x)
            x = self.up[depth](skip + below if self.added else torch.cat([skip, below], dim=1))
        scores: Tensor = self.head(x)
        return scores


class _Level(nn.Sequential):
    """Two convolutions, each with its rectifier."""

    def __init__(self, inputs: int, outputs: int, shape: UNetShape) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            bias, padding = not shape.batch_norm, padding_of(shape)
            layers.append(nn.Conv2d(channels, outputs, KERNEL, padding=padding, bias=bias))
            if shape.batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class _Rise(nn.Sequential):
    """Layer to the next finer level: twice the size, half the channels."""

    def __init__(self, inputs: int, outputs: int, shape: UNetShape) -> None:
        if shape.up == "transposed":
            super().__init__(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
        else:  # a 1 × 1 convolution commutes with interpolation, and costs a quarter before it
            super().__init__(
                nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            )


def _centre(skip: Tensor, crop: int) -> Tensor:
    return skip[..., crop:-crop, crop:-crop] if crop else skip


def _initialise(module: nn.Module) -> None:
    """Set He's initial weights, as in the paper; torch's own default is narrower."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
