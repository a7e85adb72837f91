"""Tiny networks as other people export them: true to their spec, or false in one way, as `.ts`, `.pt2` and ONNX.

Each variant is a network and the spec that goes with it; `write_model` makes the bundle. Nothing is trained: the
networks are a convolution or two with fixed numbers.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

KINDS = ("torchscript", "exported", "onnx")
SUFFIXES = {"torchscript": "ts", "exported": "pt2", "onnx": "onnx"}
THREE = [{"name": name, "colour": "grey"} for name in ("background", "water", "field")]
TWO = THREE[:2]
APART = [{"name": name, "colour": "grey"} for name in ("foreground", "boundary")]
ONE_SCORE = {"decision": {"kind": "threshold", "threshold": 0.5}, "classes": TWO, "activation": "sigmoid"}


class Net(nn.Module):
    """Logits of 3 bands: a convolution of `reach` pixels, and `end` behind it."""

    def __init__(
        self, scores: int = 3, reach: int = 1, end: Callable[[Tensor], Any] | None = None, **layer: Any
    ) -> None:
        super().__init__()
        torch.manual_seed(scores)
        options = {"padding": reach} | layer
        self.body = nn.Sequential(nn.Conv2d(3, 8, 2 * reach + 1, **options), nn.ReLU(), nn.Conv2d(8, scores, 1))
        nn.init.normal_(self.body[0].weight, std=0.5)
        nn.init.normal_(self.body[2].weight, std=0.8)
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.end(self.body(x))


class End(nn.Module):
    """Last step of a network."""

    def __init__(self, step: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Any:
        return self.step(x)


class Front(nn.Module):
    """A network with a step before it."""

    def __init__(self, step: Callable[[Tensor], Tensor], net: nn.Module) -> None:
        super().__init__()
        self.step, self.net = step, net

    def forward(self, x: Tensor) -> Any:
        return self.net(self.step(x))


class Squeezed(Net):
    """A network with global pooling."""

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        return x * 4 * torch.sigmoid(nn.functional.adaptive_avg_pool2d(x, 1))


class Normed(Net):
    """A network with instance normalisation."""

    def forward(self, x: Tensor) -> Any:
        return nn.functional.instance_norm(self.body(x))


class Attending(Net):
    """A network with attention over all pixels, written as matmul."""

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        small = nn.functional.avg_pool2d(x, 4)
        n, c, h, w = small.shape
        flat = small.reshape(n, c, h * w)
        mixed = torch.matmul(flat, torch.softmax(torch.matmul(flat.transpose(1, 2), flat) / 8, -1))
        return x + nn.functional.interpolate(mixed.reshape(n, c, h, w), scale_factor=4.0)


class Halved(Net):
    """A network of stride multiple 2."""

    def forward(self, x: Tensor) -> Any:
        small = nn.functional.max_pool2d(self.body(x), 2)
        return nn.functional.interpolate(small, scale_factor=2.0, mode="nearest")


class Reshaped(Net):
    """A network that was exported for 64 px, though its file says that sides are free."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.ones(1, 3, 64, 64))

    def forward(self, x: Tensor) -> Any:
        return self.body(x) + self.place


class Several(Net):
    """A network that gives more than one tensor, or one in a container."""

    def forward(self, x: Tensor) -> Any:
        return {"out": self.body(x), "aux": 2 * self.body(x)}


class InDict(Net):
    def forward(self, x: Tensor) -> Any:
        return {"out": self.body(x)}


class InList(Net):
    def forward(self, x: Tensor) -> Any:
        return [self.body(x)]


class InTuple(Net):
    def forward(self, x: Tensor) -> Any:
        return (self.body(x),)


def end(step: Callable[[Tensor], Any], scores: int = 3, **more: Any) -> Callable[[], nn.Module]:
    return lambda: Net(scores, end=End(step), **more)


@dataclass(frozen=True)
class Variant:
    """A network, its spec, and what has to be said of it."""

    network: Callable[[], nn.Module]
    spec: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    """Words of the refusal; None where it runs."""
    doubts: tuple[str, ...] = ()
    """Codes of the doubts about one that runs."""
    kinds: tuple[str, ...] = KINDS
    given: tuple[int, ...] = (2, 3, 64, 64)
    """Shape of the array that it is exported with."""
    dtype: torch.dtype = torch.float32
    crop: str | None = None
    """Words of the refusal of `blend: crop`; None where nothing is to be said of it."""


