"""`tilesseg evaluate`: how good is a mask?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilesseg.cli.options import AsJson, local_path, names
from tilesseg.errors import JobError, cannot

if TYPE_CHECKING:
    from tilesseg.evaluation.evaluate_masks import Comparison
    from tilesseg.evaluation.evaluation import Evaluation

FAILED_GOAL = 3


def evaluate(
    masks: Annotated[
        list[str],
        typer.Argument(
            metavar="MASK TRUTH | RUN --labels FILE | A B --truth FILE",
            help="A mask and its truth; a run directory; or two masks to compare.",
        ),
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            "--truth",
            metavar="FILE",
            help="The truth: a raster on the grid of the mask, or vectors; {scene} stands for the name of a scene.",
        ),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            metavar="V=CLASS,…",
            help="Class of each value of the truth, as 0=background,255=nucleus; ignore is no "
            "class, other=… is every other value. Needed unless the values are 0 … n − 1.",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes 0 … n − 1 of the mask, where the file does not carry them.")
    ] = None,
    attribute: Annotated[str | None, typer.Option(help="Attribute of vectors that says the class.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of a vector file of several.")] = None,
    all_touched: Annotated[
        bool,
        typer.Option(
            "--all-touched", help="Vectors cover every pixel that they touch, not only pixels whose centres they hold."
        ),
    ] = False,
    area: Annotated[
        str | None, typer.Option(metavar="FILE", help="Polygons outside which nothing is compared.")
    ] = None,
    tolerance: Annotated[
        str, typer.Option(help="Tolerance of boundaries, as 2px, 3m or 1um; rounded up to pixels.")
    ] = "2px",
    scores: Annotated[
        bool, typer.Option("--scores", help="Compare the stored scores of a run too: calibration.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="scene|block",
            help="Units of the intervals. Default: scenes, or blocks of a single scene.",
        ),
    ] = None,
    only_valid: Annotated[
        bool,
        typer.Option(
            "--only-valid", help="Leave out pixels without data in the mask (255), which count as wrong otherwise."
        ),
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS.METRIC=VALUE",
            help="End with exit code 3 where a pooled figure is below a value, as "
            "nucleus.dice=0.9; may be given again.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=local_path,
            help="Folder for evaluation.json, .csv and pictures. Default: the run directory; none for files.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare masks with the truth: Dice, IoU, precision, recall and boundaries by class, with 95 % intervals."""
    from tilesseg.evaluation.evaluate_masks import Comparison
    from tilesseg.evaluation.evaluation_tables import class_table, scene_table, summary_lines

    if by not in (None, "scene", "block"):
        raise JobError(f"--by is {by}, and the units are scene or block; give one of these")
    rules = Comparison(
        classes=tuple(names(classes) or ()) or None,
        values=_values(values),
        attribute=attribute,
        layer=layer,
        all_touched=all_touched,
        area=area,
        tolerance=tolerance,
        scores=scores,
        by=by,  # type: ignore[arg-type] # checked above
        only_valid=only_valid,
    )
    goals = [_goal(text) for text in fail_under or ()]
    if len(masks) == 2 and labels is not None:
        if goals:
            raise JobError("--fail-under judges one mask, and two are given; evaluate the second alone, with its truth")
        return _compare(masks, labels, rules, out=out, as_json=as_json)
    evaluation = _evaluated(masks, labels, rules)
    if as_json:
        print(json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False))
    else:
        if len(evaluation.scenes) > 1:
            print(scene_table(evaluation), end="\n\n")
        print(class_table(evaluation))
        print("\n".join(summary_lines(evaluation)))
    _write(masks, labels, rules, evaluation, out)
    return max(_named_refusals(evaluation), _judged(evaluation, goals))


def _named_refusals(evaluation: Evaluation) -> int:
    """Name the scenes that were not evaluated; exit code 3 where there are any."""
    for name, reason in (evaluation.refused or {}).items():
        print(f"not evaluated: {name}: {reason}", file=sys.stderr)
    return FAILED_GOAL if evaluation.refused else 0


