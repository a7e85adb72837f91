"""The training spec: a user's request to train a network, checked at the boundary and frozen.

Every key is known or refused. The docstring of a key is its text in `tilesseg schema train`. Scenes and reading are
those of a job: `scenes`, `input`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from tilesseg import paths
from tilesseg.errors import JobError, first_problem
from tilesseg.models.spec import ClassSpec
from tilesseg.planning.cluster_options import Auto, Strict
from tilesseg.planning.job import (
    ImagePath,
    Input,
    ModelPath,
    Scenes,
    TargetPath,
    anchored_input,
    anchored_model,
    anchored_scenes,
)
from tilesseg.planning.yaml_file import read_yaml

Share = Annotated[float, Field(ge=0, lt=1)]
Names = tuple[str, ...]


class LabelledData(Strict):
    """An entry of `data`: scenes with their labels."""

    scenes: Scenes
    """Images, as in a job: a path, a glob, a list, a `.csv`, or a STAC item or collection."""
    labels: ImagePath
    """Labels: a raster on the image's grid, or a vector file that is rasterised on it; `{scene}` stands for the scene's
    name."""
    values: dict[int | str, str] | None = None
    """Class of each value of the labels: `{0: background, other: nucleus}`; `ignore` is not labelled, `other` is every
    value that is not listed. Required unless the values are exactly 0 … n − 1."""
    attribute: str | None = None
    """Attribute of vector labels that says the class, by name or by `values`. Default: all features are of the
    second of two classes."""
    layer: str | None = None
    """Layer of a vector file of several."""
    all_touched: bool = False
    """Whether a feature covers every pixel that it touches; else those whose centres it holds."""
    area: ImagePath | None = None
    """Polygons of the labelled area: outside them nothing is learnt and nothing scored; `{scene}` as in `labels`."""


class Split(Strict):
    """Section `split`: which scenes, or which parts of them, train, validate and test."""

    model_config = ConfigDict(populate_by_name=True)

    by: Literal["scene", "block", "polygons", "column", "lists"] = "scene"
    """Way to split: by whole `scene`, by `block` of pixels, by `polygons` in files, by a `column` of the table of
    scenes that says train, validate or test, or by `lists` of scenes' names."""
    validation: Share | ImagePath | Names = Field(0.2, alias="validate")
    """Part that validates: a share (`scene`, `block`), a file (`polygons`), or names of scenes (`lists`)."""
    test: Share | ImagePath | Names = 0.0
    """Part that tests, once, after training; as `validate`."""
    seed: int = 0
    """Seed of the choice (`scene`, `block`)."""
    block: int = Field(1024, ge=1)
    """Side of a block in pixels (`block`)."""
    gap: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Distance in pixels that patches for training keep from parts that validate or test (`block`, `polygons`); auto: a
    patch."""
    column: str = "split"
    """Column of the table of scenes (`column`)."""
    folds: int | None = Field(None, ge=2)
    """Number of folds (`scene`, `block`): the part that validates is one of so many, named by `fold`."""
    fold: int = Field(0, ge=0)
    """Number of the fold that validates, from 0."""

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        kinds = {"scene": float, "block": float, "polygons": str, "lists": tuple}
        wanted = kinds.get(self.by)
        for key, value in (("validate", self.validation), ("test", self.test)):
            unset = value in (0, 0.2)
            if wanted is None and not unset:
                raise ValueError(f"split by column takes no {key}, the column says it; leave it out")
            if wanted and not isinstance(value, wanted) and not (key == "test" and value == 0):
                takes = {float: "a share", str: "a file", tuple: "names of scenes"}[wanted]
                raise ValueError(f"split by {self.by} needs {key} as {takes}, not {value!r}")
        if self.folds is not None and self.by not in ("scene", "block"):
            raise ValueError(f"split by {self.by} has no folds, by scene and by block have; leave folds out")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} is none of {self.folds or 1} folds, which are numbered from 0")
        return self


class LearntNormalise(Strict):
    """Section `normalise`: as in `model.yaml`; numbers that are not given are computed of the part that trains."""

    kind: Literal["mean_std", "range", "none", "scene_mean_std", "scene_percentiles"] = "mean_std"
    """Kind of normalisation, as in `model.yaml`."""
    mean: tuple[float, ...] | None = None
    """Mean of each band (`mean_std`); default: that of the part that trains."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each band (`mean_std`); default: that of the part that trains."""
    low: float | tuple[float, ...] | None = None
    """Value that becomes 0 (`range`), or the percentile (0–100) that does (`scene_percentiles`)."""
    high: float | tuple[float, ...] | None = None
    """Value that becomes 1 (`range`), or the percentile (0–100) that does (`scene_percentiles`)."""
    clip: tuple[float, float] | None = None
    """Range `[low, high]` that the result is clipped to, with any kind."""
    joint: bool = False
    """Whether one statistic is computed over all bands together (`scene_…`)."""
    eps: float = Field(0.0, ge=0)
    """Number that is added to the divisor (`scene_…`)."""


