"""The PyTorch engine: our U-Net and TorchScript files, run as they are and refused in one line."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import random
import threading
import warnings

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tilesseg.errors import DeviceLost, ModelError, OutOfDeviceMemory
from tilesseg.models import load as models
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.engines import torch_engine
from tilesseg.models.engines.batches import BatchSlots
from tilesseg.models.engines.torch_weights import TOGETHER, steady
from tilesseg.models.network import Call
from tilesseg.models.normalisation import Normalisation, mean_std
from tilesseg.models.spec import ModelSpec, UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import shrink_of

NOTHING = Normalisation((0.0,) * 3, (1.0,) * 3)


load_model = functools.partial(models.load_model, engine="torch", precision="fp32")
# ^ what this file is about; other runtimes and precisions are held against it in test_engines


def make_bundle(folder, weights, **changes):
    """Write a `model.yaml` beside a weights file."""
    data = {
        "name": "small",
        "licence": "MIT",
        "engine": "unet",
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "bands": ["red", "green", "blue"],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "classes": [{"name": "a", "colour": "black"}, {"name": "b", "colour": "white"}],
    } | changes
    (folder / "model.yaml").write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
    return folder


def unet_bundle(folder, *, classes=2, changes=None, **shape):
    shape = {"depth": 2, "width": 4, **shape}
    torch.manual_seed(0)
    network = UNet(3, classes, UNetShape(**shape)).eval()
    save_file(network.state_dict(), folder / "net.safetensors")
    return network, make_bundle(folder, folder / "net.safetensors", unet=shape, **(changes or {}))


def patches(n=2, size=32, channels=3):
    return np.random.default_rng(0).standard_normal((n, channels, size, size)).astype(np.float32)


def save_script(network, path, *, trace=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(network, torch.zeros(1, 3, 32, 32)) if trace else torch.jit.script(network)
        torch.jit.save(script, path)
    return path


def refusal(folder, **options):
    with pytest.raises(ModelError) as caught:
        load_model(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("skips", ["concat", "add"])
@pytest.mark.parametrize("convolutions", ["same", "valid"])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_a_unet_comes_back_from_its_file_as_it_was(tmp_path, up, convolutions, skips):
    shrink = shrink_of(UNetShape(depth=2, convolutions=convolutions))
    rule = {"patch": {"shrink": shrink, "multiple": 4}}
    network, folder = unet_bundle(tmp_path, up=up, convolutions=convolutions, skips=skips, changes=rule)
    size = 60 if convolutions == "valid" else 64
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(patches(size=size))), 1).numpy()
    scores = load_model(folder).predict(patches(size=size))
    assert scores.dtype == np.float32 and scores.flags.c_contiguous
    assert scores.shape == (2, 2, size - shrink, size - shrink)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize(("activation", "function"), [("sigmoid", torch.sigmoid), ("none", lambda scores: scores)])
def test_the_activation_of_the_spec_is_applied(tmp_path, activation, function):
    network, folder = unet_bundle(tmp_path, changes={"activation": activation})
    with torch.inference_mode():
        expected = function(network(torch.from_numpy(patches()))).numpy()
    np.testing.assert_allclose(load_model(folder).predict(patches()), expected, atol=1e-5)


def test_a_patch_in_a_batch_scores_as_it_does_again(tmp_path):
    model = load_model(unet_bundle(tmp_path)[1])
    assert np.array_equal(model.predict(patches()), model.predict(patches()))


def test_read_only_and_strided_patches_are_taken_and_left_alone(tmp_path):
    model = load_model(unet_bundle(tmp_path)[1])
    wide = patches(size=64)
    view = wide[..., ::2, ::2]
    view.flags.writeable = False
    before = view.copy()
    expected = model.predict(view.copy())
    assert np.array_equal(model.predict(view), expected) and np.array_equal(view, before)


def test_threads_are_set_for_each_calling_thread(tmp_path):
    model = load_model(unet_bundle(tmp_path)[1], threads=1)
    before, seen = torch.get_num_threads(), []

    def work():
        model.predict(patches())
        seen.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [1] and model.engine.batch_slots.threads == 1
    finally:
        torch.set_num_threads(before)


def test_one_thread_at_a_time_computes(tmp_path, monkeypatch):
    model = load_model(unet_bundle(tmp_path)[1], threads=1)
    inside, most = [], []
    forward = torch_engine.TorchEngine._forward

    def watched(self, module, batch):
        inside.append(1)
        most.append(len(inside))
        result = forward(self, module, batch)
        inside.pop()
        return result

    monkeypatch.setattr(torch_engine.TorchEngine, "_forward", watched)
    threads = [threading.Thread(target=model.predict, args=(patches(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 4


def test_tensors_that_do_not_fit_the_shape_are_refused_with_both(tmp_path):
    unet_bundle(tmp_path)
    file = tmp_path / "net.safetensors"
    assert "lacks the tensor" in refusal(make_bundle(tmp_path, file, unet={"depth": 3, "width": 4}))
    assert "beyond the network" in refusal(make_bundle(tmp_path, file, unet={"depth": 1, "width": 4}))
    message = refusal(make_bundle(tmp_path, file, unet={"depth": 2, "width": 4}, bands=["one", "two"]))
    assert "(4, 3, 3, 3)" in message and "(4, 2, 3, 3)" in message


def test_parameters_that_are_not_numbers_are_refused(tmp_path):
    network, folder = unet_bundle(tmp_path)
    network.head.bias.data[1] = float("nan")
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    assert "head.bias with values that are not finite" in refusal(
        make_bundle(folder, tmp_path / "net.safetensors", unet={"depth": 2, "width": 4})
    )


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, data):
    (tmp_path / "net.safetensors").write_bytes(data)
    assert "not a safetensors file" in refusal(make_bundle(tmp_path, tmp_path / "net.safetensors", unet={}))


def test_a_patch_the_network_cannot_take_is_refused_in_one_line(tmp_path):
    model = load_model(unet_bundle(tmp_path)[1])
    with pytest.raises(ModelError, match="fails on patches") as caught:
        model.predict(patches(size=30))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trace", [True, False])
def test_torchscript_gives_what_the_module_gives(tmp_path, trace):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)).eval()
    path = save_script(network, tmp_path / "net.pt", trace=trace)
    model = load_model(make_bundle(tmp_path, path, engine="torchscript"))
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(patches())), 1).numpy()
    np.testing.assert_allclose(model.predict(patches()), expected, atol=1e-6)


class Two(torch.nn.Module):
    def forward(self, x):
        return x, x


def test_a_network_with_two_outputs_is_refused(tmp_path):
    path = save_script(Two(), tmp_path / "net.pt")
    model = load_model(make_bundle(tmp_path, path, engine="torchscript"))
    with pytest.raises(ModelError, match="gives 2 outputs"):
        model.predict(patches())


class Exploit:
    """Leaves a mark if anything unpickles it."""

    mark = None

    def __reduce__(self):
        return open, (str(Exploit.mark), "w")


def test_a_pickled_checkpoint_is_refused_and_never_unpickled(tmp_path):
    Exploit.mark = tmp_path / "unpickled"
    path = tmp_path / "net.pt"
    torch.save({"weights": torch.zeros(2), "exploit": Exploit()}, path)
    assert "never unpickles" in refusal(make_bundle(tmp_path, path, engine="torchscript"))
    path.write_bytes(pickle.dumps(Exploit()))
    assert "never unpickles" in refusal(make_bundle(tmp_path, path, engine="torchscript"))
    assert not Exploit.mark.exists()


def test_damaged_torchscript_is_refused_in_one_line(tmp_path):
    path = save_script(torch.nn.Conv2d(3, 2, 1).eval(), tmp_path / "net.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    refusal(make_bundle(tmp_path, path, engine="torchscript"))


def test_devices_that_are_not_here_are_refused(tmp_path):
    folder = unet_bundle(tmp_path)[1]
    assert "unknown" in refusal(folder, device="gpu")
    assert "does not exist" in refusal(folder, device="cuda:99")
    assert load_model(folder, device="cpu").device == "cpu"


def test_auto_takes_cuda_where_there_is_one_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(torch_engine.pick_device("auto")) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(torch_engine.pick_device("auto")) == "cuda:0"
    assert str(torch_engine.pick_device("cuda:1")) == "cuda:1"


def test_a_full_device_is_said_in_one_line(tmp_path, monkeypatch):
    model = load_model(unet_bundle(tmp_path)[1])

    def full(self, module, batch):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(torch_engine.TorchEngine, "_forward", full)
    for call in (model.predict, model.network(Call(np.dtype(np.float32), NOTHING, labels=True))):
        with pytest.raises(OutOfDeviceMemory, match=r"no memory for patches \(2, 3, 32, 32\)"):
            call(patches())


def test_a_lost_device_is_known_although_it_frees_no_memory_any_more(tmp_path, monkeypatch):
    fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    engine = dataclasses.replace(load_model(unet_bundle(tmp_path)[1]).engine, place=torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "empty_cache", functools.partial(_raise, fault))
    with pytest.raises(DeviceLost, match="illegal memory access"), engine._refusing((1, 3, 32, 32)):
        raise fault


def _raise(error):
    raise error


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_cropped_scores_equal_those_of_the_whole_image_to_the_bit(tmp_path, activation):
    """At this width and these sizes; smaller ones get other kernels of oneDNN for other shapes, and differ by 1e-5."""
    model = load_model(unet_bundle(tmp_path, depth=4, width=16, changes={"activation": activation})[1], threads=2)
    image, margin = patches(n=1, size=512), 96
    whole = model.predict(image)
    for y, x, size in [(64, 32, 256), (0, 272, 240), (128, 128, 384)]:
        part = model.predict(image[..., y : y + size, x : x + size])[..., margin:-margin, margin:-margin]
        assert np.array_equal(part, whole[..., y + margin : y + size - margin, x + margin : x + size - margin])


def test_a_real_torchscript_network_gives_its_published_output(shared_data):
    folder = shared_data / "weights" / "unet2d_nuclei_broad"
    weights = folder / "weights.pt"
    spec = nuclei_spec("torchscript", weights)
    model = torch_engine.open_torchscript(
        spec, weights, device="cpu", batch_slots=BatchSlots(2), precision="fp32", compiled=False
    )
    pixels = np.load(folder / "test_input.npy")
    scores = model.predict(spec.normalisation(*mean_std(pixels[0].reshape(1, -1))).apply(pixels))
    np.testing.assert_allclose(scores, np.load(folder / "test_output.npy"), atol=1e-4)


def nuclei_spec(engine, weights):
    """What the network's bioimage.io description says, as a spec."""
    return ModelSpec.model_validate(
        {
            "name": "nuclei",
            "licence": "MIT",
            "engine": engine,
            "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
            "bands": ["raw_intensity"],
            "dtype": "uint16",
            "input_range": [0, 4095],
            "normalise": {"kind": "scene_mean_std"},
            "patch": {"fixed": 512, "stride_multiple": 8},
            "activation": "sigmoid",
            "decision": {"kind": "threshold", "threshold": 0.5},
            "classes": [{"name": "background", "colour": "black"}, {"name": "nucleus", "colour": "white"}],
        }
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_of_many_channels_do_not_look_at_the_size(dtype):
    """From some 300 channels on, oneDNN sums those of a narrow array in another order, unless it is given fewer."""
    torch.manual_seed(0)
    network = UNet(3, 2, UNetShape(depth=1, width=max(TOGETHER.values()))).eval()
    layer = network.up[0][0].to(dtype).requires_grad_(False)
    values = torch.randn(1, layer.in_channels, 24, 40, dtype=dtype).contiguous(memory_format=torch.channels_last)
    expected = layer(values).float()
    assert steady(network).up[0][0] is layer
    whole = layer(values)
    np.testing.assert_allclose(whole.float(), expected, atol=1e-4 if dtype == torch.float32 else 0.1)
    for side in (5, 14, 20):
        part = layer(values[..., :side, :side].contiguous(memory_format=torch.channels_last))
        assert torch.equal(part[..., 1:-1, 1:-1], whole[..., 1 : side - 1, 1 : side - 1])


@pytest.mark.parametrize("suffix", ["pt", "pt2"])
def test_a_weights_file_with_changed_bytes_opens_or_is_refused_in_one_line(tmp_path, suffix):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)).eval()
    path, outcomes = tmp_path / f"net.{suffix}", {True: 0, False: 0}
    if suffix == "pt":
        save_script(network, path)
    else:
        torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 16, 16),)), path)
    data, chance = path.read_bytes(), random.Random(0)
    for number in range(80):
        changed, place = bytearray(data), chance.randrange(len(data))
        length = (1, 4, 64)[number % 3]
        changed[place : place + length] = chance.randbytes(length) if number % 2 else b"\xff" * length
        path.write_bytes(changed[:place] if number % 7 == 0 else changed)
        try:
            assert isinstance(tiling_hazards(path), tuple)
            outcomes[True] += 1
        except ModelError as error:
            assert "\n" not in str(error) and ";" in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize("place", ["directory", "names"])
