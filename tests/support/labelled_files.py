"""Labelled scenes on disk, and specs that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fakes import write_scene
from numpy.typing import NDArray

from tilesseg.training.train_spec import TrainSpec, parse_train_spec

CLASSES = [{"name": "background", "colour": "black"}, {"name": "roof", "colour": "red"}]
SMALL = {"network": {"depth": 1, "width": 4}, "sampling": {"patch": 32, "batch": 4}}


def blocks(seed: int, side: int = 64, *, classes: int = 2) -> NDArray[np.uint8]:
    """Labels `(y, x)` in blocks of 8 px."""
    cells = np.random.default_rng(seed).integers(0, classes, (-(-side // 8), -(-side // 8)))
    return np.kron(cells, np.ones((8, 8)))[:side, :side].astype(np.uint8)


def labelled(
    folder: Path,
    name: str,
    truth: NDArray[np.uint8],
    *,
    bands: int = 2,
    offset: float = 0.0,
    dtype: str = "uint16",
    nodata: int = 0,
) -> NDArray[Any]:
    """Write an image whose classes differ in brightness, with its first 6 rows nodata, and its labels; the values."""
    seed = sum(map(ord, name))
    values = np.random.default_rng(seed).normal(1000 + offset, 60, (bands, *truth.shape)) + 300.0 * (truth % 255)
    values[:, :6] = nodata
    stored = values.clip(0, 60_000 if dtype != "uint8" else 255).astype(dtype)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    write_scene(folder / "images" / f"{name}.tif", stored, nodata=nodata)
    write_scene(folder / "labels" / f"{name}.tif", truth[None])
    return stored


def spec_of(folder: Path, **changes: Any) -> TrainSpec:
    """Spec of a training on the scenes in a folder, with `data.scenes` and so on in place of whole sections."""
    data = {"scenes": str(folder / "images" / "*.tif"), "labels": str(folder / "labels" / "{scene}.tif")}
    spec = {"name": "roofs", "licence": "CC0-1.0", "classes": CLASSES, "data": data, **SMALL}
    return parse_train_spec({**spec, "output": {"dir": str(folder / "run")}, **changes}, where="test")


def data_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """Section `data` with changes."""
    return {
        "scenes": str(folder / "images" / "*.tif"),
        "labels": str(folder / "labels" / "{scene}.tif"),
        **changes,
    }
