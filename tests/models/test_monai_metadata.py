"""Bundles of MONAI: their metadata and TorchScript file make a model, or the refusal says what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_models import VARIANTS, save_network

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.spec import ModelSpec


def metadata(source: Any = None, target: Any = None, **changes: Any) -> dict[str, Any]:
    """Metadata as MONAI's documentation has them, of a network of three channels and three classes."""
    taken = {
        "type": "image", "format": "magnitude", "num_channels": 3, "spatial_shape": ["16*n", "16*n"],
        "dtype": "float32", "value_range": [0, 1], "channel_def": {"0": "red", "1": "green", "2": "blue"},
    }  # fmt: skip
    given = {
        "type": "image", "format": "segmentation", "num_channels": 3, "spatial_shape": ["16*n", "16*n"],
        "channel_def": {"0": "background", "1": "gland", "2": "stroma"},
    }  # fmt: skip
    form = {"inputs": {"image": taken | (source or {})}, "outputs": {"pred": given | (target or {})}}
    return {"name": "glands", "version": "0.1", "network_data_format": form} | changes


def write(folder: Path, data: Any, *, weights: bytes | None = b"not loaded") -> Path:
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(data))
    if weights is not None:
        (folder / "models" / "model.ts").write_bytes(weights)
    return folder


def spec_of(folder: Path, data: Any) -> ModelSpec:
    return find_bundle(write(folder, data)).spec


def test_metadata_become_a_spec(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "glands", metadata())
    assert (spec.name, spec.engine, spec.bands) == ("glands", "torchscript", ("red", "green", "blue"))
    assert (spec.input_range, spec.normalise.kind, spec.activation) == ((0, 1), "none", "softmax")
    assert (spec.patch.multiple, spec.patch.stride_multiple, spec.patch.fixed) == (16, 16, None)
    assert [one.name for one in spec.classes] == ["background", "gland", "stroma"]


def test_a_bundle_runs_by_its_folder_and_by_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "glands", metadata())
    save_network(VARIANTS["plain"], "torchscript", folder / "models" / "model.ts")
    found = {find_bundle(path).sha256 for path in (folder, folder / "configs" / "metadata.json")}
    assert len(found) == 1 and find_bundle(folder).folder == folder
    assert run(["models", "check", str(folder)]) == 0
    assert "torch: does what its spec says" in capsys.readouterr().out


def test_one_channel_is_a_threshold_and_names_that_are_missing_are_numbers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, metadata({"channel_def": None}, {"num_channels": 1, "channel_def": {}}))
    assert spec.decision.kind == "threshold" and spec.activation == "sigmoid"
    assert [one.name for one in spec.classes] == ["background", "foreground"]
    assert spec.bands == ("band 1", "band 2", "band 3")


@pytest.mark.parametrize(
    ("rule", "patch"),
    [([96, 96], (96, 1)), (["*", "*"], (None, 1)), (["n", "n"], (None, 1)), (["8 * n"] * 2, (None, 8))],
)
def test_rules_of_sides(tmp_path: Path, rule: Any, patch: tuple[int | None, int]) -> None:
    found = spec_of(tmp_path, metadata({"spatial_shape": rule})).patch
    assert (found.fixed, found.multiple) == patch


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (metadata({"spatial_shape": ["16*n"] * 3}), "images of 3 axes"),
        (metadata({"spatial_shape": [64, 32]}), "64 × 32"),
        (metadata({"spatial_shape": ["2**p*n"] * 2}), r"sides of 2\*\*p\*n"),
        (metadata({"value_range": None}), "no value_range"),
        (metadata(network_data_format={"inputs": {}, "outputs": {}}), "0 inputs"),
        (metadata(network_data_format=3), "does not follow MONAI's metadata"),
        ([], "does not follow MONAI's metadata"),
    ],
)
def test_what_no_spec_says_is_refused_in_one_line(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        spec_of(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_torchscript_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models/model\.ts; write it: python -m monai\.bundle ckpt_export"):
        find_bundle(write(tmp_path, metadata(), weights=None))