VARIANTS = {
    "plain": Variant(Net),
    "dict": Variant(InDict, kinds=("torchscript", "exported")),
    "list": Variant(InList, kinds=("torchscript", "exported")),
    "tuple": Variant(InTuple, kinds=("torchscript", "exported")),
    "two-outputs": Variant(Several, refused="2 outputs"),
    "softmax-inside": Variant(end(lambda y: torch.softmax(y, 1)), refused="set activation: none"),
    "softmax-inside-sigmoid": Variant(
        end(lambda y: torch.softmax(y, 1)), {"activation": "sigmoid"}, "set activation: none"
    ),
    "softmax-inside-none": Variant(end(lambda y: torch.softmax(y, 1)), {"activation": "none"}),
    "sigmoid-inside": Variant(end(torch.sigmoid, 1), ONE_SCORE, "set activation: none"),
    "sigmoids-inside-softmax": Variant(end(torch.sigmoid), refused="set activation: none"),
    "sigmoid-inside-none": Variant(end(torch.sigmoid, 1), ONE_SCORE | {"activation": "none"}),
    "logits-none": Variant(
        lambda: Net(1), ONE_SCORE | {"activation": "none"}, doubts=("scores-not-activated",)
    ),
    "foreground-boundary": Variant(
        end(torch.sigmoid, 2), {"activation": "none", "classes": APART}, doubts=("no-background",)
    ),
    "foreground-boundary-sigmoid": Variant(
        lambda: Net(2), {"activation": "sigmoid", "classes": APART}, doubts=("no-background",)
    ),
    "foreground-boundary-right": Variant(
        lambda: Net(2), {"activation": "sigmoid", "decision": {"kind": "threshold", "background": True}}
    ),
    "argmax": Variant(end(lambda y: y.argmax(1)), refused="gives labels, not scores"),
    "argmax-kept": Variant(end(lambda y: y.argmax(1, keepdim=True)), refused="gives labels, not scores"),
    "argmax-float": Variant(end(lambda y: y.argmax(1, keepdim=True).float()), refused="gives labels, not scores"),
    "binary-inside": Variant(end(lambda y: (y > 0).float(), 1), ONE_SCORE, "set activation: none"),
    "binary-none": Variant(
        end(lambda y: (y > 0).float(), 1), ONE_SCORE | {"activation": "none"}, doubts=("labels-not-scores",)
    ),
    "instances": Variant(
        end(lambda y: torch.round(20 * torch.relu(y)), 1), ONE_SCORE | {"activation": "none"}, "numbers of objects"
    ),
    "channels-last-out": Variant(end(lambda y: y.permute(0, 2, 3, 1)), refused="gives channels last"),
    "channels-last": Variant(
        lambda: Front(lambda x: x.permute(0, 3, 1, 2), Net(end=End(lambda y: y.permute(0, 2, 3, 1)))),
        refused="takes channels last",
        given=(2, 64, 64, 3),
    ),
    "quarter": Variant(lambda: Net(stride=4), refused="scale_factor=4"),
    "half": Variant(lambda: Net(stride=2), refused="scale_factor=2"),
    "unpadded": Variant(lambda: Net(reach=2, padding=0), refused="set patch.shrink: 4"),
    "unpadded-right": Variant(lambda: Net(reach=2, padding=0), {"patch": {"shrink": 4}}),
    "one-score": Variant(lambda: Net(1), refused="decision: {kind: threshold, threshold: 0.5}"),
    "four-scores": Variant(lambda: Net(4), refused="name 4 classes"),
    "no-score-of-the-first": Variant(lambda: Net(2), refused="background: true"),
    "whole-patch-scores": Variant(end(lambda y: y.mean((2, 3))), refused="not for each pixel"),
    "fixed": Variant(Reshaped, refused="set patch.fixed: 64", kinds=("torchscript", "onnx"), given=(1, 3, 64, 64)),
    "float16": Variant(lambda: Net().half(), refused="float32", dtype=torch.float16),
    "float64": Variant(lambda: Net().double(), refused="float32", dtype=torch.float64),
    "uint8": Variant(
        lambda: Front(lambda x: x.float() / 255, Net()), refused="takes uint8", dtype=torch.uint8,
        kinds=("exported", "onnx"),
    ),
    "pooled": Variant(Squeezed, doubts=("sees-whole-patch",)),
    "pooled-margin": Variant(Squeezed, {"margin": 16}, doubts=("sees-whole-patch",), crop="see the whole patch"),
    "normed-margin": Variant(Normed, {"margin": 16}, doubts=("sees-whole-patch",), crop="see the whole patch"),
    "attention-margin": Variant(
        Attending, {"margin": 4, "patch": {"multiple": 4}}, doubts=("sees-whole-patch",), crop="see the whole patch"
    ),
    "margin-0": Variant(lambda: Net(reach=3), {"margin": 0}, crop="needs 3|half-width is 3"),
    "margin-3": Variant(lambda: Net(reach=3), {"margin": 3}),
    "margin-2": Variant(lambda: Net(reach=3), {"margin": 2}, crop="needs 3|half-width is 3"),
    "stride-1": Variant(Halved, {"margin": 8, "patch": {"multiple": 2}}, crop="stride_multiple: 2"),
    "stride-2": Variant(Halved, {"margin": 8, "patch": {"multiple": 2, "stride_multiple": 2}}),
}  # fmt: skip


def save_network(variant: Variant, kind: str, path: Path) -> Path:
    """Export a variant's network as users do."""
    network, given = variant.network().eval(), torch.zeros(variant.given).to(variant.dtype)
    free = (2, 3) if variant.given[1] == 3 else (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it deprecates
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(network, given, strict=False), path)
        elif kind == "exported":
            free_axes = dict.fromkeys((0, *free), torch.export.Dim.AUTO)
            torch.export.save(torch.export.export(network, (given,), dynamic_shapes=(free_axes,)), path)
        else:
            names = {0: "n", free[0]: "y", free[1]: "x"}
            torch.onnx.export(
                network, (given,), str(path), input_names=["x"], dynamic_axes={"x": names}, dynamo=False,
                do_constant_folding=False,
            )  # fmt: skip
    return path


def write_model(folder: Path, name: str, kind: str) -> Path:
    """Write the bundle of a variant in a kind of file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = save_network(VARIANTS[name], kind, folder / f"net.{SUFFIXES[kind]}")
    spec = {
        "name": name,
        "licence": "CC0-1.0",
        "engine": kind,
        "weights": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "bands": ["red", "green", "blue"],
        "input_range": [0, 255],
        "normalise": {"kind": "range", "low": 0, "high": 255},
        "classes": THREE,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec | VARIANTS[name].spec), encoding="utf-8")
    return folder
