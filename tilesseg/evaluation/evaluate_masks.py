"""Evaluation carried out: scenes are opened, their blocks counted on an executor, and the counts added up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import Executor, ThreadExecutor
from tilesseg.errors import JobError, SourceError, TilessegError, joined_lines
from tilesseg.evaluation.compared_scene import BLOCK, Block, ComparedScene, block_side, blocks_of, open_compared
from tilesseg.evaluation.counted_scenes import Progress, counted
from tilesseg.evaluation.evaluation import By, Evaluation
from tilesseg.formats.labels.label_values import IGNORE
from tilesseg.formats.mask_classes import mask_classes
from tilesseg.formats.open import open_source
from tilesseg.planning.job import read_job
from tilesseg.planning.stored_plan import open_run_directory, scene_names, stored_scene_plan
from tilesseg.process import available_cores
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import FAILED


@dataclass(frozen=True)
class Comparison:
    """Rules of a comparison, as a user states them."""

    classes: tuple[str, ...] | None = None
    """Names of the classes; None: those that the mask carries."""
    values: dict[int | str, str] | None = None
    """Class of each value of the truth; None: they are the classes."""
    attribute: str | None = None
    """Attribute of vectors that says the class."""
    layer: str | None = None
    """Layer of a vector file of several."""
    all_touched: bool = False
    """Whether vectors cover every pixel that they touch."""
    area: str | None = None
    """File of polygons outside which nothing is compared; `{scene}` stands for the scene's name."""
    tolerance: str = "2px"
    """Tolerance of boundaries: pixels (`2px`), metres (`2m`) or micrometres (`1um`), rounded up to pixels."""
    scores: bool = False
    """Whether the stored scores of a run are compared too."""
    by: By | None = None
    """Units of the intervals; None: scenes where there are several, else blocks."""
    only_valid: bool = False
    """Whether pixels without data in the mask are left out; else they are wrong."""


