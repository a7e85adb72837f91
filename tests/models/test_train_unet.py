"""Laws of training: the loss is what it says, the seed decides, and what is written can be loaded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from fakes import job_data
from safetensors.torch import load_file

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, ModelError
from tilesseg.formats.open import open_source
from tilesseg.models.spec import ClassSpec, UNetShape, read_spec
from tilesseg.models.training.train_unet import (
    LabelledScene,
    Step,
    Training,
    describe,
    dice_and_cross_entropy,
    draw,
    train,
    write_bundle,
)
from tilesseg.models.unet.architecture import UNet
from tilesseg.planning.job import parse_job
from tilesseg.planning.value_range import SceneValues, check_range
from tilesseg.run.run_job import run_job


def tiny(**changes: object) -> Training:
    settings: dict[str, object] = {
        "name": "tiny",
        "licence": "Apache-2.0",
        "bands": ("a", "b"),
        "classes": (ClassSpec(name="dark", colour="black"), ClassSpec(name="bright", colour="white")),
        "unet": UNetShape(depth=1, width=4),
        "core": 64,
        "patch": 32,
        "batch": 4,
        "steps": 40,
        "rate": 1e-2,
    }
    return Training.model_validate(settings | changes)


def scene(seed: int = 0, size: int = 96) -> LabelledScene:
    """Bright squares on a dark ground, noisy; a corner without data, a row without labels."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (size // 8, size // 8)), np.ones((8, 8))).astype(np.uint8)
    bands = (rng.normal(100, 30, (2, size, size)) + 80 * labels).astype(np.uint16)
    valid = np.ones((size, size), bool)
    valid[:20, :20] = False
    bands[:, ~valid] = 65535
    labels[50] = 255
    return LabelledScene(bands, labels, valid)


# ------------------------------------------------------------------ loss


def test_certain_and_right_costs_nothing() -> None:
    labels = torch.tensor([[[0, 1], [1, 2]]])
    scores = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2) * 1e4
    assert dice_and_cross_entropy(scores.float(), labels).item() == pytest.approx(0, abs=1e-6)


def test_certain_and_wrong_costs_the_whole_dice() -> None:
    scores = torch.tensor([5.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 4)
    loss = dice_and_cross_entropy(scores * 100, torch.ones(1, 1, 4, dtype=torch.long))
    assert loss.item() == pytest.approx(500 + 1)


def test_equal_scores_cost_what_the_formula_says() -> None:
    """Two classes at one half each, three pixels of one and one of the other.

    Cross-entropy is log 2; Dice is 2·1.5 / (2 + 3) = 0.6 and 2·0.5 / (2 + 1) = 1/3.
    """
    loss = dice_and_cross_entropy(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 0], [0, 1]]]))
    assert loss.item() == pytest.approx(np.log(2) + 1 - (0.6 + 1 / 3) / 2)


def test_a_class_that_is_absent_has_no_dice() -> None:
    scores = torch.zeros(1, 3, 2, 2)
    scores[:, 2] = -1e4  # never predicted, never true: only the other two count
    loss = dice_and_cross_entropy(scores, torch.tensor([[[0, 0], [0, 1]]]))
    assert loss.item() == pytest.approx(np.log(2) + 1 - (0.6 + 1 / 3) / 2)


def test_ignored_pixels_change_neither_loss_nor_gradient() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[:, :3] = 255
    scores = torch.randn(2, 3, 8, 8)
    other = scores.clone()
    other[:, :, :3] = torch.randn(2, 3, 3, 8) * 100
    a, b = scores.requires_grad_(), other.requires_grad_()
    first, second = dice_and_cross_entropy(a, labels), dice_and_cross_entropy(b, labels)
    first.backward()
    second.backward()
    assert first.item() == second.item()
    assert a.grad is not None
    assert b.grad is not None
    assert torch.equal(a.grad, b.grad)
    assert not a.grad[:, :, :3].any()


