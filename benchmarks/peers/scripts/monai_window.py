"""MONAI: the slide as one tensor, `sliding_window_inference`, the highest score, a tiled TIFF.

As documented: the window, batch and overlap of its examples and its defaults (float32, constant weights, overlap
0.25). Tuned by hand: channels_last, batch normalisation folded into the convolutions, bf16 where it is asked for, the
image normalised window by window, labels decided slab by slab.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import network
import numpy as np
import tifffile
import torch
from monai.inferers import sliding_window_inference

WINDOW, BATCH, OVERLAP = (512, 512), 4, 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs=4, metavar="IMAGE BUNDLE TORCHSCRIPT MASK")
    parser.add_argument("--tuned", choices=["fp32", "bf16"])
    asked = parser.parse_args()
    image, bundle, _, mask = asked.files
    module, mean, std = network.load(bundle)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = tifffile.imread(image, key=0)
    with torch.inference_mode():
        segment = tuned if asked.tuned else documented
        labels = segment(pixels, module.to(device), mean.to(device), std.to(device), bf16=asked.tuned == "bf16")
    tifffile.imwrite(mask, labels, tile=(512, 512), compression="deflate")


def documented(
    pixels: np.ndarray, module: torch.nn.Module, mean: torch.Tensor, std: torch.Tensor, *, bf16: bool
) -> np.ndarray:
    del bf16
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float().sub_(mean.cpu()).div_(std.cpu())[None].to(mean.device)
    scores = sliding_window_inference(tensor, WINDOW, BATCH, module, overlap=OVERLAP)
    return scores.argmax(1)[0].to(torch.uint8).cpu().numpy()


def tuned(
    pixels: np.ndarray, module: torch.nn.Module, mean: torch.Tensor, std: torch.Tensor, *, bf16: bool
) -> np.ndarray:
    folded = fold(module).to(memory_format=torch.channels_last)

    def predict(windows: torch.Tensor) -> torch.Tensor:
        values = ((windows.to(mean.device) - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(mean.device.type, torch.bfloat16, enabled=bf16):
            return folded(values).float()

    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()  # it adds scores up in the type of its input
    scores = sliding_window_inference(tensor, WINDOW, BATCH, predict, overlap=OVERLAP)
    labels = np.empty(pixels.shape[:2], np.uint8)
    for y in range(0, len(labels), 512):
        labels[y : y + 512] = scores[0, :, y : y + 512].argmax(0).to(torch.uint8).cpu().numpy()
    return labels


def fold(module: torch.nn.Module) -> torch.nn.Module:
    """Batch normalisation into the convolution before it, wherever one follows the other."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in module.modules():
        if isinstance(part, torch.nn.Sequential):
            for k in range(len(part) - 1):
                if isinstance(part[k], torch.nn.Conv2d) and isinstance(part[k + 1], torch.nn.BatchNorm2d):
                    part[k], part[k + 1] = fuse_conv_bn_eval(part[k], part[k + 1]), torch.nn.Identity()
    return module


if __name__ == "__main__":
    main()
