"""Train a U-Net on labelled scenes and write it as a bundle.

Training and run give the network the same values: the same fill of invalid pixels, the same
`ModelSpec.normalisation`. Statistics are computed once, from all scenes, and written into the bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tilesseg.atomic_write import published
from tilesseg.errors import JobError, ModelError
from tilesseg.models.normalisation import mean_std
from tilesseg.models.spec import ClassSpec, ModelSpec, Normalise, PatchSizes, UNetShape, Weights
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, patch_rule, shrink_of, stride_multiple

IGNORED = 255
"""Label of pixels that are not trained on: nodata, or not labelled."""
WEIGHTS_FILE = "weights.safetensors"
_SAMPLE = 2_000_000
"""Largest number of pixels that the statistics are computed from."""


class Training(BaseModel):
    """Options of a training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    description: str = ""
    licence: str
    bands: tuple[str, ...]
    classes: tuple[ClassSpec, ...]
    dtype: str = "uint16"
    resolution: float | None = None
    fill: float = 0.0
    """Value of invalid pixels, in the values of the imagery."""
    unet: UNetShape = UNetShape()
    core: int | None = Field(None, ge=1)
    """Side of the preferred patch of a run without its margins; None: a run chooses the fastest patch."""
    patch: int = Field(256, ge=1)
    """Side of a training patch."""
    batch: int = Field(8, ge=1)
    steps: int = Field(1000, ge=1)
    rate: float = Field(4e-3, gt=0)
    """Highest learning rate of the cycle."""
    decay: float = Field(1e-4, ge=0)
    """Weight decay."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the convolutions while training; the parameters stay float32."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """An image and its true classes, in memory."""

    bands: NDArray[Any]
    """`(channel, y, x)` in the values of the imagery."""
    labels: NDArray[np.uint8]
    """`(y, x)`: classes from 0; `IGNORED` elsewhere."""
    valid: NDArray[np.bool_]
    """`(y, x)`: False where the image has nodata."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of training, for a progress display."""

    number: int
    """Number of the step, from 1."""
    of: int
    """Number of all steps."""
    loss: float