def test_a_patch_with_nothing_known_costs_nothing_and_can_be_differentiated() -> None:
    scores = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = dice_and_cross_entropy(scores, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


# ------------------------------------------------------------------ patches


def test_patches_are_normalised_as_a_run_normalises_them() -> None:
    training = tiny(batch=1, patch=96)
    whole = scene()
    spec = describe([whole], training)
    patches, labels = draw([whole], spec, training, np.random.default_rng(0))
    expected = spec.normalisation().apply(np.where(whole.valid, whole.bands, 0))
    turned = [np.rot90(expected, turns, (-2, -1))[..., ::step].copy() for turns in range(4) for step in (1, -1)]
    assert sum(np.array_equal(patches[0].numpy(), t) for t in turned) == 1
    assert patches.dtype == torch.float32
    assert labels.shape == (1, 96, 96)


def test_a_patch_and_its_labels_are_turned_together() -> None:
    training = tiny(batch=64)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (96, 96)).astype(np.uint8)
    whole = LabelledScene(np.stack([labels, labels]).astype(np.uint16) * 100, labels, np.ones((96, 96), bool))
    patches, truths = draw([whole], describe([whole], training), training, rng)
    assert torch.equal((patches[:, 0] > 0).long(), truths)


def test_all_eight_turns_and_flips_occur() -> None:
    training = tiny(batch=64, patch=96)
    patches, _ = draw([scene()], describe([scene()], training), training, np.random.default_rng(0))
    assert len({patch.numpy().tobytes() for patch in patches}) == 8


def test_pixels_without_data_are_filled_and_teach_nothing() -> None:
    training = tiny(batch=1, patch=96, fill=7.0)
    whole = scene()
    spec = describe([whole], training)
    patches, labels = draw([whole], spec, training, np.random.default_rng(0))
    fill = spec.normalisation().apply(np.full((2, 1, 1), 7.0))[0, 0, 0]
    hidden = labels[0] == 255
    assert (patches[0, 0] == fill).sum() >= 400
    assert hidden[patches[0, 0] == fill].all()
    assert hidden.sum() == 400 + 96


def test_valid_convolutions_learn_the_centre_of_the_patch() -> None:
    training = tiny(unet=UNetShape(depth=1, width=4, convolutions="valid"), patch=32, steps=2)
    spec, _ = train([scene()], training)
    assert spec.patch.shrink == 16
    _, labels = draw([scene()], spec, training, np.random.default_rng(0))
    assert labels.shape == (4, 16, 16)


# ------------------------------------------------------------------ spec


def test_statistics_come_from_valid_pixels_of_all_scenes() -> None:
    scenes = [scene(1), scene(2)]
    spec = describe(scenes, tiny())
    pixels = np.concatenate([s.bands[:, s.valid] for s in scenes], axis=1).astype(float)
    assert spec.normalise.mean == pytest.approx(tuple(pixels.mean(1)), rel=1e-5)
    assert spec.normalise.std == pytest.approx(tuple(pixels.std(1)), rel=1e-5)
    assert spec.input_range[0] <= pixels.min() and spec.input_range[1] >= pixels.max()
    assert spec.input_range == pytest.approx((pixels.min(), pixels.max()), rel=0.1, abs=10)


def test_the_range_of_8_bit_is_that_of_the_type() -> None:
    dark = replace(scene(1), bands=(scene(1).bands * 0 + 3).astype(np.uint8))
    assert describe([dark], tiny()).input_range == (0, 255)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_bundle_takes_every_scene_of_its_own_data_set(dtype: str) -> None:
    made = np.random.default_rng(1).random((2, 96, 96))
    reach = {"uint8": 255, "uint16": 4000, "float32": 1}[dtype]
    shares = (1.0, 0.3, 0.01, 0.0)  # bright, dark, nearly empty, empty
    scenes = [replace(scene(1), bands=(made * reach * share).astype(dtype)) for share in shares]
    spec = describe(scenes, tiny())
    for each in scenes:
        values = each.bands[:, each.valid].astype(np.float64)
        span = tuple(map(float, np.percentile(values, [2, 98])))
        whole = dtype != "float32"
        found = SceneValues((span[0], span[1]), float(values.min()), float(values.max()), (dtype,), whole=whole)
        check_range(found, spec, image="scene.tif")


