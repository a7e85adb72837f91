"""Small stand-ins, so that a law can be tested without a file, a network or a cluster.

Engines are found by dotted path (`engine: fakes:Identity`), in worker processes too: those inherit `sys.path`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from tilesseg.errors import DeviceLost
from tilesseg.events import TileDone
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.source import Pixels, Raw
from tilesseg.inference.segment_tile import SceneWork, segment_tile
from tilesseg.models.network import Call, Network, plain
from tilesseg.models.spec import ModelSpec, UNetShape, parse_spec
from tilesseg.planning.recipe import Recipe, call_of
from tilesseg.raster.grid import Grid
from tilesseg.raster.tiling import Tile
from tilesseg.raster.window import Window
from tilesseg.store.scene_store import Store


@dataclass(frozen=True)
class ArraySource:
    """An image in memory."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> ArraySource:
        return cls(values, np.ones(values.shape[1:], bool) if valid is None else valid)

    @property
    def grid(self) -> Grid:
        return Grid(*self.values.shape[1:])

    native = property(lambda self: self.grid)
    canvas = property(lambda self: None)
    levels = property(lambda self: ())
    bands = property(lambda self: (None,) * len(self.values))
    selected = property(lambda self: tuple(range(len(self.values))))
    dtype = property(lambda self: self.values.dtype)
    raw_dtypes = property(lambda self: (self.values.dtype,) * len(self.values))
    file_dtypes = raw_dtypes
    scaling = property(lambda self: ((1.0, 0.0),) * len(self.values))
    masks = property(lambda self: (0,) * len(self.values))
    gaps = property(lambda self: (None,) * len(self.values))
    nodata = property(lambda self: (None,) * len(self.values))
    alpha = property(lambda self: ())
    storage_block = property(lambda self: (1, self.values.shape[2]))

    def select(self, indices: Sequence[int]) -> ArraySource:
        return replace(self, values=self.values[list(indices)])

    def read(self, window: Window) -> Pixels:
        return read_reflected(
            window, self.grid.window, lambda w: Pixels(self.values[:, *w.slices()], self.valid[w.slices()])
        )

    def read_raw(self, window: Window) -> Raw:
        return Raw(self.values[:, *window.slices()], self.valid[window.slices()][None])

    def rows(self, height: int) -> Iterator[Raw]:
        tall, wide = self.grid.shape
        return (self.read_raw(Window(y, 0, min(height, tall - y), wide)) for y in range(0, tall, height))

    def identity(self) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {"notes": []}


