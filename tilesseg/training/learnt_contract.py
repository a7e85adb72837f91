"""Contract of the network to be: its bands, pixel size, range and normalisation, learnt of the part that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import JobError
from tilesseg.formats.open import open_source
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.planning.pixel_contract import UNLIKE, ground_size
from tilesseg.planning.scene_plan import own_input
from tilesseg.training.labelled_scenes import LabelledScene, NamedScene
from tilesseg.training.networks import NetworkShape, shape_network
from tilesseg.training.train_spec import LearntNormalise, TrainSpec

if TYPE_CHECKING:
    from tilesseg.raster.grid import Grid

WHERE = "the training spec"
"""Name of the contract's origin in a refusal."""
_PLACEHOLDER = {"kind": "none"}


@dataclass(frozen=True, slots=True)
class Sampled:
    """Statistics of the values of a scene's pixels that train, by band."""

    pixels: int
    """Number of pixels that the sample stands for."""
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    """Mean of the squares."""
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    @classmethod
    def of(cls, sample: NDArray[np.float64], pixels: int) -> Sampled:
        """Statistics of a sample `(channel, n)` that is not empty."""
        square = np.square(sample).mean(axis=1)
        return cls(pixels, sample.mean(axis=1), square, sample.min(axis=1), sample.max(axis=1))


def draft_contract(spec: TrainSpec, first: NamedScene, started: ModelSpec | None) -> ModelSpec:
    """Contract by which images are opened: all of it but the numbers that are learnt of their values.

    Args:
        spec: training spec.
        first: the first scene, whose bands give the names where nothing else does.
        started: contract of the bundle that training starts from.

    Raises:
        SourceError: the first image cannot be opened.
        JobError: a number that cannot be learnt is missing, or the bundle is for other bands, classes or a decision.
        ModelError: the values of the spec do not fit together.
    """
    if started is not None:
        named = {key: getattr(spec, key) for key in ("name", "description", "licence")}
        rule = {"normalise": _draft_rule(spec.normalise)} if states_normalise(spec) else {}
        return parse_spec({**started.model_dump(), **named, **rule}, where=WHERE)
    bands = spec.bands or band_names(first, spec)
    one_score = spec.decision == "threshold"
    shape = shape_network(spec.network, bands=len(bands), scores=len(spec.classes) - one_score)
    return parse_spec({**_stated(spec, shape, bands), "normalise": _draft_rule(spec.normalise)}, where=WHERE)


def states_normalise(spec: TrainSpec) -> bool:
    """Whether the spec has a section `normalise`; without one, a bundle that is started from keeps its own."""
    return "normalise" in spec.model_fields_set


def _stated(spec: TrainSpec, shape: NetworkShape, bands: Sequence[str]) -> dict[str, Any]:
    one_score = spec.decision == "threshold"
    return {
        "name": spec.name,
        "description": spec.description,
        "licence": spec.licence,
        "engine": shape.engine,
        "unet": shape.unet,
        "bands": tuple(bands),
        "input_range": (0.0, 1.0),
        "patch": shape.patch,
        "margin": shape.margin,
        "activation": "sigmoid" if one_score else "softmax",
        "decision": {"kind": "threshold", "threshold": 0.5} if one_score else {"kind": "argmax"},
        "classes": spec.classes,
    }


def band_names(named: NamedScene, spec: TrainSpec) -> tuple[str, ...]:
    """Names of the bands that a scene gives to the network: the image's own, or `band_1` …; each once.

    Raises:
        SourceError: the image cannot be opened.
    """
    reading = own_input(named.scene, spec.input)
    own = open_source(named.scene.paths, reading.opening(named.scene.mpp)).bands
    chosen = reading.bands or range(1, len(own) + 1)
    names = [_name(band, own) for band in chosen]
    return tuple(name if names.count(name) == 1 else f"{name}_{at}" for at, name in enumerate(names, 1))


def _name(band: str | int, names: Sequence[str | None]) -> str:
    if not str(band).isdecimal():
        return str(band)
    number = int(band)
    return (names[number - 1] if 0 < number <= len(names) else None) or f"band_{number}"


def _draft_rule(rule: LearntNormalise) -> dict[str, Any]:
    """Section `normalise` of the draft: that of scenes as it is, fixed numbers later."""
    if rule.kind == "scene_percentiles" and (rule.low is None or rule.high is None):
        raise JobError(
            f"normalise kind scene_percentiles has low {rule.low} and high {rule.high}, and percentiles are not "
            "learnt; give both, such as 1 and 99.8"
        )
    given = rule.model_dump(exclude_defaults=True)
    return {**given, "kind": rule.kind} if rule.kind.startswith("scene_") else _PLACEHOLDER


