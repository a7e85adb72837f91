"""Measures in which respects an engine gives the same bits; prints JSON. Run by `test_instruction_sets` in a process
that is limited to an instruction set: `measured_laws.py FOLDER NAME …`, each NAME of `CASES`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from safetensors.torch import save_file
from test_torch_engine import make_bundle

from tilesseg.models.load import Model, load_model
from tilesseg.models.network import Call
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet

BANDS, DEPTH, MARGIN = 3, 3, 56
SIDE = 304


@dataclass(frozen=True)
class Case:
    """A kind of file in a runtime and a precision."""

    kind: str
    engine: str
    precision: str
    shape: dict[str, Any] = field(default_factory=dict)


CASES = {
    f"{kind}, {engine}, {precision}": Case(kind, engine, precision)
    for kind, engine, precisions in (
        ("unet", "torch", ("fp32", "bf16")),
        ("unet", "openvino", ("fp32", "bf16")),
        ("torchscript", "torch", ("fp32", "bf16")),
        ("torchscript", "openvino", ("fp32",)),
        ("exported", "torch", ("fp32", "bf16")),
        ("onnx", "onnxruntime", ("fp32",)),
        ("onnx", "openvino", ("fp32",)),
    )
    for precision in precisions
}
SHAPES = ({"width": 8}, {"width": 5, "up": "bilinear", "batch_norm": False, "skips": "add"})
"""Of the U-Net: one of even widths, and one of odd ones with added skips and 1 × 1 convolutions on its way up."""


def bundles(folder: Path, kind: str) -> Iterator[Path]:
    """A bundle of each shape; made by the first process that asks."""
    for number, shape in enumerate(SHAPES):
        place = folder / f"{kind}-{number}"
        if not (place / "model.yaml").exists():
            place.mkdir(parents=True)
            _write(place, kind, {"depth": DEPTH, **shape})
        yield place


def _write(place: Path, kind: str, shape: dict[str, Any]) -> None:
    torch.manual_seed(1)
    network = UNet(BANDS, 3, UNetShape(**shape)).eval()
    given = torch.zeros(2, BANDS, 64, 64)
    path = place / {"onnx": "net.onnx", "exported": "net.pt2", "torchscript": "net.pt"}.get(kind, "net.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        if kind == "unet":
            save_file(network.state_dict(), path)
        elif kind == "torchscript":
            torch.jit.save(torch.jit.trace(network, given), path)
        elif kind == "exported":
            dim = torch.export.Dim
            free = {0: dim("n", max=64), 2: 8 * dim("h", max=64), 3: 8 * dim("w", max=64)}
            torch.export.save(torch.export.export(network, (given,), dynamic_shapes=[free]), path)
        else:
            axes = {"x": {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(network, (given,), str(path), input_names=["x"], dynamic_axes=axes, dynamo=False)
    classes = [{"name": name, "colour": "black"} for name in "abc"]
    rule = {"multiple": 8, "stride_multiple": 8, "preferred": 160}
    own = {"unet": shape} if kind == "unet" else {}
    statistics = {"kind": "mean_std", "mean": [120.0] * BANDS, "std": [70.0] * BANDS}
    make_bundle(place, path, engine=kind, classes=classes, patch=rule, margin=MARGIN, normalise=statistics, **own)


def measure(folder: Path, case: Case) -> list[str]:
    """The laws that do not hold."""
    broken: set[str] = set()
    for place in bundles(folder, case.kind):
        broken |= set(_broken(place, case))
    return sorted(broken)


def _broken(place: Path, case: Case) -> Iterator[str]:
    """Where scores differ from those of the whole image, computed alone by two threads."""
    image = np.random.default_rng(2).uniform(0, 255, (1, BANDS, SIDE, SIDE)).astype(np.float32)
    corners = [(y, x) for y in (0, 64, 144) for x in (0, 88, 144)]
    patches = [np.ascontiguousarray(image[..., y : y + 160, x : x + 160]) for y, x in corners]

    def network(threads: int, parallel: int = 1, margin: int = 0) -> Any:
        how = {"device": "cpu", "engine": case.engine, "precision": case.precision}
        model: Model = load_model(place, threads=threads, parallel_batches=parallel, **how)
        return model.network(Call(np.dtype(np.float32), model.spec.normalisation(), labels=False, margin=margin))

    two = network(2)
    alone, whole = [two(one) for one in patches], two(image)
    inner = slice(MARGIN, 160 - MARGIN)
    for (y, x), one in zip(corners, alone, strict=True):
        there = whole[..., y + MARGIN : y + 160 - MARGIN, x + MARGIN : x + 160 - MARGIN]
        if not np.array_equal(one[..., inner, inner], there):
            yield "size of the patch"
    if any(not np.array_equal(network(threads)(patches[4]), alone[4]) for threads in (1, 3)):
        yield "threads"
    batch = two(np.concatenate(patches[:3]))
    turned = two(np.concatenate([patches[2], patches[0], patches[1]]))
    if not np.array_equal(turned, batch[[2, 0, 1]]):
        yield "place in the batch"
    if not np.array_equal(batch, np.concatenate(alone[:3])):
        yield "size of the batch"
    both = network(2, parallel=2)
    with ThreadPoolExecutor(4) as pool:
        if any(not np.array_equal(*pair) for pair in zip(pool.map(both, patches), alone, strict=True)):
            yield "batches at a time"
    bare = network(2, margin=MARGIN)
    large = bare(np.ascontiguousarray(image[..., :296, :296]))
    if not np.array_equal(bare(patches[0]), large[..., : 160 - 2 * MARGIN, : 160 - 2 * MARGIN]):
        yield "size of the patch"


def kernels_of_torch() -> list[str]:
    """Kernels of PyTorch's oneDNN for a small convolution, as it names them while it is verbose."""
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        torch.conv2d(torch.zeros(2, 16, 64, 64), torch.zeros(16, 16, 3, 3))
    return []  # they are printed, by another language than Python


def kernels_of_openvino(folder: Path) -> list[str]:
    """Kernels of the convolutions of a network that OpenVINO has compiled in float32."""
    model: Any = load_model(next(bundles(folder, "unet")), device="cpu", threads=1, engine="openvino", precision="fp32")
    model.predict(np.zeros((1, BANDS, 64, 64), np.float32))
    ((_, compiled),) = model.engine.kept.items()
    told = [one.get_rt_info() for one in compiled.network.get_runtime_model().get_ordered_ops()]
    return sorted({one["primitiveType"].astype(str) for one in told if "Conv" in one["layerType"].astype(str)})


def main(folder: str, *names: str) -> None:
    """Print what was measured, and what this process computes with."""
    kernels_of_torch()
    found: dict[str, list[str] | str] = {}
    for name in names:
        try:
            found[name] = measure(Path(folder), CASES[name])
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
    told: dict[str, Any] = {"laws": found, "aten": torch.backends.cpu.get_cpu_capability()}
    told["numpy"] = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    told["openvino"] = kernels_of_openvino(Path(folder)) if any("openvino" in name for name in names) else []
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
