"""`ModelSpec`: all facts about a network that an engine needs, read from `model.yaml` beside the weights.

The folder of both is a *bundle*. Keys have the names of STAC MLM and bioimage.io, if they have such a key. A spec is
complete or refused: no normalisation is guessed, no colour invented, no patch size rounded silently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tilesseg.errors import ModelError, cannot, first_problem
from tilesseg.models.normalisation import Normalisation

FORMAT: Literal[1] = 1
NAMED_COLOURS = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080", "silver": "#c0c0c0",
    "red": "#ff0000", "maroon": "#800000", "orange": "#ffa500", "yellow": "#ffff00", "olive": "#808000",
    "lime": "#00ff00", "green": "#008000", "aqua": "#00ffff", "cyan": "#00ffff", "teal": "#008080",
    "blue": "#0000ff", "navy": "#000080", "fuchsia": "#ff00ff", "magenta": "#ff00ff", "purple": "#800080",
    "brown": "#a52a2a", "tan": "#d2b48c", "pink": "#ffc0cb",
}  # fmt: skip
"""Names of colours."""
CLASS_COLOURS = (
    "lime", "red", "blue", "yellow", "cyan", "orange", "purple", "teal", "pink", "brown", "olive", "navy",
)  # fmt: skip
"""Colours of classes for which a description of another project states none, in their order."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ClassSpec(_Strict):
    """One class of the mask; its label is its place in the list."""

    name: str = Field(min_length=1)
    """Name of the class."""
    colour: str
    """Colour of the class: `#rrggbb`, or a name such as `green`."""

    @field_validator("colour")
    @classmethod
    def _known(cls, value: str) -> str:
        return _hexadecimal(value)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, each 0 … 255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


class Weights(_Strict):
    """The weights file, beside `model.yaml` unless `package` names the installed package that ships it."""

    file: str
    """Path of the weights file, beside `model.yaml`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file, 64 hexadecimal digits; compared before every run."""
    package: str | None = None
    """Installed Python package that ships the file in its folder; default: none."""


class UNetShape(_Strict):
    """Shape of the U-Net in `models.unet`, for `engine: unet`."""

    depth: int = Field(4, ge=1, le=6)
    """Number of times that the network halves the size."""
    width: int = Field(64, ge=1)
    """Number of channels of the first level; doubled at each level below."""
    batch_norm: bool = True
    """Whether batch normalisation follows each convolution."""
    up: Literal["transposed", "bilinear"] = "transposed"
    """Way to the finer level: `transposed` convolutions, or `bilinear` interpolation."""
    convolutions: Literal["same", "valid"] = "same"
    """Padding of the convolutions: `same` size, or `valid`: unpadded, as published."""
    skips: Literal["concat", "add"] = "concat"
    """Way in which a skip joins the path from below: `concat`, as published, or `add`, with half the channels after
    it."""


class Normalise(_Strict):
    """Normalisation from the image's values to the values that the network was trained on; always written out."""

    kind: Literal["mean_std", "range", "none", "scene_mean_std", "scene_percentiles"]
    """Kind of normalisation. `mean_std`, `range`: fixed numbers. `scene_…`: computed once per scene. `none`: values
    pass as they are."""
    mean: tuple[float, ...] | None = None
    """Mean of each band (`mean_std`)."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each band (`mean_std`)."""
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
    sigmoid: bool = False
    """Whether the logistic function is applied last, after `clip`."""
    binarize: float | None = None
    """Threshold that is applied last, after `clip`: 1 above it, 0 elsewhere."""

    @model_validator(mode="after")
    def _complete(self) -> Normalise:
        needs = {"mean_std": ("mean", "std"), "range": ("low", "high"), "scene_percentiles": ("low", "high")}
        wanted = needs.get(self.kind, ())
        for name in ("mean", "std", "low", "high"):
            given = getattr(self, name) is not None
            if given != (name in wanted):
                raise ValueError(f"normalise kind {self.kind} {'needs' if not given else 'takes no'} {name}")
        if self.std is not None and min(self.std, default=1.0) <= 0:
            raise ValueError(f"normalise.std must be above zero: {self.std}")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip goes from low to high, not {self.clip[0]} to {self.clip[1]}")
        if not self.needs_scene and (self.joint or self.eps):
            raise ValueError(f"normalise kind {self.kind} takes no joint and no eps, only statistics of a scene do")
        if self.sigmoid and self.binarize is not None:
            raise ValueError("normalise ends with sigmoid or with binarize, not with both")
        if self.kind == "scene_percentiles":
            if isinstance(self.low, tuple) or isinstance(self.high, tuple):
                raise ValueError("scene_percentiles takes one low and one high percentile")
            if not 0 <= (self.low or 0) < (self.high or 0) <= 100:
                raise ValueError(f"scene_percentiles needs 0 ≤ low < high ≤ 100, not {self.low} and {self.high}")
        return self

    @property
    def needs_scene(self) -> bool:
        """Whether statistics of the scene are needed."""
        return self.kind.startswith("scene_")