def _evaluated(masks: list[str], labels: str | None, rules: Comparison) -> Evaluation:
    """Evaluation of a mask and its truth, or of a run and its labels.

    Raises:
        JobError: the arguments are neither.
    """
    from tilesseg.evaluation import evaluate_masks

    if len(masks) == 2 and labels is None:
        return evaluate_masks.evaluate_file(masks[0], masks[1], rules, progress=_progress())
    if len(masks) != 1 or labels is None:
        raise JobError(
            f"evaluate takes a mask and its truth, a run and --labels, or two masks and --truth, not {len(masks)} "
            f"paths and {'no' if labels is None else 'one'} --labels; see tilesseg evaluate --help"
        )
    return evaluate_masks.evaluate(masks[0], labels, rules, progress=_progress())


def _compare(masks: list[str], labels: str, rules: Comparison, *, out: Path | None, as_json: bool) -> int:
    """Compare two masks, or two runs, with one truth."""
    from tilesseg.atomic_write import published
    from tilesseg.evaluation.paired_masks import PairedMasks

    pair = PairedMasks.of(*(_evaluated([mask], labels, rules) for mask in masks))
    text = json.dumps(pair.to_json(), indent=1, ensure_ascii=False)
    print(text if as_json else f"A: {masks[0]}\nB: {masks[1]}\n\n{pair.table()}")
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            with published(out / "comparison.json") as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise JobError(cannot(f"write the comparison into {out}", error, "choose another --out")) from None
    return max(_named_refusals(each) for each in (pair.first, pair.second))


def _write(masks: list[str], labels: str | None, rules: Comparison, evaluation: Evaluation, out: Path | None) -> None:
    from tilesseg.evaluation.evaluate_masks import is_run, scenes_of
    from tilesseg.evaluation.evaluation_files import write_error_map, write_evaluation

    of_run = len(masks) == 1 and is_run(masks[0])
    folder = out or (Path(masks[0]) if of_run else None)
    if folder is None:
        return
    written = write_evaluation(folder, evaluation)
    if out is not None:
        truth = labels or masks[1]
        known = {scene.name for scene in evaluation.scenes}
        for scene in scenes_of(masks[0], truth, rules, run=of_run):
            if scene.name in known:
                path = out / ("error.tif" if not of_run else f"{scene.name}-error.tif")
                written.append(write_error_map(scene, path))
    print(f"written: {', '.join(map(str, written))}", file=sys.stderr)


def _judged(evaluation: Evaluation, goals: list[tuple[str, str, float]]) -> int:
    """Exit code: 3 where a figure is below its goal."""
    failed = False
    for name, metric, least in goals:
        if name not in evaluation.classes:
            raise JobError(
                f"--fail-under names {name}, and the classes are {', '.join(evaluation.classes)}; correct it"
            )
        value = evaluation.value(name, metric)
        if not value >= least:
            failed = True
            print(f"{name}.{metric} is {value:.4f}, below {least:g}", file=sys.stderr)
    return FAILED_GOAL if failed else 0


def _goal(text: str) -> tuple[str, str, float]:
    """Class, metric and value of `nucleus.dice=0.9`.

    Raises:
        JobError: the text has another form.
    """
    from tilesseg.evaluation.evaluation import METRICS

    known = (*METRICS, "boundary_f1")
    left, _, value = text.partition("=")
    name, _, metric = left.rpartition(".")
    try:
        least = float(value)
    except ValueError:
        least = float("nan")
    if not name or metric not in known or least != least:
        raise JobError(f"--fail-under {text} is no CLASS.METRIC=VALUE with a metric of {', '.join(known)}; correct it")
    return name, metric, least


def _values(text: str | None) -> dict[int | str, str] | None:
    """Mapping of `0=background,255=nucleus,other=ignore`.

    Raises:
        JobError: a part has no equals sign, or a value has two classes.
    """
    if text is None:
        return None
    found: dict[int | str, str] = {}
    for part in names(text) or ():
        value, sign, name = (piece.strip() for piece in part.partition("="))
        if not sign or not name:
            raise JobError(f"--values has the part {part!r}; write VALUE=CLASS, as 0=background,255=nucleus")
        key = int(value) if re.fullmatch(r"-?[0-9]+", value) else value
        if key in found:
            raise JobError(f"--values says that {key} is {found[key]} and {name}; say one")
        found[key] = name
    return found


def _progress() -> Any:
    """Function that shows the share of counted blocks on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        print(f"\r{done:,} of {of:,} blocks", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return show