def evaluate(
    mask: str,
    truth: str,
    rules: Comparison | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a mask, or all scenes of a run, with the truth.

    Args:
        mask: path of a mask of labels, or of a run directory.
        truth: path of the labels, a raster on the mask's grid or vectors; `{scene}` stands for the name of a scene.
        rules: rules of the comparison; None: those of `Comparison`.
        executor: executor that counts; None: threads of this process, or the cluster of the run's job.
        progress: called after each block.

    Raises:
        TilessegError: mask or truth cannot be read, they do not fit, or no pixel is known.
    """
    judge = evaluate_run if is_run(mask) else evaluate_file
    return judge(mask, truth, rules or Comparison(), executor=executor, progress=progress)


def is_run(path: str) -> bool:
    """Whether a path is a run directory."""
    return (Path(path) / "scenes").is_dir()


def evaluate_file(
    mask: str, truth: str, rules: Comparison, *, executor: Executor | None = None, progress: Progress | None = None
) -> Evaluation:
    """Compare a mask with the truth.

    Args:
        mask: path of a mask of labels.
        truth: path of the labels, a raster on its grid or vectors.
        rules: rules of the comparison.
        executor: executor that counts; None: threads of this process.
        progress: called after each block.

    Raises:
        TilessegError: one of them cannot be read, they do not fit, or no pixel is known.
    """
    scenes = scenes_of(mask, truth, rules)
    evaluation = _evaluate(scenes, rules, executor or ThreadExecutor(available_cores()), progress)
    for reason in (evaluation.refused or {}).values():
        raise SourceError(reason)
    return evaluation


def evaluate_run(
    run: str, labels: str, rules: Comparison, *, executor: Executor | None = None, progress: Progress | None = None
) -> Evaluation:
    """Compare all planned scenes of a run with their labels, on the cluster of the run.

    Args:
        run: path of the run directory.
        labels: path of the labels; `{scene}` stands for the scene's name.
        rules: rules of the comparison; classes are those of the model.
        executor: executor that counts; None: that of the run's job.
        progress: called after each block.

    Raises:
        TilessegError: this is no run, or no scene of it can be compared.
    """
    directory, _ = open_run_directory(Path(run))
    scenes = scenes_of(run, labels, rules, run=True)
    planned = {scene.name for scene in scenes}
    refused = {name: "it was never planned" for name in scene_names(directory) if name not in planned}
    if not scenes:
        raise SourceError(f"{run} holds no scene with a mask; run its job first")
    with _executor_of(run, executor) as workers:
        evaluation = _evaluate(scenes, rules, workers, progress)
    evaluation = replace(evaluation, refused={**refused, **(evaluation.refused or {})})
    if not evaluation.scenes:
        raise SourceError(next(iter((evaluation.refused or {}).values())))
    return evaluation


def scenes_of(mask: str, truth: str, rules: Comparison, *, run: bool = False) -> list[ComparedScene]:
    """Scenes of a mask, or of a run, with their truth.

    Raises:
        TilessegError: the mask cannot be opened, or does not say its classes; or several scenes have one truth.
    """
    if not run:
        classes = _checked(rules.classes or mask_classes(mask) or _classes_of_values(mask, rules), mask)
        return [_scene(Path(mask).stem, mask, truth, classes, open_source(mask).grid, rules)]
    directory, plan = open_run_directory(Path(mask))
    named = scene_names(directory)
    if len(named) > 1 and "{scene}" not in truth:
        raise JobError(
            f"--labels {truth} is one file, and {mask} holds {len(named)} scenes; write {{scene}} for the scene's name"
        )
    classes = tuple(each.name for each in plan.spec.classes)
    plans = [(name, stored_scene_plan(directory.scene(name))) for name in named]
    return [
        replace(_scene(name, mask, truth.replace("{scene}", name), classes, planned.grid, rules), run=True)
        for name, planned in plans
        if planned is not None
    ]


@contextmanager
def _executor_of(run: str, executor: Executor | None) -> Iterator[Executor]:
    """The given executor, or that of the run's job."""
    if executor is not None:
        yield executor
        return
    section = read_job(Path(run) / "job.yaml").cluster
    with cluster.connect(section, "cpu") as connected:
        yield connected


def _scene(name: str, mask: str, truth: str, classes: Sequence[str], grid: Grid, rules: Comparison) -> ComparedScene:
    return ComparedScene(
        name=name,
        mask=mask,
        truth=truth,
        classes=tuple(classes),
        values=None if rules.values is None else tuple(rules.values.items()),
        attribute=rules.attribute,
        layer=rules.layer,
        all_touched=rules.all_touched,
        area=rules.area and rules.area.replace("{scene}", name),
        tolerance=tolerance_px(rules.tolerance, grid),
        scores=rules.scores,
        only_valid=rules.only_valid,
        block=block_side(grid.shape),
    )


def tolerance_px(text: str, grid: Grid) -> int:
    """Tolerance in pixels of a grid, rounded up.

    Raises:
        JobError: it has no unit, or the grid has no such unit, or it is larger than a block.
    """
    pixels = _length_px(text, grid)
    if pixels > BLOCK:
        raise JobError(f"the tolerance {text[:40]} is {pixels:.6g} px, and the largest is {BLOCK} px; lower it")
    return ceil(pixels)


def _length_px(text: str, grid: Grid) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(px|m|um|µm)", text)
    if match is None:
        raise JobError(f"the tolerance {text!r} is no length; write pixels as 2px, metres as 2m, micrometres as 1um")
    length, unit = float(match[1]), match[2]
    if unit == "px":
        return length
    metres = {"m": 1.0}.get(unit, 1e-6) * length
    if grid.metres_per_unit is None:
        raise JobError(
            f"the tolerance {text[:40]} is a length, and the unit of the mask's pixels is {grid.unit}; write "
            "pixels, as 2px"
        )
    return round(metres / (min(grid.resolution) * grid.metres_per_unit), 6)


def _checked(classes: Sequence[str], mask: str) -> tuple[str, ...]:
    """Names of classes that labels of one byte can tell apart.

    Raises:
        JobError: they are too few or too many, or one stands twice or for no class.
    """
    if not 2 <= len(classes) <= FAILED:
        raise JobError(f"{mask} has {len(classes)} classes, and 2 to {FAILED} can be compared; name all its classes")
    twice = next((name for name in classes if list(classes).count(name) > 1 or name == IGNORE), None)
    if twice is not None:
        reason = "means that a value is no class" if twice == IGNORE else "stands there twice"
        raise JobError(f"{mask} has the classes {', '.join(classes)}, where {twice} {reason}; give it another name")
    return tuple(classes)


def _classes_of_values(mask: str, rules: Comparison) -> tuple[str, ...]:
    """Classes that `--values` names, in their order.

    Raises:
        JobError: nothing names the classes.
    """
    named = [name for name in dict.fromkeys((rules.values or {}).values()) if name != "ignore"]
    if len(named) < 2:
        raise JobError(
            f"{mask} does not say the names of its classes; give them in order, as --classes background,nucleus"
        )
    return tuple(named)


def _evaluate(
    scenes: Sequence[ComparedScene], rules: Comparison, executor: Executor, progress: Progress | None
) -> Evaluation:
    blocks: dict[ComparedScene, list[Block]] = {}
    refused: dict[str, str] = {}
    for scene in scenes:
        try:
            blocks[scene] = blocks_of(scene, open_compared(scene).mask.grid.shape)
        except TilessegError as error:
            refused[scene.name] = joined_lines(error)
    tallies = counted(blocks, executor, progress)
    results = []
    for scene, tally in tallies.items():
        try:
            results.append(tally.result(blocks[scene]))
        except SourceError as error:
            refused[scene.name] = str(error)
    by: By = rules.by or ("scene" if len(results) > 1 else "block")
    return Evaluation(scenes[0].classes, tuple(results), by, scenes[0].tolerance, refused or None, rules.only_valid)
