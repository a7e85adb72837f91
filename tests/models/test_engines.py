"""Every runtime gives what PyTorch gives in float32, whatever is fused into its network; and who chooses what."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
import yaml
from instruction_sets import skip_what_cannot_be_pretended
from test_onnx_engine import field, node, value_info
from test_onnx_engine import make_bundle as onnx_bundle
from test_onnx_engine import network as onnx_network
from test_torch_engine import make_bundle, nuclei_spec, save_script, unet_bundle

from tilesseg.errors import DeviceLost, ModelError, OutOfDeviceMemory
from tilesseg.formats.open import open_source
from tilesseg.models.bundle import Bundle, find_bundle
from tilesseg.models.engines.out_of_memory import refusal
from tilesseg.models.hardware import able, cpu_of
from tilesseg.models.load import choose_for, load_model
from tilesseg.models.network import Call, activate, plain
from tilesseg.models.normalisation import Normalisation, mean_std
from tilesseg.models.runtime_choice import Able, choose
from tilesseg.models.spec import ModelSpec, UNetShape
from tilesseg.models.unet.unet_shapes import shrink_of
from tilesseg.raster.labels import decide
from tilesseg.training.synthetic_landscape import landscape

ENGINES = [name for name in ("torch", "openvino", "onnxruntime") if importlib.util.find_spec(name)]
OF_TORCH = [name for name in ENGINES if name != "onnxruntime"]
OF_ONNX = [name for name in ENGINES if name != "torch"]
SIDE = 128
FLOAT16 = 10
"""As ONNX numbers it."""


@pytest.fixture(scope="module")
def country():
    """Four raw patches uint16."""
    bands = landscape((2 * SIDE, 2 * SIDE), 7).bands
    return np.stack([bands[:, y : y + SIDE, x : x + SIDE] for y in (0, SIDE) for x in (0, SIDE)])


@pytest.fixture(scope="module")
def reference(country):
    """Scores of PyTorch in float32 for `country`, without folding or fusing anything but PyTorch's own."""
    model = load_model("landscape", device="cpu", threads=2, engine="torch", precision="fp32")
    return model.predict(model.spec.normalisation().apply(country))


def loaded(reference="landscape", **options):
    skip_what_cannot_be_pretended(str(options.get("engine")), str(options.get("precision")))
    return load_model(reference, device="cpu", threads=2, **options)


def call_of(spec, dtype, *, labels=True):
    return Call(np.dtype(dtype), spec.normalisation(), labels=labels)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999)])
@pytest.mark.parametrize("engine", OF_TORCH)
def test_labels_agree_with_those_of_pytorch_in_float32(country, reference, engine, precision, least):
    model = loaded(engine=engine, precision=precision)
    expected, labels = reference.argmax(1), model.network(call_of(model.spec, np.uint16))(country)
    assert model.choice.runtime == engine and model.choice.precision == precision
    assert labels.dtype == np.uint8 and labels.shape == expected.shape and len(np.unique(labels)) == 4
    assert np.mean(labels == expected) >= least


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", OF_TORCH)
def test_a_network_with_ends_gives_what_predict_and_decide_give(country, engine, precision):
    model = loaded(engine=engine, precision=precision)
    plain = model.predict(model.spec.normalisation().apply(country))
    fused = model.network(call_of(model.spec, np.uint16, labels=False))(country)
    assert fused.dtype == np.float32 and fused.flags.c_contiguous
    np.testing.assert_allclose(fused, plain, atol=1e-5 if precision == "fp32" else 0.03)
    labels = model.network(call_of(model.spec, np.uint16))(country)
    assert np.mean(labels == np.stack([decide(one) for one in plain])) >= (0.9999 if precision == "fp32" else 0.999)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", OF_TORCH)