class PatchSizes(_Strict):
    """Sides in pixels that the network accepts: `offset + k · multiple`, or a single `fixed` size."""

    fixed: int | None = Field(None, ge=1)
    """Only side that the network takes; default: the sides of `offset` and `multiple`."""
    offset: int = Field(0, ge=0)
    """Smallest term of the sides that the network takes: `offset + k · multiple`."""
    multiple: int = Field(1, ge=1)
    """Step of the sides that the network takes: `offset + k · multiple`."""
    preferred: int | None = Field(None, ge=1)
    """Side that `patch: auto` takes; default: the fastest where `margin` is stated, else about 512."""
    stride_multiple: int = Field(1, ge=1)
    """Number whose multiples are the origins of patches in the image: 2^depth of the network."""
    shrink: int = Field(0, ge=0)
    """Number of pixels by which the prediction is smaller than the patch, both sides together (valid convolutions)."""
    halo: int = Field(0, ge=0)
    """Border of the prediction that is not to be trusted: blending leaves it out."""

    @model_validator(mode="after")
    def _consistent(self) -> PatchSizes:
        if self.shrink % 2:
            raise ValueError(f"shrink must be even, not {self.shrink}")
        for size in (self.fixed, self.preferred):
            if size is not None and not self.legal(size):
                raise ValueError(f"patch size {size} is not legal: {self.rule}")
        return self

    @property
    def rule(self) -> str:
        """Legal sizes in words."""
        return f"only {self.fixed}" if self.fixed else f"{self.offset} + k·{self.multiple}"

    def legal(self, size: int) -> bool:
        if size <= self.shrink + 2 * self.halo:
            return False
        return size == self.fixed if self.fixed else size >= self.offset and (size - self.offset) % self.multiple == 0

    def at_least(self, size: int) -> int:
        """Smallest legal size from `size` on; the fixed size if there is one."""
        if self.fixed:
            return self.fixed
        size = max(size, self.shrink + 2 * self.halo + 1, self.offset)
        return self.offset + -(-(size - self.offset) // self.multiple) * self.multiple


class Decision(_Strict):
    """Decision from scores to a label: the highest score (ties to the lower class), or scores against a threshold."""

    kind: Literal["argmax", "threshold"] = "argmax"
    """Kind of decision: `argmax` over the scores, or `threshold`: no score belongs to the first class, the
    background, which a pixel gets where no score reaches the threshold."""
    threshold: float | None = None
    """Score from which a pixel belongs to the class of its highest score (`threshold`); 0.5 with `background`."""
    background: bool = False
    """Whether the network gives a score for each class but the first (`threshold`): foreground and boundary, labels
    that exclude each other no more than their sigmoids do. Without it a threshold decides between 2 classes."""

    @model_validator(mode="before")
    @classmethod
    def _half(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("background") is True and data.get("threshold") is None:
            return {**data, "threshold": 0.5} if data.get("kind") == "threshold" else data
        return data

    @model_validator(mode="after")
    def _complete(self) -> Decision:
        if self.background and self.kind != "threshold":
            raise ValueError("decision.background belongs to kind threshold; argmax has a score for each class")
        if (self.kind == "threshold") != (self.threshold is not None):
            raise ValueError("decision kind threshold needs a threshold, argmax takes none")
        return self


class ModelSpec(_Strict):
    """Contract of a network. Print its JSON Schema with `tilesseg schema model`."""

    format: Literal[1] = FORMAT
    """Version of this file's format."""
    name: str = Field(min_length=1)
    """Name of the model."""
    description: str = ""
    """Description for people."""
    licence: str = "unknown"
    """Licence of the model; goes into every mask."""
    engine: str
    """Kind of network: `unet` (ours, safetensors), `torchscript`, `exported` (`.pt2` of torch.export), `onnx`, or
    `package.module:Class`."""
    weights: Weights | None = None
    """Weights file; none only for an engine that is code alone."""
    unet: UNetShape | None = None
    """Shape of the U-Net, for `engine: unet` and no other."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the input channels, in the network's order."""
    dtype: str = "uint8"
    """Data type of the imagery that the network was made for; stated, not enforced."""
    input_range: tuple[float, float]
    """Range `[low, high]` of the imagery's values, before `scaling`: it says the unit that scenes have."""
    scaling: tuple[float, float] = (1.0, 0.0)
    """Pair `[scale, offset]`, applied to the values before `normalise`."""
    normalise: Normalise
    """Normalisation of the values."""
    fill: float = 0.0
    """Value of invalid pixels, before scaling and normalisation."""
    resolution: float | None = Field(None, gt=0)
    """Metres per pixel that the network was trained at; default: any."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel that the network needs: slides are resampled to it; default: any."""
    patch: PatchSizes = PatchSizes()
    """Sides of patches that the network takes."""
    margin: int | None = Field(None, ge=0)
    """Border of a patch that `crop` discards: at least the receptive half-width. Default: none, and crop is refused."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """Function from the network's output to scores, before blending: `softmax`, `sigmoid` or `none`."""
    decision: Decision = Decision()
    """Decision from scores to a label."""
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=254)]
    """Classes 0 … n − 1 of the mask, 2 to 254. A threshold model has two, unless `decision.background` is true."""

    @field_validator("bands")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"bands are named twice: {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        names = [each.name for each in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes are named twice: {', '.join(names)}")
        low, high = self.input_range
        if not low < high:
            raise ValueError(f"input_range goes from low to high, not {low} to {high}")
        if self.decision.kind == "threshold" and len(self.classes) != 2 and not self.decision.background:
            raise ValueError(
                f"a threshold decides between 2 classes, not {len(self.classes)}; with decision.background: true the "
                "first class is where no score reaches it"
            )
        if self.decision.kind == "threshold" and self.activation == "softmax":
            raise ValueError("softmax of the one score of a threshold model is always 1; activation is sigmoid or none")
        if (self.engine == "unet") != (self.unet is not None):
            raise ValueError("engine unet needs the section `unet`, and no other engine takes it")
        for key in ("mean", "std", "low", "high"):
            value = getattr(self.normalise, key)
            if isinstance(value, tuple) and len(value) != len(self.bands):
                raise ValueError(f"normalise.{key} has {len(value)} values for {len(self.bands)} bands")
        if 0.0 in self._statistics()[1]:
            raise ValueError("normalise divides by zero")
        if self.scaling[0] == 0:
            raise ValueError(f"scaling by zero: {self.scaling}")
        return self

    @property
    def score_channels(self) -> int:
        """Number of score channels: one for each class, but none for the background of a threshold."""
        return len(self.classes) - (self.decision.kind == "threshold")

    @property
    def score_names(self) -> tuple[str, ...]:
        """Class of each score channel; a threshold model gives none for its first class."""
        names = tuple(each.name for each in self.classes)
        return names[1:] if self.decision.kind == "threshold" else names

    def normalisation(
        self, subtract: tuple[float, ...] | None = None, divide: tuple[float, ...] | None = None
    ) -> Normalisation:
        """Arithmetic of `normalise`; a `scene_…` kind takes the scene's statistics."""
        if self.normalise.needs_scene and (subtract is None or divide is None):
            raise ValueError(f"normalise kind {self.normalise.kind} needs the statistics of a scene")
        if subtract is None or divide is None:
            subtract, divide = self._statistics()
        rule = self.normalise
        return Normalisation(subtract, divide, *self.scaling, rule.clip, sigmoid=rule.sigmoid, binarize=rule.binarize)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        n, rule = len(self.bands), self.normalise
        if rule.kind == "mean_std":
            assert rule.mean is not None and rule.std is not None  # _complete refuses anything else
            return rule.mean, rule.std
        if rule.kind == "range":
            low, high = _spread(rule.low, n), _spread(rule.high, n)
            return low, tuple(h - lo for lo, h in zip(low, high, strict=True))
        return (0.0,) * n, (1.0,) * n

    def to_yaml(self) -> str:
        """Text of a `model.yaml`, without values left at their defaults."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        # PyYAML writes the line end U+0085 plainly and then reads it as a space; escaped, it comes back.
        plain = "\x85" not in self.model_dump_json()
        return yaml.safe_dump({"format": FORMAT, **data}, sort_keys=False, allow_unicode=plain, width=110)


def _spread(value: float | tuple[float, ...] | None, n: int) -> tuple[float, ...]:
    assert value is not None
    return value if isinstance(value, tuple) else (value,) * n


def read_spec(path: Path) -> ModelSpec:
    """Read a `model.yaml`.

    Raises:
        ModelError: the file is missing, is not YAML, or is not a spec.
    """
    try:
        data = load_yaml(path)
    except OSError as error:
        raise ModelError(
            f"no model spec at {path} ({error.strerror}); give a bundle, a folder with a model.yaml"
        ) from None
    return parse_spec(data, where=str(path))


def load_yaml(path: Path) -> Any:
    """Plain data of a YAML file.

    Raises:
        ModelError: the file is not YAML.
        OSError: the file cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelError(f"cannot read {path}: its lists are nested too deeply; get it again") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        # ^ the reader's own for dates and numbers that do not exist
        raise ModelError(cannot(f"read {path}", error, "write it as YAML")) from None


def parse_spec(data: Any, *, where: str) -> ModelSpec:
    """Parse a spec given as plain data; `where` names it in the refusal."""
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        raise ModelError(f"{where}: {first_problem(error)}; correct the spec") from None


def _hexadecimal(colour: str) -> str:
    """Return a colour as `#rrggbb` in lower case.

    Raises:
        ValueError: the colour is neither `#rrggbb` nor a name of `NAMED_COLOURS`.
    """
    written = NAMED_COLOURS.get(colour.lower(), colour.lower())
    if not re.fullmatch(r"#[0-9a-f]{6}", written):
        raise ValueError(f"unknown colour {colour!r}; write #rrggbb or one of {', '.join(sorted(NAMED_COLOURS))}")
    return written
