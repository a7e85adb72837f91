"""Measure how much the mask of a network depends on where it is cut: tiled against whole-image inference.

    python -m benchmarks.parts.tiling_answers [--steps 300]

Five small networks of one shape, which differ in what they see, learn the same made-up landscape; each then segments a
scene of 512 px whole (one patch) and in patches. The table is that of docs/tiling-changes-answers.md.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.synthetic_landscape import CLASSES, NODATA, Landscape, landscape

SIDE, WHOLE, WIDTH = 512, 768, 12
COLOURS = ("tan", "blue", "yellow", "green")
PATCHES = (64, 128, 256)
VIEWS = {
    "convolutions": "batch",
    "instance normalisation": "instance",
    "group normalisation": "group",
    "global pooling (squeeze and excitation)": "pool",
    "attention": "attention",
}


class Pool(nn.Module):
    """Squeeze and excitation: channels are weighted by their means over the patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.Sigmoid())

    def forward(self, values: Tensor) -> Tensor:
        weights: Tensor = self.weigh(functional.adaptive_avg_pool2d(values, 1).flatten(1))
        return values * weights[:, :, None, None]


class Attention(nn.Module):
    """Every place of the patch asks every other, at the coarsest level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.key, self.value = (nn.Conv2d(width, width, 1) for _ in range(3))

    def forward(self, values: Tensor) -> Tensor:
        ask, key, value = self.ask(values).flatten(2), self.key(values).flatten(2), self.value(values).flatten(2)
        shares = torch.softmax(ask.transpose(1, 2) @ key / values.shape[1] ** 0.5, dim=2)
        return values + (value @ shares.transpose(1, 2)).reshape(values.shape)


class Net(nn.Module):
    """U-Net of depth 2 whose `view` says what its layers see."""

    def __init__(self, bands: int, classes: int, view: str) -> None:
        super().__init__()
        w = WIDTH
        self.top, self.middle = convolved(bands, w, view), convolved(w, 2 * w, view)
        self.bottom, self.up = convolved(2 * w, 4 * w, view), convolved(6 * w, 2 * w, view)
        self.last, self.head = convolved(3 * w, w, view), nn.Conv2d(w, classes, 1)
        extra = {"pool": Pool, "attention": Attention}.get(view)
        self.extra = extra(4 * w) if extra else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        top = self.top(values)
        middle = self.middle(functional.max_pool2d(top, 2))
        bottom = self.extra(self.bottom(functional.max_pool2d(middle, 2)))
        up = self.up(torch.cat([functional.interpolate(bottom, scale_factor=2.0), middle], 1))
        result: Tensor = self.head(self.last(torch.cat([functional.interpolate(up, scale_factor=2.0), top], 1)))
        return result


def convolved(given: int, width: int, view: str) -> nn.Module:
    norms = {"instance": lambda: nn.InstanceNorm2d(width, affine=True), "group": lambda: nn.GroupNorm(4, width)}
    norm = norms.get(view, lambda: nn.BatchNorm2d(width))
    parts: list[nn.Module] = []
    for inputs in (given, width):
        parts += [nn.Conv2d(inputs, width, 3, padding=1), norm(), nn.ReLU()]
    return nn.Sequential(*parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agreement = " | ".join(f"agreement, {side} px" for side in PATCHES)
    accuracy = " | ".join(f"accuracy, {side} px" for side in PATCHES)
    print(f"| network | {agreement} | {accuracy} | accuracy, whole |")
    print("| --- |" + " --- |" * (2 * len(PATCHES) + 1))
    scene = landscape((SIDE, SIDE), 99)
    for name, view in VIEWS.items():
        with TemporaryDirectory() as folder:
            start = time.process_time()
            bundle = trained(Path(folder) / "bundle", view, steps=arguments.steps)
            image = written(Path(folder) / "scene.tif", scene.bands)
            whole = segmented(Path(folder) / "whole", image, bundle, WHOLE)
            masks = [segmented(Path(folder) / str(side), image, bundle, side) for side in PATCHES]
        agree = " | ".join(f"{(mask == whole)[scene.valid].mean():.2%}" for mask in masks)
        right = " | ".join(f"{(mask == scene.labels)[scene.valid].mean():.1%}" for mask in (*masks, whole))
        print(f"| {name} | {agree} | {right} |", flush=True)
        print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True, file=sys.stderr)


def trained(folder: Path, view: str, *, steps: int) -> Path:
    """Bundle of a network that has learnt landscapes from patches of 128 px."""
    torch.manual_seed(0)
    scenes = [landscape((SIDE, SIDE), seed) for seed in range(4)]
    values = np.concatenate([scene.bands[:, scene.valid] for scene in scenes], axis=1).astype(np.float64)
    mean, std = values.mean(axis=1), values.std(axis=1)
    network = Net(len(mean), len(CLASSES), view)
    adam = torch.optim.AdamW(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=steps)
    for patches, labels in drawn(scenes, mean, std, steps):
        adam.zero_grad()
        functional.cross_entropy(network(patches), labels, ignore_index=255).backward()
        adam.step()
        rate.step()
    return exported(folder, network.eval(), mean, std)


def drawn(
    scenes: list[Landscape], mean: NDArray[np.float64], std: NDArray[np.float64], steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of normalised patches and their labels."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = []
        for _ in range(4):
            scene = scenes[rng.integers(len(scenes))]
            y, x = rng.integers(SIDE - 128, size=2)
            at = slice(y, y + 128), slice(x, x + 128)
            batch.append((scene.bands[:, *at], np.where(scene.valid[at], scene.labels[at], 255)))
        values = np.stack([bands for bands, _ in batch]).astype(np.float32)
        normal = (values - mean[:, None, None]) / std[:, None, None]
        labels = np.stack([labels for _, labels in batch]).astype(np.int64)
        yield torch.from_numpy(normal.astype(np.float32)), torch.from_numpy(labels)


def exported(folder: Path, network: nn.Module, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Path:
    folder.mkdir(parents=True)
    file = folder / "weights.pt"
    torch.jit.script(network).save(str(file))
    spec = {
        "name": "view",
        "engine": "torchscript",
        "weights": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "bands": [f"b{number + 1}" for number in range(len(mean))],
        "dtype": "uint16",
        "input_range": [0, 10000],
        "normalise": {"kind": "mean_std", "mean": mean.tolist(), "std": std.tolist()},
        "patch": {"multiple": 4, "stride_multiple": 4},
        "classes": [{"name": name, "colour": colour} for name, colour in zip(CLASSES, COLOURS, strict=True)],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder


def written(path: Path, bands: NDArray[np.uint16]) -> Path:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", nodata=NODATA, **shape, **place) as file:
        file.write(bands)
    return path


def segmented(folder: Path, image: Path, bundle: Path, patch: int) -> NDArray[np.uint8]:
    """Mask by patches of a side, blended."""
    data = {
        "scenes": str(image),
        "model": str(bundle),
        "engine": "torch",
        "precision": "fp32",
        "input": {"bands": [1, 2, 3, 4], "check_range": False},
        "tiling": {"patch": patch, "overlap": patch // 4, "blend": "gaussian"},
        "output": {"dir": str(folder), "products": [], "preview": False},
        "cluster": {"kind": "serial", "engine_threads": 1, "device": "cpu"},
    }
    run_job(parse_job(data, where="tiling_answers.py"))
    return RunDirectory(folder).scene("scene").read(Window(0, 0, SIDE, SIDE))


if __name__ == "__main__":
    main()
