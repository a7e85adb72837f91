"""Programs of torch.export: the scores of the eager network, read without running anything that the file says."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from fakes import job_data, write_scene
from test_torch_engine import make_bundle, patches, refusal
from torch import nn

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, ModelError
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.crop_safety.receptive_field import receptive_margin
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.load import load_model
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, patch_rule
from tilesseg.planning.job import parse_job
from tilesseg.raster.labels import decide
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

AUTO = torch.export.Dim.AUTO
FREE = ({0: AUTO, 2: AUTO, 3: AUTO},)


def eager(module: nn.Module, given: Any) -> Any:
    """What the network gives, in the order in memory that the engine computes in."""
    with torch.inference_mode():
        laid = torch.from_numpy(given).to(memory_format=torch.channels_last)
        return torch.softmax(module.to(memory_format=torch.channels_last)(laid), 1).numpy()  # type: ignore[call-overload]


def network(**shape: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(3, 2, UNetShape(depth=2, width=4, **shape)).eval()


def save(module: nn.Module, path: Path, *, size: int = 64, n: int = 2, free: Any = FREE, core: bool = False) -> Path:
    """Export as a user would; `core` breaks the operators down to fewer ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself
        program = torch.export.export(module, (torch.randn(n, 3, size, size),), dynamic_shapes=free)
        torch.export.save(program.run_decompositions() if core else program, path)
    return path


@lru_cache
def exported_unet(size: int, core: bool, **shape: Any) -> bytes:
    """Content of the file of `network(**shape)`: many tests share it, because an export takes up to two seconds."""
    with TemporaryDirectory() as folder:
        return save(network(**shape), Path(folder, "net.pt2"), size=size, core=core).read_bytes()


def save_unet(path: Path, *, size: int = 64, core: bool = False, **shape: Any) -> Path:
    path.write_bytes(exported_unet(size, core, **shape))
    return path


def bundle(folder: Path, module: nn.Module, *, changes: Any = None, **how: Any) -> Path:
    path = save(module, folder / "net.pt2", **how)
    return make_bundle(folder, path, engine="exported", **(changes or {}))


def unet_bundle(folder: Path, *, changes: Any = None, **how: Any) -> Path:
    return make_bundle(folder, save_unet(folder / "net.pt2", **how), engine="exported", **(changes or {}))


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("shape", [{}, {"up": "bilinear"}, {"convolutions": "valid"}, {"batch_norm": False}])
def test_a_program_scores_as_the_eager_network(tmp_path: Path, shape: Any, core: bool) -> None:
    module, size = network(**shape), 60 if "convolutions" in shape else 64
    rule = {"multiple": 4, "stride_multiple": 4, "shrink": 40 if "convolutions" in shape else 0}
    folder = unet_bundle(tmp_path, size=size, core=core, changes={"patch": rule}, **shape)
    model = load_model(folder, device="cpu", threads=1, precision="fp32")
    for n, side in [(1, size), (3, size + 32)]:
        expected = eager(module, patches(n, side))
        np.testing.assert_allclose(model.predict(patches(n, side)), expected, atol=1e-6)


def test_a_fixed_batch_is_divided_to_fit(tmp_path: Path) -> None:
    module = network()
    model = load_model(bundle(tmp_path, module, free=None, changes={"patch": {"fixed": 64}}), precision="fp32")
    expected = eager(module, patches(5, 64))
    np.testing.assert_allclose(model.predict(patches(5, 64)), expected, atol=1e-6)


def test_a_fixed_patch_that_disagrees_with_the_spec_is_refused_with_both(tmp_path: Path) -> None:
    found = refusal(bundle(tmp_path, network(), free=None, changes={"patch": {"fixed": 32}}))
    assert "takes patches of 64 only" in found and "only 32" in found


def test_other_bands_than_the_spec_says_are_refused(tmp_path: Path) -> None:
    assert "takes 3 channels, its spec names 2 bands" in refusal(unet_bundle(tmp_path, changes={"bands": ["r", "g"]}))


def test_a_patch_beyond_the_sides_it_was_exported_for_is_refused(tmp_path: Path) -> None:
    plain = {2: torch.export.Dim("h", min=32, max=96), 3: torch.export.Dim("w", min=32, max=96)}
    layer = nn.Conv2d(3, 2, 3, padding=1).eval()
    model = load_model(bundle(tmp_path, layer, free=(plain,)))
    with pytest.raises(ModelError, match="exported for sides of 32 to 96 px, and patches are 128"):
        model.predict(patches(1, 128))


def test_a_network_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    assert "training mode" in refusal(bundle(tmp_path, network().train(), free=None))


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"no zip")
    assert "not a program" in refusal(make_bundle(tmp_path, path, engine="exported"))
    torch.save({"a": torch.zeros(1)}, path)
    assert "is a pickled checkpoint" in refusal(make_bundle(tmp_path, path, engine="exported"))


