"""`tilesseg models convert`: folders of parameters become programs with a spec; pickles get the lines to write."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.converting.convert_model import convert_model, export_lines
from tilesseg.models.converting.hub_networks import read_hub_folder
from tilesseg.models.exporting.traced_program import write_program
from tilesseg.models.load import load_model


class Small(nn.Module):
    """A network as smp makes one: by its encoder's name, channels and classes, which halves the size once."""

    def __init__(self, encoder_name: str, in_channels: int = 3, classes: int = 1, encoder_weights: str | None = "x"):
        super().__init__()
        assert encoder_weights is None, "its weights would be downloaded"
        torch.manual_seed(len(encoder_name))
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, classes, 1))
        self.up = nn.Upsample(scale_factor=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.body(x))


class Quarter(nn.Module):
    """A network as transformers makes one: from a folder, with scores at a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 4, 4)

    @classmethod
    def from_pretrained(cls, folder: Path, **options: Any) -> Quarter:
        assert options == {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
        made = cls()
        from safetensors.torch import load_file

        made.load_state_dict(load_file(folder / "model.safetensors"))
        return made

    def forward(self, pixel_values: Tensor) -> Any:
        return types.SimpleNamespace(logits=self.body(pixel_values))


@pytest.fixture
def smp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as convert sees it; the true one needs torchvision, which does not work beside this torch."""
    module = types.ModuleType("segmentation_models_pytorch")
    module.Unet = Small  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", module)


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("transformers")
    module.SmallForSemanticSegmentation = Quarter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)


def smp_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    config = {"_model_class": "Unet", "encoder_name": "resnet18", "in_channels": 3, "classes": 4, **changes}
    save_file(Small("resnet18", 3, 4, None).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def hub_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    labels = {"0": "wall", "1": "floor", "10": "roof", "2": "tree"}
    config = {"architectures": ["SmallForSemanticSegmentation"], "model_type": "small", "id2label": labels, **changes}
    torch.manual_seed(1)
    save_file(Quarter().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.usefixtures("smp")
def test_a_folder_of_smp_becomes_a_program_whose_gaps_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = smp_folder(tmp_path / "roads", encoder_weights="imagenet")
    assert run(["models", "convert", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "batch and sides are free" in out and "to state: normalise" in out and "get_preprocessing_params" in out
    made = tmp_path / "roads-tilesseg"
    with pytest.raises(ModelError, match="input_range is required"):
        find_bundle(made)
    data = yaml.safe_load((made / "model.yaml").read_text())
    assert data["name"] == "roads" and data["engine"] == "exported" and data["patch"]["multiple"] % 2 == 0
    stated = {"input_range": [0, 255], "normalise": {"kind": "range", "low": 0, "high": 255}}
    (made / "model.yaml").write_text(yaml.safe_dump(data | stated))
    patches = np.random.default_rng(0).random((3, 3, 64, 64), np.float32)
    got = load_model(made, device="cpu", threads=1, precision="fp32").raw(patches)
    network = read_hub_folder(folder).network.eval()
    with torch.inference_mode():
        np.testing.assert_allclose(got, network(torch.from_numpy(patches)).numpy(), atol=1e-5)


@pytest.mark.usefixtures("transformers")
def test_a_folder_of_transformers_is_complete_with_its_processor(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "house")
    processor = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_resize": False}
    processor |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    made = convert_model(folder / "config.json", tmp_path / "models" / "house")
    assert made.spec.gaps == () and made.free == (0, 2, 3)
    spec = find_bundle(made.folder).spec
    assert [one.name for one in spec.classes] == ["wall", "floor", "tree", "roof"]
    assert spec.normalise.mean == pytest.approx((127.5, 102, 76.5)) and spec.input_range == (0, 255)
    scores = load_model(made.folder, device="cpu", threads=1, precision="fp32").raw(np.ones((1, 3, 64, 64), np.float32))
    assert scores.shape == (1, 4, 64, 64)  # interpolated to the size of the patch


@pytest.mark.usefixtures("smp", "transformers")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_model_class": "Path"}, "a network Path, which this segmentation_models_pytorch does not have"),
        ({"classes": 5}, "cannot load .*install the version"),
        ({"colour": 1}, "cannot load .*install the version"),
        ({"_model_class": None, "architectures": ["SmallForImageClassification"], "model_type": "x"}, "ends with For"),
        ({"_model_class": None, "architectures": ["NewForSemanticSegmentation"], "model_type": "x"}, "install a newer"),
        ({"_model_class": None}, "names neither _model_class"),
    ],
)
def test_a_folder_that_cannot_be_converted_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = smp_folder(tmp_path / "roads", **changes)
    if changes.get("_model_class", "Unet") is None:
        config = json.loads((folder / "config.json").read_text())
        del config["_model_class"]
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=words) as caught:
        convert_model(folder)
    assert "\n" not in str(caught.value) and not (tmp_path / "roads-tilesseg").exists()


@pytest.mark.parametrize(("make", "extra"), [(smp_folder, "smp"), (hub_folder, "huggingface")])
def test_a_library_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, extra: str
) -> None:
    for package in ("segmentation_models_pytorch", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"pip install 'tilesseg\[{extra}\]'"):
        convert_model(make(tmp_path / "roads"))


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt"])
def test_a_pickle_is_never_opened_and_its_owner_gets_the_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = nn.Conv2d(3, 2, 1)
    torch.save({"state_dict": network.state_dict()}, f"net{suffix}")
    assert run(["models", "convert", f"net{suffix}"]) == 1
    out, error = capsys.readouterr()
    assert "never unpickles" in error and error.count("\n") == 1 and f"net{suffix}" in out
    lines = export_lines(Path(f"net{suffix}"))
    assert out.strip() == lines
    compile(lines, "lines", "exec")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_lines_write_a_network_in_each_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": nn.Conv2d(3, 2, 1).state_dict()}, "net.pth")
    exec(export_lines(Path("net.pth")).replace("= ...", "= torch.nn.Conv2d(3, 2, 1)"), {})
    assert {path.suffix for path in tmp_path.iterdir()} == {".pth", ".pt2", ".ts", ".onnx", ".safetensors"}
    for suffix in ("pt2", "ts", "onnx"):
        assert run(["models", "new", f"net.{suffix}", "--out", f"net{suffix}.yaml"]) == 0


@pytest.mark.usefixtures("smp")
def test_what_is_no_folder_of_parameters_gets_its_own_advice(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.yaml").write_text("name: x")
    pickled = smp_folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    taken = smp_folder(tmp_path / "taken")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    for path, words in (
        (tmp_path / "net.onnx", "tilesseg models new"),
        (tmp_path / "empty", "holds no config.json"),
        (tmp_path / "none", "there is no"),
        (tmp_path, "is a model as it is"),
        (pickled, "safe_serialization=True"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            convert_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="exists already"):
        convert_model(taken, tmp_path / "out")


def test_a_network_that_fixes_its_sizes_is_written_with_them(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.ones(1, 3, 32, 32))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.place

    assert write_program(Fixed(), tmp_path / "a.pt2", bands=3, side=32) == (0,)

    class Listing(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x if x.sum() > 0 else [x]

    with pytest.raises(ModelError, match=r"torch\.export cannot write Listing"):
        write_program(Listing(), tmp_path / "b.pt2", bands=3, side=32)
    assert not (tmp_path / "b.pt2").exists()
