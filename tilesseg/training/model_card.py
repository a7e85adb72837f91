"""Model card of a trained network, `CARD.md`, and the figures behind it, `evaluation.json`.

Figures are those of validation and test, as `tilesseg evaluate` gives them: of each class over all pixels of a part,
and their 95 % intervals by bootstrap over its scenes, where there are enough of them.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilesseg.evaluation.counts import Counts
from tilesseg.evaluation.evaluation import METRICS, Evaluation, SceneResult
from tilesseg.models.hardware import able
from tilesseg.models.spec import ClassSpec, ModelSpec
from tilesseg.training.train_spec import Split
from tilesseg.version import __version__


@dataclass(frozen=True, slots=True)
class ScenePart:
    """A scene, or a part of one, for the card."""

    name: str
    shape: tuple[int, int]
    """Height and width of the scene in pixels."""
    parts: tuple[str, ...]
    """Parts that it has pixels of: `train`, `validate`, `test`."""


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Facts of a training that its card states."""

    scenes: tuple[ScenePart, ...]
    split: str
    """Way to split, as the spec says it."""
    pixels: Sequence[int]
    """Number of labelled pixels of each class in the part that trains."""
    steps: int
    best_step: int | None
    seconds: float
    device: str
    threads: int
    precision: str
    start: str | None = None
    """Bundle that training started from."""
    library: str | None = None
    """Library and class of the network, with its arguments."""
    onnx: str | None = None
    """Sentence about the difference of the ONNX file to torch."""


def split_sentence(split: Split) -> str:
    """Way to split, in words: `by block, validate 0.2, test 0, seed 0`."""
    keys = {"scene": ("seed",), "block": ("block", "gap", "seed"), "polygons": ("gap",), "column": ("column",)}
    stated = [("validate", split.validation), ("test", split.test)] if split.by != "column" else []
    stated += [(key, getattr(split, key)) for key in keys.get(split.by, ())]
    if split.folds:
        stated = [("fold", f"{split.fold} of {split.folds}"), *stated[1:]]
    return ", ".join([f"by {split.by}", *(f"{key} {_words(value)}" for key, value in stated)])


def _words(value: object) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def figures_of(matrices: Mapping[str, NDArray[np.int64]], classes: Sequence[ClassSpec]) -> dict[str, Any]:
    """Figures of a part as `tilesseg evaluate` writes them; validation counts no boundaries, so those are null.

    Args:
        matrices: confusion matrix of each scene, see `raster.metrics.confusion`.
        classes: the classes.
    """
    nothing = Counts.none(len(classes))
    totals = {name: replace(nothing, confusion=matrix) for name, matrix in matrices.items()}
    scenes = tuple(SceneResult(name, (), total) for name, total in totals.items())
    return Evaluation(tuple(each.name for each in classes), scenes).to_json()


def evaluation_json(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Text of `evaluation.json`; `parts` are the figures of `validate` and `test`."""
    return json.dumps(parts, indent=1) + "\n"


def card_text(spec: ModelSpec, facts: TrainingFacts, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Text of a `CARD.md`.

    Args:
        spec: spec of the network as its bundle states it.
        facts: facts of its training.
        parts: figures of `validate` and `test`, see `figures_of`; may be empty.
    """
    sections = [
        f"# {spec.name}",
        spec.description or "A network for segmentation, trained by tilesseg.",
        f"Licence: {spec.licence}",
        "## Figures\n\n" + "\n\n".join(_figures(part, figures) for part, figures in parts.items())
        if parts
        else "## Figures\n\nNothing validated and nothing tested this network.",
        "## Data\n\n" + _data(spec, facts),
        "## Network and training\n\n" + "\n".join(f"* {line}" for line in _training(spec, facts)),
        "## Made with\n\n" + "\n".join(f"* {line}" for line in _versions(facts)),
    ]
    return "\n\n".join(sections) + "\n"


def _figures(part: str, figures: Mapping[str, Any]) -> str:
    """Table of a part's figures."""
    rows, scenes = figures["pooled"]["classes"], len(figures["scenes"])
    said = {
        "validate": "Validation, by which this network was chosen: the figures are optimistic",
        "test": "Test, seen once, at the end",
    }
    lines = [f"{said[part]}; {scenes} scene{'s' if scenes != 1 else ''}.", ""]
    lines += ["| class | pixels | Dice | IoU | precision | recall |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in rows.items():
        cells = [_cell(row[metric], row[f"{metric}_interval"]) for metric in METRICS]
        lines.append(f"| {name} | {row['true_px']:,} | {' | '.join(cells)} |")
    if any(row["iou_interval"] for row in rows.values()):
        lines += ["", "In brackets: 95 % intervals by bootstrap over the scenes."]
    return "\n".join(lines)


def _cell(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def _data(spec: ModelSpec, facts: TrainingFacts) -> str:
    known = max(sum(facts.pixels), 1)
    shares = ", ".join(
        f"{each.name} {count / known:.1%}" for each, count in zip(spec.classes, facts.pixels, strict=True)
    )
    rows = [
        f"| {each.name} | {each.shape[1]:,} × {each.shape[0]:,} | {', '.join(each.parts)} |" for each in facts.scenes
    ]
    table = "\n".join(["| scene | pixels | parts |", "| --- | --- | --- |", *rows])
    return (
        f"Split: {facts.split}. Labelled pixels that train: {sum(facts.pixels):,} ({shares}).\n\n{table}\n\n"
        f"Bands: {', '.join(spec.bands)} ({spec.dtype}, values from {spec.input_range[0]:g} to "
        f"{spec.input_range[1]:g}). "
        f"Normalisation: {_normalisation(spec)}."
    )


def _normalisation(spec: ModelSpec) -> str:
    stated = spec.normalise.model_dump(mode="json", exclude_defaults=True)
    kind = stated.pop("kind", spec.normalise.kind)
    return f"{kind}" + "".join(f", {key} {value}" for key, value in stated.items())


def _training(spec: ModelSpec, facts: TrainingFacts) -> Iterator[str]:
    if spec.unet is not None:
        shape = spec.unet
        yield (
            f"U-Net of depth {shape.depth} and width {shape.width}, {shape.convolutions} convolutions, skips by "
            f"{shape.skips}" + (", batch normalisation" if shape.batch_norm else "")
        )
    if facts.library:
        yield f"{facts.library}, served as a program of torch.export"
    if facts.start:
        yield f"started from {facts.start}"
    best = "" if facts.best_step is None else f"; best validation at step {facts.best_step:,}"
    yield f"{facts.steps:,} steps in {facts.seconds:,.0f} s{best}"
    if spec.decision.threshold is not None:
        yield f"threshold {spec.decision.threshold:.4g}, chosen by validation"
    if facts.onnx:
        yield facts.onnx


def _versions(facts: TrainingFacts) -> Iterator[str]:
    yield f"Python {platform.python_version()}, torch {torch.__version__}, tilesseg {__version__}{_commit()}"
    threads = f"{facts.threads} thread{'s' if facts.threads != 1 else ''}"
    yield f"{able(facts.device).processor} ({facts.device}), {threads}, {facts.precision}"


def _commit() -> str:
    """Commit of tilesseg, where it runs from a git checkout of its own; else empty."""
    home = Path(__file__).resolve().parents[2]
    if not (home / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(home), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git here: the version has to do
        return ""
    return f", commit {done.stdout.strip()[:12]}" if done.returncode == 0 else ""