class NetworkOptions(Strict):
    """Section `network`: our U-Net, a bundle to start from, or a network of a library."""

    depth: int = Field(3, ge=1, le=6)
    """Number of times that the U-Net halves the size."""
    width: int = Field(16, ge=1)
    """Number of channels of the U-Net's first level; doubled at each level below."""
    batch_norm: bool = True
    """Whether batch normalisation follows each convolution."""
    up: Literal["transposed", "bilinear"] = "transposed"
    """Way to the finer level, as in `model.yaml`."""
    convolutions: Literal["same", "valid"] = "same"
    """Padding of the convolutions, as in `model.yaml`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of channels that dropout sets to 0 at the end of the contracting path while training."""
    skips: Literal["concat", "add"] = "concat"
    """Way in which a skip joins the path from below: `concat`, as published, or `add`."""
    start: ModelPath | None = None
    """Bundle of engine `unet` whose parameters training starts from; bands, classes and decision must be the same, its
    shape is taken over, and its normalisation, unless the spec states one."""
    library: Literal["monai"] | None = None
    """Library that defines the network instead of the U-Net (extra `monai`)."""
    class_name: str | None = Field(None, alias="class")
    """Class of the library: `BasicUNet`, `UNet`, `SegResNet` …"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class, without numbers of channels and dimensions, which are known."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_source(self) -> NetworkOptions:
        if (self.library is None) != (self.class_name is None):
            raise ValueError("network.library and network.class belong together; give both or neither")
        shaped = self.model_fields_set & {"depth", "width", "batch_norm", "up", "convolutions", "skips"}
        if self.library and self.dropout:
            raise ValueError(f"network.dropout {self.dropout} is the U-Net's; write it into network.arguments")
        if self.arguments and not self.library:
            raise ValueError("network.arguments are those of network.class; give library and class, or leave them out")
        origin = "start" if self.start else "library" if self.library else None
        if origin and shaped:
            raise ValueError(f"network.{origin} has a shape of its own; leave out {', '.join(sorted(shaped))}")
        if self.start and self.library:
            raise ValueError("network.start and network.library are two networks; leave one out")
        return self


class Sampling(Strict):
    """Section `sampling`: patches and batches."""

    patch: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Side of a training patch in pixels; auto: the smallest legal size from 128 on, of at least twice the margin, that
    the scenes hold."""
    batch: int = Field(8, ge=1)
    """Number of patches in a step."""
    foreground: float = Field(0.33, ge=0, le=1)
    """Share of patches that are drawn round a pixel of a class drawn at random among all but the most frequent, so that
    rare classes are seen; the others are drawn uniformly over the labelled, valid pixels."""
    readers: int = Field(2, ge=1)
    """Number of threads that read ahead; the patches do not depend on it."""


class Augment(Strict):
    """Section `augment`: random changes of a training patch. 0 or false switches one off."""

    turns: bool = True
    """Whether patches are turned by quarter turns and mirrored."""
    scale: float = Field(0.2, ge=0, lt=1)
    """Largest change of size, as a share: patches are read larger or smaller and resampled."""
    brightness: float = Field(0.2, ge=0)
    """Largest shift of the normalised values, in standard deviations of the patch's band."""
    gamma: float = Field(0.2, ge=0, lt=1)
    """Largest change of the exponent of the values between the patch's own extremes, as a share."""
    noise: float = Field(0.02, ge=0)
    """Standard deviation of Gaussian noise that is added to the normalised values."""
    stain: float = Field(0.0, ge=0, lt=1)
    """Largest change of each stain's strength in optical density, as a share (images of three bands)."""