def learn_contract(
    draft: ModelSpec, rule: LearntNormalise, scenes: Sequence[LabelledScene], samples: Sequence[Sampled]
) -> ModelSpec:
    """Contract with the numbers that are learnt of the part that trains.

    Args:
        draft: the contract by which the scenes were opened.
        rule: section `normalise` of the training spec.
        scenes: all scenes.
        samples: statistics of those that train.

    Raises:
        ModelError: given numbers do not fit the bands.
        JobError: slides have pixels of different sizes.
    """
    types = sorted({str(scene.source.dtype) for scene in scenes})
    mpp, resolution = _pixel_sizes([(scene.name, scene.source.grid) for scene in scenes])
    learnt = {
        "dtype": types[0] if len(types) == 1 else str(np.result_type(*types)),
        "input_range": input_range(types, samples),
        "normalise": draft.normalise if draft.normalise.needs_scene else _learnt_rule(rule, samples),
        "mpp": draft.mpp if draft.mpp is not None else mpp,
        "resolution": resolution,
    }
    return parse_spec({**draft.model_dump(), **learnt}, where=WHERE)


def input_range(types: Sequence[str], samples: Sequence[Sampled]) -> tuple[float, float]:
    """Range of the values: that of the type for 8 bit, else from the least to the largest value that trains."""
    if list(types) == ["uint8"]:
        return 0.0, 255.0
    low = float(min(one.least.min() for one in samples))
    high = float(max(one.most.max() for one in samples))
    unit = 10.0 ** np.floor(np.log10(high - low)) / 50 if high > low else 1.0
    return float(np.floor(low / unit) * unit), float(np.ceil(high / unit) * unit) + (unit if high == low else 0.0)


def _learnt_rule(rule: LearntNormalise, samples: Sequence[Sampled]) -> dict[str, Any]:
    """Section `normalise`: numbers that are not given are those of all pixels that train."""
    given = rule.model_dump(exclude_none=True)
    if rule.kind == "mean_std":
        mean, std = pooled(samples)
        return {"mean": mean, "std": std, **given}
    if rule.kind == "range":
        least = _short(np.min([one.least for one in samples], axis=0))
        most = _short(np.max([one.most for one in samples], axis=0))
        return {
            "low": least,
            "high": tuple(h if h > lo else lo + 1 for lo, h in zip(least, most, strict=True)),
            **given,
        }
    return given


def pooled(samples: Sequence[Sampled]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band over several scenes, each as large as its pixels; 1 where that is 0."""
    weights = [one.pixels for one in samples]
    mean = np.average([one.mean for one in samples], axis=0, weights=weights)
    square = np.average([one.square for one in samples], axis=0, weights=weights)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return _short(mean), _short(np.where(std > np.finfo(np.float32).tiny, std, 1.0))


def _short(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Values rounded to six figures: the bundle holds exactly the numbers that are used."""
    return tuple(float(f"{value:.6g}") for value in values)


def _pixel_sizes(grids: Sequence[tuple[str, Grid]]) -> tuple[float | None, float | None]:
    """Micrometres per pixel where all scenes are slides, else metres per pixel where all are alike.

    Raises:
        JobError: slides have pixels of different sizes.
    """
    if all(grid.unit == "micrometre" for _, grid in grids):
        sizes = sorted((float(np.mean(grid.resolution)), name) for name, grid in grids)
        (least, fine), (most, coarse) = sizes[0], sizes[-1]
        if most > least * SAME_SIZE:
            raise JobError(
                f"{fine} has pixels of {least:.4g} µm and {coarse} of {most:.4g} µm, and a network learns one size; "
                "give input.resolution in µm"
            )
        return float(f"{sizes[len(sizes) // 2][0]:.4g}"), None
    metres = [ground_size(grid) for _, grid in grids]
    known = [size for size in metres if size is not None]
    if len(known) < len(metres) or max(known) > UNLIKE * min(known):
        return None, None
    return None, float(f"{np.median(known):.4g}")


SAME_SIZE = 1.1
"""Factor between the pixel sizes of slides up to which they are one size: a run reads sizes within 5 % as they are."""