def train(
    scenes: Sequence[LabelledScene],
    training: Training,
    *,
    device: str = "cpu",
    progress: Callable[[Step], None] = lambda step: None,
) -> tuple[ModelSpec, UNet]:
    """Train a network; on one machine and thread count, the same seed gives the same parameters.

    Returns:
        The spec, still without its weights file, and the network in evaluation mode on the CPU.

    Raises:
        JobError: the scenes do not fit the training.
    """
    generator = np.random.default_rng(training.seed)
    with torch.random.fork_rng():  # the caller's own random numbers are not disturbed
        spec = describe(scenes, training)
        torch.manual_seed(training.seed)
        network = UNet(len(spec.bands), spec.score_channels, training.unet)
    network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=training.steps + 1)
    for number in range(1, training.steps + 1):
        patches, labels = draw(scenes, spec, training, generator)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            scores = network(patches.to(device, memory_format=torch.channels_last))
        loss = dice_and_cross_entropy(scores.float(), labels.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(Step(number, training.steps, float(loss.detach())))
    network = network.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return spec, network


def dice_and_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy plus 1 − mean soft Dice over the classes present; `IGNORED` pixels count in neither.

    Dice as in Milletari et al. (2016) without the squares, over the whole batch, so that a class of few pixels
    weighs as much as a class of many.

    Args:
        scores: `(n, classes, y, x)` before softmax.
        labels: `(n, y, x)` integers.

    Returns:
        A scalar; 0 if all pixels are ignored.
    """
    known = labels != IGNORED
    flat = scores.permute(0, 2, 3, 1)[known]
    if len(flat) == 0:
        return scores.sum() * 0
    truth = labels[known].long()
    shares, target = flat.softmax(1), one_hot(truth, scores.shape[1]).to(flat.dtype)
    dice = 2 * (shares * target).sum(0) / (shares.sum(0) + target.sum(0))
    return cross_entropy(flat, truth) + 1 - dice[target.any(0)].mean()


def describe(scenes: Sequence[LabelledScene], training: Training) -> ModelSpec:
    """Spec of the network to be trained: statistics, patch sizes and margin; no weights file yet.

    Raises:
        JobError: the scenes do not fit the training.
    """
    _check(scenes, training)
    sample = _sample(scenes)
    mean, std = mean_std(sample)
    margin, (offset, multiple) = margin_of(training.unet), patch_rule(training.unet)
    sizes = PatchSizes(
        offset=offset,
        multiple=multiple,
        stride_multiple=stride_multiple(training.unet),
        shrink=shrink_of(training.unet),
    )
    preferred = None if training.core is None else sizes.at_least(training.core + 2 * margin)
    return ModelSpec(
        name=training.name,
        description=training.description,
        licence=training.licence,
        engine="unet",
        unet=training.unet,
        bands=training.bands,
        dtype=training.dtype,
        input_range=_input_range(scenes),
        normalise=Normalise(kind="mean_std", mean=_short(mean), std=_short(std)),
        fill=training.fill,
        resolution=training.resolution,
        patch=sizes.model_copy(update={"preferred": preferred}),
        margin=margin,
        classes=training.classes,
    )


def draw(
    scenes: Sequence[LabelledScene], spec: ModelSpec, training: Training, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random patches of the scenes, normalised, flipped and turned.

    Returns:
        Patches `(n, channel, P, P)` float32, and labels `(n, P − shrink, P − shrink)` int64.
    """
    side, inset = training.patch, spec.patch.shrink // 2
    areas = np.array([scene.labels.size for scene in scenes], np.float64)
    patches, truths = [], []
    for index in generator.choice(len(scenes), training.batch, p=areas / areas.sum()):
        scene = scenes[index]
        y, x = (int(generator.integers(size - side + 1)) for size in scene.labels.shape)
        at = (slice(y, y + side), slice(x, x + side))
        pixels = np.where(scene.valid[at], scene.bands[:, *at], spec.fill)
        labels = np.where(scene.valid[at], scene.labels[at], IGNORED)[inset : side - inset, inset : side - inset]
        turns, flip = int(generator.integers(4)), bool(generator.integers(2))
        patches.append(_turn(spec.normalisation().apply(pixels), turns, flip))
        truths.append(_turn(labels, turns, flip))
    return torch.from_numpy(np.stack(patches)), torch.from_numpy(np.stack(truths).astype(np.int64))


def write_bundle(folder: Path, spec: ModelSpec, network: UNet) -> ModelSpec:
    """Write the weights and then `model.yaml` into a folder, so that an incomplete bundle is never found.

    Returns:
        The spec as written, with the file's sha256.

    Raises:
        ModelError: the folder cannot be written.
    """
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    complete = spec.model_copy(update={"weights": Weights(file=WEIGHTS_FILE, sha256=digest)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((WEIGHTS_FILE, weights), ("model.yaml", complete.to_yaml().encode())):
            with published(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ModelError(f"cannot write the bundle {folder}: {error.strerror}; choose another folder") from None
    return complete


def _check(scenes: Sequence[LabelledScene], training: Training) -> None:
    if not scenes:
        raise JobError("no scenes to train on; give at least one")
    for number, scene in enumerate(scenes):
        if len(scene.bands) != len(training.bands):
            raise JobError(
                f"scene {number} has {len(scene.bands)} bands, the training {len(training.bands)}; give the same bands"
            )
        if min(scene.labels.shape) < training.patch:
            raise JobError(
                f"scene {number} is {scene.labels.shape}, smaller than a patch of {training.patch}; reduce patch"
            )
        known = scene.labels[scene.labels != IGNORED]
        if known.size and known.max() >= len(training.classes):
            raise JobError(
                f"scene {number} has the label {known.max()}, the training {len(training.classes)} classes; add classes"
            )
    offset, multiple = patch_rule(training.unet)
    if not PatchSizes(offset=offset, multiple=multiple, shrink=shrink_of(training.unet)).legal(training.patch):
        raise JobError(f"the network takes patches of {offset} + k·{multiple}, not {training.patch}; change patch")


def _sample(scenes: Sequence[LabelledScene]) -> NDArray[Any]:
    """Sample of the valid pixels `(channel, n)`: each n-th in reading order."""
    step = max(1, sum(scene.labels.size for scene in scenes) // _SAMPLE)
    picked = [scene.bands[:, scene.valid][:, ::step] for scene in scenes]
    sample = np.concatenate(picked, axis=1)
    if sample.shape[1] == 0:
        raise JobError(f"none of the {len(scenes)} scenes has a valid pixel; check their masks")
    return sample


def _input_range(scenes: Sequence[LabelledScene]) -> tuple[float, float]:
    """Range of the imagery: that of the type for 8 bit, else from the least to the largest valid value of all scenes.

    So no scene of the data set is taken for one of another unit, be it dark or empty.
    """
    types = {scene.bands.dtype for scene in scenes}
    if types == {np.dtype(np.uint8)}:
        return 0.0, 255.0
    seen = [scene.bands[:, scene.valid] for scene in scenes if scene.valid.any()]
    return _rounded(float(min(values.min() for values in seen)), float(max(values.max() for values in seen)))


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Range, rounded outwards to a fiftieth of the span's power of ten: it says the unit."""
    unit = 10.0 ** np.floor(np.log10(high - low)) / 50 if high > low else 1.0
    return float(np.floor(low / unit) * unit), float(np.ceil(high / unit) * unit) + (unit if high == low else 0.0)


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    """Values rounded to six figures: the bundle holds exactly the numbers that are used."""
    return tuple(float(f"{value:.6g}") for value in values)


def _turn(patch: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    turned = np.rot90(patch, turns, (-2, -1))
    return turned[..., ::-1] if flip else turned
