"""Files of an evaluation: JSON, CSV, the pictures of confusion and reliability, and the map of errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilesseg.atomic_write import published
from tilesseg.errors import JobError, cannot
from tilesseg.evaluation.compared_scene import ComparedScene, open_compared
from tilesseg.evaluation.evaluation import Evaluation
from tilesseg.evaluation.evaluation_tables import csv_text
from tilesseg.formats.cog.writer import write_cog
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.formats.writing.chart_picture import Line, write_line_chart, write_matrix
from tilesseg.process import available_cores
from tilesseg.raster.calibration import BINS, reliability
from tilesseg.raster.labels import IGNORED, NODATA
from tilesseg.raster.window import Window
from tilesseg.version import __version__

JSON_FILE, CSV_FILE = "evaluation.json", "evaluation.csv"
CONFUSION, RELIABILITY = "confusion.png", "reliability.png"
EMPTY, RIGHT, MISSED, FALSE, CONFUSED = range(5)
ERRORS = (
    MaskClass("right, first class", (225, 225, 225)),
    MaskClass("right", (46, 147, 60)),
    MaskClass("missed", (209, 73, 91)),
    MaskClass("false", (27, 108, 168)),
    MaskClass("another class", (201, 123, 0)),
)
"""Names and colours of the map of errors; 255, transparent, is where the truth is not known."""


def write_evaluation(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Write `evaluation.json`, `evaluation.csv`, `confusion.png` and, with scores, `reliability.png`.

    Returns:
        The files written.

    Raises:
        JobError: the folder cannot be written.
        FormatError: a picture cannot be written.
    """
    text = json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((JSON_FILE, text), (CSV_FILE, csv_text(evaluation))):
            with published(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise JobError(cannot(f"write the evaluation into {folder}", error, "choose another --out")) from None
    names = [JSON_FILE, CSV_FILE, CONFUSION]
    columns = [*evaluation.classes, "no class"]
    write_matrix(
        folder / CONFUSION,
        evaluation.pooled.confusion,
        rows=evaluation.classes,
        columns=columns,
        title="Truth (rows) against mask (columns)",
    )
    if evaluation.pooled.scores is not None:
        _write_reliability(folder / RELIABILITY, evaluation.pooled.scores, evaluation.classes)
        names.append(RELIABILITY)
    return [folder / name for name in names]


def _write_reliability(path: Path, scores: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draw how frequent each class is where it has a score, in bins."""
    _, right, confidence = reliability(scores)
    lines = [
        Line(name, confidence[label].tolist(), right[label].tolist(), dots="both") for label, name in enumerate(classes)
    ]
    middles = [(bin_number + 0.5) / BINS for bin_number in range(BINS)]
    write_line_chart(
        path,
        [Line("as frequent as scored", [0.0, *middles, 1.0], [0.0, *middles, 1.0], "#999999"), *lines],
        title="Reliability of scores",
        x_label="mean score",
        y_label="share of pixels of the class",
        y_range=(0.0, 1.0),
    )


def write_error_map(scene: ComparedScene, path: Path) -> Path:
    """Write where a mask is right and wrong as a COG with a palette, in bounded memory.

    Raises:
        TilessegError: mask or truth cannot be read, or the file cannot be written.
    """
    opened = open_compared(scene)

    def read(window: Window) -> NDArray[np.uint8]:
        return errors_of(opened.truth.read(window), opened.mask.read(window), scene)

    facts = {"software": f"tilesseg {__version__}", "mask": Path(scene.mask).name, "truth": Path(scene.truth).name}
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_cog(Mask(opened.mask.grid, read, ERRORS, facts), path, threads=available_cores())[0]


def errors_of(truth: NDArray[np.uint8], mask: NDArray[np.uint8], scene: ComparedScene) -> NDArray[np.uint8]:
    """Kind of each pixel `(y, x)`: right, missed, false, another class, or 255 where the truth is not known.

    Missed and false are told apart where the first class is the background; a pixel without a class in the mask is
    missed.
    """
    errors = np.full(truth.shape, CONFUSED, np.uint8)
    empty, sought = (truth == mask) & (truth == 0), np.ones(truth.shape, np.bool_)
    if scene.classes[0].lower() == "background":
        sought = truth != 0
        errors[sought & (mask == 0)] = MISSED
        errors[~sought & (mask != 0)] = FALSE
    errors[truth == mask] = RIGHT
    errors[empty & ~sought] = EMPTY
    errors[mask >= len(scene.classes)] = MISSED
    errors[truth == IGNORED] = NODATA
    if scene.only_valid:
        errors[mask == NODATA] = NODATA
    return errors