@pytest.mark.parametrize("labels", [True, False])
def test_a_result_does_not_depend_on_the_patch_s_place_in_the_batch(country, engine, precision, labels):
    network = loaded(engine=engine, precision=precision).network(
        call_of(find_bundle("landscape").spec, np.uint16, labels=labels)
    )
    first = network(country)
    for shift in (1, 3):
        assert np.array_equal(network(np.roll(country, shift, axis=0)), np.roll(first, shift, axis=0))
    padded = country.copy()
    padded[1:] = 0
    assert np.array_equal(network(padded)[0], first[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", OF_TORCH)
@pytest.mark.parametrize("labels", [True, False])
def test_the_middle_of_a_patch_is_that_of_the_whole_image_to_the_bit(engine, precision, labels):
    model = loaded(engine=engine, precision=precision)
    network, margin = model.network(call_of(model.spec, np.uint16, labels=labels)), model.spec.margin
    image = landscape((320, 320), 11).bands[None]
    whole = network(image)
    for y, x, size in [(64, 32, 160), (0, 144, 176), (24, 56, 208)]:
        part = network(image[..., y : y + size, x : x + size])[..., margin:-margin, margin:-margin]
        assert np.array_equal(part, whole[..., y + margin : y + size - margin, x + margin : x + size - margin])


@pytest.mark.parametrize("engine", OF_TORCH)
def test_results_stay_what_they_are_when_the_network_is_called_again(country, engine):
    network = loaded(engine=engine, precision="fp32").network(
        call_of(find_bundle("landscape").spec, np.uint16, labels=False)
    )
    first = network(country)
    kept = first.copy()
    network(country[::-1].copy())
    assert np.array_equal(first, kept)


def numbers(dtype):
    rng = np.random.default_rng(3)
    values = rng.normal(100, 60, (2, 3, 32, 32))
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else values.clip(0, 200).round().astype(dtype)


FAR = Normalisation((40000.0, 300.0, 2.5), (7.0, 3.0, 0.5), scale=3.0, offset=40000.0)
CLIPPED = Normalisation((1.0, 2.0, 3.0), (50.0, 60.0, 70.0), clip=(0.0, 1.5))
LOGISTIC = Normalisation((100.0,) * 3, (30.0,) * 3, sigmoid=True)
BINARY = Normalisation((0.0,) * 3, (1.0,) * 3, binarize=100.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", ">u2"])
@pytest.mark.parametrize("engine", OF_TORCH)
def test_raw_values_of_any_type_are_normalised_as_numpy_does(tmp_path, engine, dtype):
    """bf16 too: it begins behind the normalisation, or numbers of 16 bits would lose half of theirs."""
    unet_bundle(tmp_path)
    raw = numbers(dtype)
    for by in (FAR, CLIPPED):
        for precision, near in (("fp32", 1e-4), ("bf16", 0.1)):
            model = loaded(tmp_path, engine=engine, precision=precision)
            expected = model.predict(by.apply(raw))
            found = model.network(Call(np.dtype(dtype), by, labels=False))(raw)
            assert np.abs(found - expected).max() <= near and np.ptp(expected) > 0.2


@pytest.mark.parametrize("by", [FAR, CLIPPED, LOGISTIC, BINARY], ids=["far", "clip", "sigmoid", "binarize"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_identity_network_shows_the_normalisation(tmp_path, engine, by):
    raw = numbers("uint8")
    found = loaded(identity_bundle(tmp_path, engine), engine=engine, precision="fp32").network(
        Call(raw.dtype, by, labels=False)
    )(raw)
    np.testing.assert_allclose(found, by.apply(raw), rtol=1e-6, atol=1e-6)


def identity_bundle(folder, engine, **changes):
    spec = {"activation": "none", "classes": [{"name": name, "colour": "black"} for name in "abc"], **changes}
    if engine == "onnxruntime":
        ends = [value_info(name, "n", 3, "h", "w") for name in "xy"]
        data = onnx_network([node("Identity", ["x"], ["y"])], ends[:1], ends[1:])
        return onnx_bundle(folder, data, bands=["red", "green", "blue"], **spec)
    return make_bundle(folder, save_script(torch.nn.Identity(), folder / "net.pt"), engine="torchscript", **spec)


NOTHING = Normalisation((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
@pytest.mark.parametrize("engine", ENGINES)
def test_ties_go_to_the_lower_class_and_one_hot_labels_come_back(tmp_path, engine, activation):
    model = loaded(identity_bundle(tmp_path, engine, activation=activation), engine=engine)
    network = model.network(Call(np.dtype(np.float32), NOTHING, labels=True))
    labels = np.random.default_rng(0).integers(0, 3, (2, 17, 23))
    scores = np.moveaxis(np.eye(3, dtype=np.float32)[labels], -1, 1).copy()
    assert np.array_equal(network(scores), labels)
    several = np.random.default_rng(1).integers(-1, 2, (2, 3, 17, 23)).astype(np.float32)
    assert np.array_equal(network(several), several.argmax(1))  # NumPy takes the first of equals
    assert not network(np.zeros_like(several)).any()


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_scores_that_are_not_finite_are_refused_wherever_they_are(tmp_path, engine, labels, activation):
    model = loaded(identity_bundle(tmp_path, engine, activation=activation), engine=engine)
    network = model.network(Call(np.dtype(np.float32), NOTHING, labels=labels))
    bad = (np.nan,) if activation == "sigmoid" else (np.nan, np.inf)
    for value in bad:
        for channel in range(3):
            raw = numbers("float32")
            network(raw)
            raw[1, channel, 31, 30] = value
            with pytest.raises(ValueError, match="not finite"), np.errstate(invalid="ignore"):
                network(raw)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("engine", OF_TORCH)
def test_no_rectifier_hides_a_value_that_is_not_a_number(country, engine, labels):
    model = loaded(engine=engine)
    network = model.network(call_of(model.spec, np.float32, labels=labels))
    raw = country.astype(np.float32)
    network(raw)
    for value in (np.nan, np.inf):
        raw[2, 1, 70, 60] = value
        with pytest.raises(ValueError, match="not finite"):
            network(raw)


@pytest.mark.parametrize("engine", OF_TORCH)
def test_a_threshold_is_reached_by_equals(tmp_path, engine):
    class First(torch.nn.Module):
        def forward(self, x):
            return x[:, :1]

    weights = save_script(First(), tmp_path / "net.pt")
    decision = {"kind": "threshold", "threshold": 0.3}
    folder = make_bundle(tmp_path, weights, engine="torchscript", activation="none", decision=decision)
    raw = np.full((1, 3, 8, 8), 0.3, np.float32)
    raw[..., 4:] = np.nextafter(np.float32(0.3), np.float32(0))
    labels = loaded(folder, engine=engine).network(Call(raw.dtype, NOTHING, labels=True))(raw)
    assert labels.dtype == np.uint8 and labels[..., :4].all() and not labels[..., 4:].any()


@pytest.mark.parametrize("skips", ["concat", "add"])
@pytest.mark.parametrize("convolutions", ["same", "valid"])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_u_net_of_openvino_is_that_of_pytorch(tmp_path, up, convolutions, batch_norm, skips):
    pytest.importorskip("openvino")
    rule = {"patch": {"shrink": shrink_of(UNetShape(depth=2, convolutions=convolutions)), "multiple": 4}}
    shape = {"up": up, "convolutions": convolutions, "batch_norm": batch_norm, "skips": skips}
    network, folder = unet_bundle(tmp_path, **shape, changes=rule)
    size = 60 if convolutions == "valid" else 64
    raw = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(raw)), 1).numpy()
    scores = loaded(folder, engine="openvino", precision="fp32").predict(raw)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("engine", OF_ONNX)
def test_scores_of_another_type_are_taken(tmp_path, engine, labels, activation):
    """A network whose last node casts to float16."""
    given, gives = value_info("x", "n", 2, "h", "w"), value_info("y", "n", 2, "h", "w", kind=FLOAT16)
    half = node("Cast", ["x"], ["y"], field(1, "to") + field(3, FLOAT16) + field(20, 2))
    folder = onnx_bundle(tmp_path, onnx_network([half], [given], [gives]), activation=activation)
    raw = (np.arange(128, dtype=np.float32).reshape(1, 2, 8, 8) % 7) / 8
    model = loaded(folder, engine=engine, precision="fp32")
    found = model.network(Call(np.dtype(np.float32), Normalisation((0.0,) * 2, (1.0,) * 2), labels=labels))(raw)
    scores = activate(raw, activation)
    assert found.dtype == (np.uint8 if labels else np.float32)
    np.testing.assert_allclose(found, np.stack([decide(one) for one in scores]) if labels else scores, atol=1e-6)


def test_scores_that_are_the_network_s_input_are_in_memory_of_their_own():
    """An engine of one's own may hand back what it was given."""
    spec = spec_of("torchscript")
    network = plain(lambda patches: patches, Call(np.dtype(np.uint8), NOTHING, labels=False), spec)
    first = network(np.zeros((1, 3, 8, 8), np.uint8))
    network(np.ones((1, 3, 8, 8), np.uint8))
    assert not first.any()


class Holder:
    """An engine of one's own that keeps something by the name of what built-in engines offer."""

    device = "cpu"

    def __init__(self, spec, weights, *, device, threads):
        self.network = np.tanh

    def predict(self, patches):
        return self.network(patches)


def test_an_engine_of_one_s_own_may_name_its_parts_as_it_likes(tmp_path):
    data = spec_of(f"{__name__}:Holder").model_dump(mode="json") | {"activation": "none"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({**data, "bands": ["a", "b"], "weights": None}))
    by = Normalisation((0.0,) * 2, (100.0,) * 2)
    raw = np.full((1, 2, 8, 8), 50, np.uint8)
    found = loaded(tmp_path).network(Call(raw.dtype, by, labels=False))(raw)
    np.testing.assert_allclose(found, np.tanh(0.5), rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_shapes_are_refused_with_both(tmp_path, engine):
    folder = identity_bundle(tmp_path, engine, classes=[{"name": name, "colour": "black"} for name in "ab"])
    for labels in (True, False):
        network = loaded(folder, engine=engine).network(Call(np.dtype(np.uint8), NOTHING, labels=labels))
        with pytest.raises(ModelError, match=r"\(2, 3, 32, 32\).*promises \(2, 2, 32, 32\)"):
            network(numbers("uint8"))
    unet_bundle(tmp_path)
    if engine != "onnxruntime":
        with pytest.raises(ModelError, match=r"fails on patches|gives scores") as caught:
            loaded(tmp_path, engine=engine).predict(np.zeros((1, 3, 30, 30), np.float32))
        assert "\n" not in str(caught.value)


def test_a_batch_size_that_an_onnx_file_fixes_is_kept_by_openvino(tmp_path):
    pytest.importorskip("openvino")
    ends = [value_info(name, 2, 2, "h", "w") for name in "xy"]
    folder = onnx_bundle(tmp_path, onnx_network([node("Identity", ["x"], ["y"])], ends[:1], ends[1:]))
    raw = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype(np.float32)
    assert np.array_equal(loaded(folder, engine="openvino").predict(raw), raw)


def broken_onnx(folder):
    """A network that onnxruntime runs and OpenVINO does not know: an operator of onnxruntime's own."""
    ends = [value_info(name, "n", 2, "h", "w") for name in "xy"]
    own = node("FusedGemm", ["x"], ["y"]) + field(7, "no.such.domain")
    return onnx_bundle(folder, onnx_network([own], ends[:1], ends[1:]))


def test_what_openvino_cannot_convert_goes_to_the_native_runtime_or_is_refused(tmp_path):
    pytest.importorskip("openvino")
    bundle = find_bundle(broken_onnx(tmp_path))
    choice = choose_for(bundle, Able(("torch", "openvino", "onnxruntime")))
    assert choice.runtime == "onnxruntime" and "OpenVINO cannot convert" in choice.why
    assert "write" not in choice.why and "not installed" not in choice.why
    with pytest.raises(ModelError, match=r"OpenVINO cannot convert.*; write engine: onnxruntime$") as caught:
        choose_for(bundle, Able(("torch", "openvino", "onnxruntime")), "openvino")
    assert "\n" not in str(caught.value)


def spec_of(kind):
    data = {"name": "m", "licence": "MIT", "engine": kind, "bands": ["a"], "input_range": [0, 1]}
    data |= {"normalise": {"kind": "none"}, "classes": [{"name": "a", "colour": "red"}, {"name": "b", "colour": "red"}]}
    return ModelSpec.model_validate(data | ({"unet": {}} if kind == "unet" else {}))


ALL = ("torch", "openvino", "onnxruntime")
AMX, CUDA = Able(ALL, ("bf16", "fp32")), Able(ALL, ("bf16", "fp16", "fp32"), "cuda:0")
OLD = Able(ALL, ("fp16", "fp32"), "cuda:0")


@pytest.mark.parametrize(
    ("kind", "able", "asked", "chosen"),
    [
        ("unet", Able(), {}, ("torch", "fp32")),
        ("unet", Able(ALL), {}, ("openvino", "fp32")),
        ("unet", AMX, {}, ("openvino", "bf16")),
        ("unet", AMX, {"engine": "torch"}, ("torch", "bf16")),
        ("unet", AMX, {"precision": "fp32"}, ("openvino", "fp32")),
        ("unet", Able(ALL), {"precision": "bf16"}, ("openvino", "bf16")),
        ("unet", CUDA, {}, ("torch", "bf16")),
        ("unet", OLD, {}, ("torch", "fp16")),
        ("unet", OLD, {"precision": "fp32"}, ("torch", "fp32")),
        ("torchscript", AMX, {}, ("openvino", "bf16")),
        ("exported", AMX, {}, ("torch", "bf16")),
        ("onnx", Able(ALL), {}, ("openvino", "fp32")),
        ("onnx", Able(("torch", "onnxruntime"), ("bf16", "fp32")), {}, ("onnxruntime", "fp32")),
        ("onnx", CUDA, {}, ("onnxruntime", "fp32")),
        ("onnx", CUDA, {"precision": "fp16"}, ("onnxruntime", "fp16")),
        ("package.module:Class", AMX, {}, ("own", "fp32")),
    ],
)
def test_what_is_chosen(kind, able, asked, chosen):
    choice = choose(spec_of(kind), able, **asked)
    assert (choice.runtime, choice.precision) == chosen and choice.why and "\n" not in choice.why


@pytest.mark.parametrize(
    ("kind", "able", "asked", "message"),
    [
        ("unet", Able(), {"engine": "openvino"}, r"not installed; pip install 'tilesseg\[openvino\]'"),
        ("onnx", Able(), {}, r"onnxruntime is not installed; pip install 'tilesseg\[onnx\]'"),
        ("unet", Able(ALL), {"engine": "onnxruntime"}, "does not read; write auto or torch or openvino"),
        ("exported", Able(ALL), {"engine": "openvino"}, "does not read; write auto or torch"),
        ("unet", CUDA, {"engine": "openvino"}, "the device is cuda:0"),
        ("unet", AMX, {"precision": "fp16"}, "fp16 is requested, and openvino on cpu computes in fp32, bf16"),
        ("onnx", AMX, {"engine": "onnxruntime", "precision": "bf16"}, "computes in fp32"),
        ("unet", AMX, {"precision": "int8"}, "precision int8 is unknown"),
        ("unet", AMX, {"engine": "jax"}, "engine jax is unknown"),
        ("tensorflow", AMX, {}, "has unknown engine tensorflow; write"),
        ("package.module:Class", AMX, {"engine": "torch"}, "brings its own code"),
        ("package.module:Class", AMX, {"precision": "bf16"}, "brings its own code"),
    ],
)
def test_what_is_refused(kind, able, asked, message):
    with pytest.raises(ModelError, match=message):
        choose(spec_of(kind), able, **asked)


def test_bf16_is_known_by_the_flags_of_the_processor():
    flags, name = cpu_of("processor : 0\nmodel name\t: Xeon 9\nflags\t\t: fpu amx_bf16 sse\n\nprocessor: 1\n")
    assert "amx_bf16" in flags and name == "Xeon 9"
    assert "bf16" in cpu_of("processor : 0\nFeatures : fp asimd bf16\n")[0] and cpu_of("")[0] == frozenset()
    here = able("cpu")
    assert "torch" in here.runtimes and here.device == "cpu" and here.fast[-1] == "fp32"


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_bf16_is_not_accelerated_where_the_environment_limits_the_instruction_set(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """PyTorch cannot even compute a transposed convolution in bf16 then."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tilesseg.models.hardware._cpuinfo", lambda: "model name : Xeon 9\nflags : avx512_bf16\n")
    assert able("cpu").fast == ("bf16", "fp32")
    monkeypatch.setenv(variable, "avx512_core_amx")
    assert able("cpu").fast == ("bf16", "fp32")
    monkeypatch.setenv(variable, "avx2")
    assert able("cpu").fast == ("fp32",)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfDeviceMemory),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), OutOfDeviceMemory),
        (RuntimeError("std::bad_alloc"), OutOfDeviceMemory),
        (MemoryError(), OutOfDeviceMemory),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8"), OutOfDeviceMemory),
        (RuntimeError("CUDA error: out of memory"), OutOfDeviceMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"), DeviceLost),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLost),
        (RuntimeError("CUDA error: unspecified launch failure"), DeviceLost),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), DeviceLost),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLost),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLost),
        (RuntimeError("Sizes of tensors must match"), ModelError),
    ],
)
def test_errors_of_runtimes_are_told_apart(error, kind):
    found = refusal(error, name="m", device="cuda:0", shape=(1, 3, 8, 8))
    assert type(found) is kind and "\n" not in str(found) and "(1, 3, 8, 8)" in str(found)


def test_compiling_is_refused_where_nothing_is_compiled(tmp_path):
    if "openvino" in ENGINES:
        with pytest.raises(ModelError, match="write engine: torch"):
            loaded("landscape", engine="openvino", compiled=True)
    folder = identity_bundle(tmp_path, "torch")
    with pytest.raises(ModelError, match="leaves as it is"):
        loaded(folder, engine="torch", compiled=True)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "engine"), [("onnx", name) for name in OF_ONNX] + [("pt", "torch")])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999)])
def test_nuclei_agree_on_real_images(shared_data, file, engine, precision, least):
    if engine == "onnxruntime" and precision == "bf16":
        return
    weights = shared_data / "weights" / "unet2d_nuclei_broad" / f"weights.{file}"
    kinds = {"onnx": "onnx", "pt": "torchscript"}
    bundle = Bundle(nuclei_spec(kinds[file], weights), weights.parent, weights)
    script = weights.with_suffix(".pt")
    exact = loaded(Bundle(nuclei_spec("torchscript", script), script.parent, script), engine="torch", precision="fp32")
    same = total = 0
    for name in ("0ea221716cf1", "b61d3fb0d0eb"):
        source = open_source([str(shared_data / "microscopy" / "dsb2018" / f"{name}.png")])
        image = source.read(source.grid.window).values[:1]
        raw = np.pad(image, [(0, 0), *((0, 512) for _ in "yx")], mode="reflect")[None, :, :512, :512]
        by = bundle.spec.normalisation(*mean_std(image.reshape(1, -1), eps=1e-6))
        call = Call(raw.dtype, by, labels=True)
        found = loaded(bundle, engine=engine, precision=precision).network(call)(raw)
        expected = exact.network(call)(raw)
        assert expected.any()
        same, total = same + int((found == expected).sum()), total + found.size
    print(f"{file} {engine} {precision}: {same / total:.6f}")
    assert same / total >= least


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.995)])
@pytest.mark.parametrize("scene", ["landsat5", "sentinel2"])
def test_clouds_of_openvino_agree_with_those_of_onnxruntime(shared_data, scene, precision, least):
    pytest.importorskip("openvino")
    pytest.importorskip("ukis_csmask")
    with np.load(shared_data / "satellite" / "ukis_cloud" / f"{scene}.npz") as data:
        image = np.moveaxis(data["img"].astype(np.float32), -1, 0)
        truth = np.array([2, 0, 0, 0, 1], np.uint8)[data["msk"][..., 0]]
    cut = lambda of: np.stack([of[..., y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)])  # noqa: E731
    raw, right, labels = cut(image), cut(truth), {}
    for engine, kind in (("onnxruntime", "fp32"), ("openvino", precision)):
        model = loaded("clouds", engine=engine, precision=kind)
        labels[engine] = model.network(call_of(model.spec, np.float32))(raw)
    agreement = float(np.mean(labels["onnxruntime"] == labels["openvino"]))
    accuracy = {name: float(np.mean(found == right)) for name, found in labels.items()}
    print(f"{scene} {precision}: agreement {agreement:.6f}, accuracy {accuracy}")
    assert agreement >= least and accuracy["openvino"] >= accuracy["onnxruntime"] - 0.002


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_background_is_where_no_score_reaches_the_threshold_in_every_engine(tmp_path, engine, activation):
    raw = np.random.default_rng(0).normal(0, 1, (2, 3, 40, 33)).astype(np.float32)
    raw[0, :, :4] = 0.25  # at the threshold, and all alike
    scores = raw if activation == "none" else 1 / (1 + np.exp(-raw.astype(np.float64)))
    threshold = 0.25 if activation == "none" else 0.6
    decision = {"kind": "threshold", "threshold": threshold, "background": True}
    classes = [{"name": name, "colour": "black"} for name in ("background", "a", "b", "c")]
    folder = identity_bundle(tmp_path, engine, activation=activation, decision=decision, classes=classes)
    model = loaded(folder, engine=engine, precision="fp32")
    expected = np.where((scores >= threshold).any(axis=1), 1 + scores.argmax(axis=1), 0)
    labels = model.network(Call(raw.dtype, NOTHING, labels=True))(raw)
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected) and set(np.unique(labels)) == {0, 1, 2, 3}
    assert np.array_equal(np.stack([decide(one, threshold) for one in model.predict(raw)]), expected)