class Loss(Strict):
    """Section `loss`."""

    kind: str = Field("ce+dice", pattern=r"^(ce|dice|focal)(\+(ce|dice|focal))*$")
    """Loss: `ce` (cross-entropy), `dice` (1 − soft Dice), `focal` (γ = 2), or a sum: `ce+dice`."""
    weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weights of the classes in `ce` and `focal`: `none`, `balanced` (one over the class's share, mean 1), or one
    number for each class."""


class Optimise(Strict):
    """Section `optimise`: steps, learning rate, averaging."""

    kind: Literal["adam", "sgd"] = "adam"
    """Optimiser: `adam` (AdamW) or `sgd` (Nesterov momentum 0.99)."""
    steps: int = Field(2000, ge=1)
    """Number of steps."""
    minutes: float | None = Field(None, gt=0)
    """Largest number of minutes of training: when so many are over but for the decay, the decay begins."""
    rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Highest learning rate; auto: 2e-3 for adam, 1e-2 for sgd."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    decay: float = Field(0.2, ge=0, lt=1)
    """Share of the steps, the last, in which the rate falls to 0."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of convolutions; biases and batch normalisation have none."""
    clip: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient; larger ones are scaled down."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of the parameters, which validates and is shipped; 0 ships the parameters
    themselves."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numbers that convolutions compute with; auto: bf16 on GPUs that have it, else fp32. Parameters are float32."""


class Stop(Strict):
    """Section `stop`: validation, and the end."""

    every: int = Field(200, ge=1)
    """Number of steps between two validations."""
    patience: int = Field(10, ge=1)
    """Number of validations without a better score after which the decay of the rate begins, and then the end."""
    keep: Literal["best", "last"] = "best"
    """Parameters that become the bundle: the best by validation, or the last."""


class TrainOutput(Strict):
    """Section `output`."""

    dir: TargetPath
    """Directory of the training; made where there is none. The bundle is its folder `bundle`."""
    onnx: bool = False
    """Whether the bundle gets the network as ONNX too, checked against torch."""


class TrainSpec(Strict):
    """Everything that a user says about a training."""

    name: str = Field(min_length=1)
    """Name of the model."""
    description: str = ""
    """Description of the model, for people."""
    licence: str = Field(min_length=1)
    """Licence of the model; goes into every mask."""
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]
    """Classes 0 … n − 1, each with name and colour."""
    decision: Literal["argmax", "threshold"] = "argmax"
    """Decision from scores to a label: `argmax`, or `threshold` for two classes: one score, and a threshold that
    validation chooses."""
    data: Annotated[tuple[LabelledData, ...], Field(min_length=1)]
    """Scenes and their labels."""
    input: Input = Input()
    """Options of reading the images, as in a job."""
    bands: tuple[str, ...] | None = None
    """Names of the network's channels; default: names that the images give, else band_1 …"""
    split: Split = Split()
    """Parts of the scenes that train, validate and test."""
    normalise: LearntNormalise = LearntNormalise()
    """Normalisation of the values, as in `model.yaml`."""
    network: NetworkOptions = NetworkOptions()
    """Network to train."""
    sampling: Sampling = Sampling()
    """Options of drawing patches."""
    augment: Augment = Augment()
    """Random changes of the patches."""
    loss: Loss = Loss()
    """Loss that training makes small."""
    optimise: Optimise = Optimise()
    """Steps, learning rate, averaging."""
    stop: Stop = Stop()
    """Validation, and the end."""
    seed: int = 0
    """Seed of the initial parameters, the patches, dropout and noise."""
    device: str = "auto"
    """Device that trains: `auto` (cuda where there is one, else cpu), `cpu`, `cuda` …"""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of threads of the processor; auto: every core. The last bits depend on it."""
    output: TrainOutput
    """Directory of the training, and what becomes of it."""

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainSpec:
        names = [each.name for each in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes are named twice: {', '.join(names)}")
        if self.decision == "threshold" and len(names) != 2:
            raise ValueError(f"decision threshold is for 2 classes, not {len(names)}; write argmax")
        if isinstance(self.loss.weights, tuple) and len(self.loss.weights) != len(names):
            raise ValueError(f"loss.weights has {len(self.loss.weights)} numbers for {len(names)} classes")
        return self


def parse_train_spec(data: Any, *, where: str) -> TrainSpec:
    """Check a training spec given as plain data; `where` names it in the refusal.

    Raises:
        JobError: something is missing, unknown or impossible.
    """
    try:
        return TrainSpec.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {first_problem(error)}; see tilesseg schema train") from None


def read_train_spec(path: Path) -> TrainSpec:
    """Read a training spec, whose relative paths are relative to its folder.

    Raises:
        JobError: the file is missing, is not YAML, or has an unknown or impossible key.
    """
    return anchored_spec(parse_train_spec(read_yaml(path, "training spec"), where=str(path)), path.parent)


def anchored_spec(spec: TrainSpec, folder: Path) -> TrainSpec:
    """Training spec whose relative paths are relative to the current directory instead of `folder`."""

    def anchor(path: str) -> str:
        return paths.anchored(path, str(folder))

    def entry(data: LabelledData) -> LabelledData:
        files = {"labels": anchor(data.labels), "area": data.area and anchor(data.area)}
        return data.model_copy(update={**files, "scenes": anchored_scenes(data.scenes, folder)})

    parts = {key: anchor(value) for key in ("validation", "test") if isinstance(value := getattr(spec.split, key), str)}
    start = spec.network.start and anchored_model(spec.network.start, folder)
    return spec.model_copy(
        update={
            "data": tuple(map(entry, spec.data)),
            "input": anchored_input(spec.input, folder),
            "split": spec.split.model_copy(update=parts),
            "network": spec.network.model_copy(update={"start": start}),
            "output": spec.output.model_copy(update={"dir": anchor(spec.output.dir)}),
        }
    )