def test_a_damaged_directory_of_an_archive_is_refused_as_damaged(tmp_path, place):
    path = save_script(torch.nn.Conv2d(3, 2, 1).eval(), tmp_path / "net.pt")
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start if place == "directory" else start + 8] ^= 0x40 if place == "directory" else 0
    if place == "names":
        data[start + 46 : start + 50] = b"\x80\x80\x80\x80"
        data[start + 9] |= 8  # names are UTF-8
    path.write_bytes(data)
    assert "is a damaged archive" in refusal(make_bundle(tmp_path, path, engine="torchscript"))


class InDict(Two):
    def forward(self, x) -> dict[str, torch.Tensor]:
        return {"out": x}


class InList(Two):
    def forward(self, x) -> list[torch.Tensor]:
        return [x]


class InTuple(Two):
    def forward(self, x) -> tuple[torch.Tensor]:
        return (x,)


class InDictOfTwo(Two):
    def forward(self, x) -> dict[str, torch.Tensor]:
        return {"out": x, "aux": x * 2}


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("network", [InDict, InList, InTuple])
def test_one_tensor_in_a_container_is_the_output_in_every_engine(tmp_path, network, engine):
    pytest.importorskip(engine)
    path = save_script(network(), tmp_path / "net.pt")
    classes = [{"name": name, "colour": "black"} for name in "abc"]
    folder = make_bundle(tmp_path, path, engine="torchscript", activation="none", classes=classes)
    assert np.array_equal(models.load_model(folder, engine=engine, precision="fp32").predict(patches()), patches())


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_two_tensors_in_a_dict_are_refused_in_every_engine(tmp_path, engine):
    pytest.importorskip(engine)
    folder = make_bundle(tmp_path, save_script(InDictOfTwo(), tmp_path / "net.pt"), engine="torchscript")
    with pytest.raises(ModelError, match="2 outputs"):
        models.load_model(folder, engine=engine, precision="fp32").predict(patches())