def test_a_bundle_of_twelve_microscopy_images_segments_five_others(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "microscopy" / "dsb2018"
    pictures = sorted(folder.glob("*.png"))
    scenes = []
    for picture in pictures[:12]:
        source = open_source(str(picture))
        bands = source.read(source.grid.window).values
        nuclei = (tifffile.imread(folder / f"{picture.stem}_mask.tif") > 0).astype(np.uint8)
        scenes.append(LabelledScene(bands, nuclei, np.ones(nuclei.shape, bool)))
    spec, network = train(scenes, tiny(bands=("red", "green", "blue"), steps=3))
    write_bundle(tmp_path / "model", spec, network)
    others = [str(picture) for picture in pictures[12:17]]
    job = parse_job(job_data(others, tmp_path / "model", tmp_path / "run"), where="test")
    report = run_job(job, executor=SerialExecutor())
    assert report.exit_code == 0 and len(report.scenes) == len(others) == 5


def test_the_margin_covers_the_reach_in_whole_strides() -> None:
    spec = describe([scene()], tiny(unet=UNetShape(depth=3, width=2), core=512))
    assert (spec.margin, spec.patch.stride_multiple, spec.patch.preferred) == (48, 8, 512 + 2 * 48)
    assert describe([scene()], tiny(core=None)).patch.preferred is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("a",)}, "scene 0 has 2 bands, the training 1; give the same bands"),
        ({"patch": 128}, r"scene 0 is \(96, 96\), smaller than a patch of 128"),
        ({"patch": 33}, r"patches of 0 \+ k·2, not 33"),
    ],
)
def test_scenes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(JobError, match=message):
        train([scene()], tiny(**changes))


def test_a_label_without_a_class_is_refused() -> None:
    whole = scene()
    whole.labels[0, 0] = 2
    with pytest.raises(JobError, match="the label 2, the training 2 classes"):
        train([whole], tiny())


def test_no_scenes_and_no_valid_pixels_are_refused() -> None:
    with pytest.raises(JobError, match="no scenes"):
        train([], tiny())
    whole = scene()
    with pytest.raises(JobError, match="none of the 1 scenes has a valid pixel"):
        train([LabelledScene(whole.bands, whole.labels, np.zeros_like(whole.valid))], tiny())


# ------------------------------------------------------------------ training


def test_training_lowers_the_loss_and_learns_the_squares() -> None:
    steps: list[Step] = []
    spec, network = train([scene(1), scene(2)], tiny(steps=80), progress=steps.append)
    assert [step.number for step in steps] == list(range(1, 81))
    assert np.mean([s.loss for s in steps[-5:]]) < 0.5 * np.mean([s.loss for s in steps[:5]])
    other = scene(3)
    filled = np.where(other.valid, other.bands, spec.fill)
    with torch.inference_mode():
        mask = network(torch.from_numpy(spec.normalisation().apply(filled)[None]))[0].argmax(0).numpy()
    known = other.valid & (other.labels != 255)
    assert (mask[known] == other.labels[known]).mean() > 0.9


def test_the_seed_decides_the_parameters() -> None:
    one, two, three = (train([scene()], tiny(steps=3, seed=seed))[1].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], three["head.weight"])


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train([scene()], tiny(steps=1))
    assert torch.equal(torch.rand(3), expected)


def test_half_precision_trains_parameters_of_full_precision() -> None:
    _, network = train([scene()], tiny(steps=2, precision="bfloat16"))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_bundle_can_be_loaded_again(tmp_path: Path) -> None:
    spec, network = train([scene()], tiny(steps=2))
    written = write_bundle(tmp_path / "bundle", spec, network)
    read = read_spec(tmp_path / "bundle" / "model.yaml")
    assert read == written
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["model.yaml", "weights.safetensors"]
    weights = tmp_path / "bundle" / "weights.safetensors"
    assert read.weights is not None
    assert read.weights.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert read.unet is not None
    again = UNet(len(read.bands), read.score_channels, read.unet)
    again.load_state_dict(load_file(weights), strict=True)
    patch = torch.rand(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.eval()(patch), network(patch))


def test_a_bundle_is_written_over_an_old_one(tmp_path: Path) -> None:
    spec, network = train([scene()], tiny(steps=1))
    write_bundle(tmp_path, spec, network)
    spec, network = train([scene()], tiny(steps=1, seed=9))
    assert write_bundle(tmp_path, spec, network) == read_spec(tmp_path / "model.yaml")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    spec, network = train([scene()], tiny(steps=1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot write the bundle .*; choose another folder") as refused:
        write_bundle(tmp_path / "file", spec, network)
    assert "\n" not in str(refused.value)