class _Engine:
    def __init__(
        self, spec: ModelSpec, weights: Path | None = None, *, device: str = "cpu", threads: int | None = None
    ):
        self.spec, self.device = spec, "cpu"

    def trim(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        edge = self.spec.patch.shrink // 2
        return patches[..., edge : patches.shape[-2] - edge, edge : patches.shape[-1] - edge]


class Identity(_Engine):
    """The image holds labels; their one-hot scores give them back."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        labels = np.rint(self.trim(patches)[:, 0])
        return np.stack([labels == k for k in range(len(self.spec.classes))], axis=1).astype(np.float32)


class Largest(_Engine):
    """The class is the number of the channel with the largest value, from 0."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.trim(patches).astype(np.float32)


class Constant(_Engine):
    """The same scores everywhere."""

    scores = (0.25, 0.7, 0.05)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        like = self.trim(patches)[:, :1]
        return np.concatenate([np.full_like(like, score) for score in self.scores], axis=1)


class Positional(_Engine):
    """Scores depend on the place in the patch as much as on the pixel: the worst neighbour for blending."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = patches.shape[2:]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        pixel = patches.mean(axis=1)
        stacked = np.stack([np.sin(pixel * 3 + y / 5), np.cos(pixel * 2 + x / 7), np.sin(pixel + (x - y) / 11)], axis=1)
        return self.trim(stacked.astype(np.float32))


class Shades(_Engine):
    """A class for each third of the values 0–255, so that spots of a picture are spots of the mask."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        shade = np.digitize(self.trim(patches).mean(axis=1), [110, 165])
        return np.stack([shade == k for k in range(3)], axis=1).astype(np.float32)


class Steps(_Engine):
    """A class for each of as many equal steps of the first channel from 0 to 1: shows the least change of a value."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(self.spec.classes)
        step = np.clip(np.floor(self.trim(patches)[:, 0] * count), 0, count - 1)
        return np.stack([step == k for k in range(count)], axis=1).astype(np.float32)


class Broken(_Engine):
    """Fails where the image holds 13, and gives NaN where it holds 14."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        if (patches == 13).any():
            raise RuntimeError("unlucky pixel")
        scores = Identity(self.spec).predict(patches)
        return np.where((patches == 14).any(), np.float32("nan"), scores)


class Deadly(_Engine):
    """Kills its process where the image holds 13."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        if (patches == 13).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return Identity(self.spec).predict(patches)


STRIKES = "TILESSEG_TEST_STRIKES"
"""Names a folder, in which each pixel of `Poison` leaves a file when it strikes."""


def recurse() -> None:
    recurse()


def die(error: BaseException) -> NoReturn:
    raise error


class Poison(_Engine):
    """Fails in another way for each value of the image from 13 on, and gives NaN where it holds 12."""

    kinds: ClassVar[dict[int, tuple[str, Callable[[], Any]]]] = {
        13: ("died", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        14: ("died", lambda: ctypes.string_at(0)),
        15: ("died", lambda: os._exit(3)),
        16: ("died", lambda: os.abort()),
        17: ("SystemExit: ", lambda: sys.exit("stop")),
        18: ("KeyboardInterrupt", lambda: die(KeyboardInterrupt())),
        19: ("MemoryError", lambda: die(MemoryError())),
        20: ("RecursionError", recurse),
    }

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        for value in self.kinds.keys() & set(np.unique(patches).astype(int).tolist()):
            (Path(os.environ[STRIKES]) / f"{value}-{os.getpid()}-{time.time_ns()}").touch()
            self.kinds[value][1]()
        time.sleep(0.02)
        scores = Identity(self.spec).predict(patches)
        return np.where((patches == 12).any(), np.float32("nan"), scores)


class Hangs(_Engine):
    """Hangs for ten minutes where the image holds 13, and where it holds 14 it holds the interpreter, too."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        if (patches == 13).any():
            time.sleep(600)
        if (patches == 14).any():
            ctypes.PyDLL(None).sleep(600)
        return Identity(self.spec).predict(patches)


LOSES = "TILESSEG_TEST_LOSES_ITS_DEVICE"
"""Names a file; where it lies, the next prediction finds the device lost and puts its process's id in its place."""


class Losing(_Engine):
    """Loses its device once, when it is told to."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        path = Path(os.environ[LOSES])
        if path.exists():
            path.rename(path.with_name(str(os.getpid())))
            raise DeviceLost("CUDA error: an illegal memory access was encountered")
        return Identity(self.spec).predict(patches)


class Slow(_Engine):
    """Takes its time, for tests that interrupt."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(0.05)
        return Positional(self.spec).predict(patches)


ENGINES = {"Identity": Identity, "Constant": Constant, "Positional": Positional, "Broken": Broken}


@dataclass(frozen=True)
class FakeModel:
    """A model without a bundle."""

    spec: ModelSpec
    engine: _Engine
    device: str = "cpu"

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.engine.predict(patches)  # type: ignore[attr-defined,no-any-return]

    def network(self, call: Call) -> Network:
        return plain(self.predict, call, self.spec)


def segmented(tile: Tile, *, source: Any, model: Any, store: Store, recipe: Recipe, **more: Any) -> TileDone:
    """A tile segmented by a model, as workers do it."""
    network = model.network(call_of(tile.lattice, recipe, dtype=source.dtype, spec=model.spec))
    return segment_tile(tile, SceneWork(source, network, model.spec, store, recipe), **more)


def spec_data(engine: str = "Identity", *, bands: int = 1, classes: int = 3, **changes: Any) -> dict[str, Any]:
    """A valid spec as plain data, to change and to write."""
    return {
        "name": engine.lower(),
        "licence": "CC0-1.0",
        "engine": f"fakes:{engine}",
        "bands": [f"b{i + 1}" for i in range(bands)],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "activation": "none",
        "classes": [{"name": f"class {k}", "colour": f"#{k * 3 % 256:02x}{k * 7 % 256:02x}80"} for k in range(classes)],
        **changes,
    }


def fake_model(engine: str = "Identity", **changes: Any) -> FakeModel:
    spec = parse_spec(spec_data(engine, **changes), where="fake")
    return FakeModel(spec, ENGINES[engine](spec))


def write_bundle(folder: Path, engine: str = "Identity", **changes: Any) -> Path:
    """A bundle on disk whose engine is one of the classes above."""
    return write_spec(folder, spec_data(engine, **changes))


def write_spec(folder: Path, data: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return folder


def write_unet_bundle(
    folder: Path, *, bands: int = 3, classes: int = 4, depth: int = 2, width: int = 4, seed: int = 0, **changes: Any
) -> Path:
    """A bundle with a real, untrained U-Net: seeded weights, its margin and patch rule as its shape demands."""
    import torch
    from safetensors.torch import save_file

    from tilesseg.models.unet.architecture import UNet
    from tilesseg.models.unet.unet_shapes import margin_of, patch_rule, stride_multiple

    shape = UNetShape(depth=depth, width=width)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _stirred(UNet(bands, classes, shape))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    offset, multiple = patch_rule(shape)
    own = {
        "name": f"untrained-{bands}",
        "engine": "unet",
        "unet": {"depth": depth, "width": width},
        "weights": {
            "file": "weights.safetensors",
            "sha256": hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
        },
        "patch": {"offset": offset, "multiple": multiple, "stride_multiple": stride_multiple(shape)},
        "margin": margin_of(shape),
        "activation": "softmax",
    }
    return write_spec(folder, {**spec_data(bands=bands, classes=classes), **own, **changes})


def _stirred(network: Any) -> Any:
    """Batch norm as training leaves it: not the identity."""
    import torch

    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for numbers in (layer.bias.data, layer.running_mean):
                torch.nn.init.normal_(numbers, std=0.2)
            for numbers in (layer.weight.data, layer.running_var):
                torch.nn.init.uniform_(numbers, 0.5, 1.5)
    return network


def job_data(scenes: Any, model: Path | str, folder: Path, **changes: Any) -> dict[str, Any]:
    """A job without worker processes, as plain data; sections in `changes` replace those here."""
    return {
        "scenes": scenes if not isinstance(scenes, Path) else str(scenes),
        "model": str(model),
        "output": {"dir": str(folder)},
        "cluster": {"kind": "serial", "engine_threads": 1},
        **changes,
    }


def write_scene(path: Path, values: NDArray[Any], *, names: Sequence[str] | None = None, **profile: Any) -> Path:
    """A GeoTIFF of `values (channel, y, x)` at 10 m in UTM zone 33; `profile` is rasterio's."""
    import rasterio

    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**place, **shape, **profile}) as file:
        file.write(values)
        if names is not None:
            file.descriptions = tuple(names)
    return path