def rewrite(path: Path, change: Any) -> Path:
    """The same archive with `change(name, bytes)` for each of its files."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, change(name, data))
    return path


class _Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it ran')",))


def test_nothing_that_the_file_says_is_run(tmp_path: Path) -> None:
    """Pickles are not opened, and sizes and guards, which torch evaluates, are not looked at."""
    module = network()
    path = save_unet(tmp_path / "net.pt2")

    def arm(name: str, data: bytes) -> bytes:
        if name.endswith("sample_inputs/model.pt"):
            return pickle.dumps(_Bomb())
        if name.endswith("models/model.json"):
            program = json.loads(data)
            program["guards_code"] = ["exec('raise SystemExit(1)')"]
            text = json.dumps(program)
            return text.replace('"expr_str": "Mul(', '"expr_str": "exec(\'raise SystemExit(1)\') or Mul(').encode()
        return data

    program = read_program(rewrite(path, arm))
    with torch.inference_mode():
        given = torch.from_numpy(patches(2, 64))
        assert (program(given) == module(given)).all()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torch.os.system", "calls torch.os.system"),
        ("torch.ops.aten.from_file.default", "calls torch.ops.aten.from_file"),
        ("torch.ops.mine.relu.default", "calls torch.ops.mine"),
        ("torch.ops.aten.__class__.default", "calls torch.ops.aten.__class__"),
        ("torch.ops.higher_order.cond", "calls torch.ops.higher_order"),
    ],
)
def test_operators_beyond_aten_are_refused(tmp_path: Path, target: str, said: str) -> None:
    path = save_unet(tmp_path / "net.pt2")
    rewrite(path, lambda _, data: data.replace(b"torch.ops.aten.relu_.default", target.encode()))
    assert said in refusal(make_bundle(tmp_path, path, engine="exported"))


def test_a_pickled_tensor_is_refused(tmp_path: Path) -> None:
    path = save_unet(tmp_path / "net.pt2")
    rewrite(path, lambda _, data: data.replace(b'"use_pickle": false', b'"use_pickle": true', 1))
    assert "tilesseg never unpickles" in refusal(make_bundle(tmp_path, path, engine="exported"))


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("shape", [{}, {"up": "bilinear"}, {"convolutions": "valid"}])
def test_the_margin_of_a_program_is_that_of_its_network(tmp_path: Path, shape: Any, core: bool) -> None:
    path = save_unet(tmp_path / "net.pt2", size=60 if "convolutions" in shape else 64, core=core, **shape)
    wanted = UNetShape(depth=2, width=4, **shape)
    assert receptive_margin(read_program(path), 3, 4, offset=patch_rule(wanted)[0]) == margin_of(wanted)
    assert tiling_hazards(path) == ()


class _Global(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer, self.norm = how, nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2)
        self.instance, self.head = nn.InstanceNorm2d(2), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        match self.how:
            case "group":
                return self.norm(y)  # type: ignore[no-any-return]
            case "instance":
                return self.instance(y)  # type: ignore[no-any-return]
            case "pool":
                return y * self.head(y)
            case "mean":
                return y - y.mean(dim=(2, 3), keepdim=True)
            case "attention":
                return y @ y.transpose(2, 3) @ y
            case _:
                return y - y.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("how", ["group", "instance", "pool", "mean", "attention"])
def test_layers_that_see_the_whole_patch_are_found(tmp_path: Path, how: str, core: bool) -> None:
    path = save(_Global(how).eval(), tmp_path / "net.pt2", size=16, free=None, core=core)
    assert tiling_hazards(path) != ()


@pytest.mark.parametrize("core", [False, True])
def test_a_mean_over_channels_is_no_hazard(tmp_path: Path, core: bool) -> None:
    assert tiling_hazards(save(_Global("channels").eval(), tmp_path / "net.pt2", size=16, core=core)) == ()


def run_crop(folder: Path, image: Any, model: Path, **tiling: Any) -> Any:
    scene = write_scene(folder / "scene.tif", image, names=["red", "green", "blue"])
    data = {**job_data(scene, model, folder / "run"), "precision": "fp32", "tiling": {"blend": "crop", **tiling}}
    run_job(parse_job({**data, "input": {"check_range": False}}, where="test"), executor=SerialExecutor())
    store = RunDirectory(folder / "run").scene("scene")
    return store.read(Window(0, 0, *store.shape))


def test_crop_equals_whole_image_inference(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (3, 173, 210)).astype(np.uint8)
    rule = {"kind": "range", "low": 0, "high": 255}
    changes = {"patch": {"multiple": 4, "stride_multiple": 4}, "margin": 24, "normalise": rule}
    folder = unet_bundle(tmp_path, changes=changes)
    padded = np.pad(image / np.float32(255), [(0, 0), (24, 24 + -173 % 4), (24, 24 + -210 % 4)], mode="reflect")
    expected = load_model(folder, threads=1, precision="fp32").predict(padded[None].astype(np.float32))[
        0, :, 24 : 24 + 173, 24 : 24 + 210
    ]
    mask = run_crop(tmp_path, image, folder, patch=96)
    assert (mask == decide(expected)).all() and len(np.unique(mask)) == 2


def test_a_margin_below_the_measured_one_is_refused(tmp_path: Path) -> None:
    image = np.zeros((3, 64, 64), np.uint8)
    folder = unet_bundle(tmp_path, changes={"patch": {"multiple": 4, "stride_multiple": 4}, "margin": 8})
    with pytest.raises(ModelError, match="states a margin of 8, and its receptive half-width is 24"):
        run_crop(tmp_path, image, folder)


def test_crop_is_refused_for_a_program_that_sees_the_whole_patch(tmp_path: Path) -> None:
    folder = bundle(tmp_path, _Global("group").eval(), changes={"margin": 4})
    with pytest.raises(JobError, match=r"it has aten::(native_)?group_norm"):
        run_crop(tmp_path, np.zeros((3, 64, 64), np.uint8), folder)
