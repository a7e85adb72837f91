"""Pictures of a training: its curve, samples of validation, and the patches of the worst loss; for people to look at.

curve.png            loss of each step (grey), its mean over stretches (black), and the score (red)
samples/000200.png   rows of image, truth and prediction, of windows that stay the same, at each validation
worst/01.png …       image, truth and prediction of the 20 patches that lost most since the validation before
worst/worst.csv      their losses, steps, scenes and windows
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError, cannot
from tilesseg.formats.writing.chart_picture import Line, draw_lines
from tilesseg.formats.writing.preview import GAP, colours_among, encode, stretch
from tilesseg.models.spec import ModelSpec
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window
from tilesseg.training.losses import labels_of
from tilesseg.training.scene_validation import PartOfScene
from tilesseg.training.worst_patches import Loader, WorstPatch, worst_patches

SAMPLES, SIDE = 4, 256
"""Number of samples, and the side in pixels that they have where the part is so large."""
UNKNOWN = (96, 96, 96)
"""Colour of pixels without a label."""

SMOOTH = 50
"""Number of stretches over which losses are averaged."""

Picture = NDArray[np.uint8]
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures of one training, in its directory."""

    folder: Path
    spec: ModelSpec
    parts: Sequence[PartOfScene]
    """Scenes that validate."""
    loader: Loader
    batch: int
    """Number of patches in a step."""
    device: torch.device

    def draw(
        self, network: nn.Module, *, step: int, worst: Sequence[Sequence[float]], losses: Sequence[tuple[int, float]],
        scores: Sequence[tuple[int, float]],
    ) -> None:  # fmt: skip
        """Draw all pictures anew, and a sheet of samples of this step.

        Args:
            network: network that is drawn; not changed.
            step: number of the step.
            worst: patches of the worst loss, see `worst_patches.keep_worst`.
            losses: loss of each step so far.
            scores: score of each validation so far.

        Raises:
            StoreError: a picture cannot be written.
        """
        served = copy.deepcopy(network).to(self.device).eval()
        self._write(self.folder / "curve.png", draw_curve(losses, scores))
        rows = list(self._samples(served))
        if rows:
            self._write(self.folder / "samples" / f"{step:06d}.png", stacked(rows, axis=1))
        self._draw_worst(served, list(worst_patches(worst, self.loader, self.batch)))

    def _samples(self, network: nn.Module) -> Iterator[Picture]:
        chosen = [self.parts[number % len(self.parts)] for number in range(SAMPLES if self.parts else 0)]
        places = {
            (part.scene.name, sample_window(part.windows, number, self.spec)): part
            for number, part in enumerate(chosen)
        }  # a part that is no larger than a sample has one alone
        for (_, window), part in places.items():
            pixels, rule = part.scene.source.read(window), part.scene.normalisation
            values = rule.apply(np.where(pixels.valid, pixels.values, self.spec.fill)).astype(np.float32)
            lost = self.spec.patch.shrink // 2
            inner = Window(window.y + lost, window.x + lost, window.height - 2 * lost, window.width - 2 * lost)
            yield self._row(network, values, part.scene.labels.read(inner))

    def _row(self, network: nn.Module, values: NDArray[np.float32], truth: NDArray[np.uint8]) -> Picture:
        """Image, truth and prediction beside each other.

        Args:
            network: network on the device, in evaluation mode.
            values: normalised values `(channel, y, x)`.
            truth: labels `(y, x)` of the pixels that the network predicts.
        """
        with torch.inference_mode():
            scores = network(torch.from_numpy(np.ascontiguousarray(values))[None].to(self.device)).float().cpu()
        lost = self.spec.patch.shrink // 2
        seen = values[:, lost : values.shape[1] - lost, lost : values.shape[2] - lost]
        masks = (truth, labels_of(scores)[0].numpy().astype(np.uint8))
        return stacked([self._image(seen), *(self._mask(mask) for mask in masks)], axis=2)

    def _image(self, values: NDArray[np.float32]) -> Picture:
        chosen = colours_among(self.spec.bands) or tuple(range(3 if len(values) >= 3 else 1))
        shown = stretch(values[list(chosen)], np.ones(values.shape[1:], np.bool_))
        return np.ascontiguousarray(np.broadcast_to(shown, (3, *values.shape[1:])))

    def _mask(self, labels: NDArray[np.uint8]) -> Picture:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self.spec.classes)] = [each.rgb for each in self.spec.classes]
        colours[IGNORED] = UNKNOWN
        return np.moveaxis(colours[labels], -1, 0)

    def _draw_worst(self, network: nn.Module, worst: Sequence[WorstPatch]) -> None:
        folder, files = self.folder / "worst", {}
        for place, patch in enumerate(worst, 1):
            row = self._row(network, patch.batch.values[0].numpy(), patch.batch.labels[0].numpy().astype(np.uint8))
            files[f"{place:02d}.png"] = encode(row, "PNG")
        files["worst.csv"] = self._table(worst).encode()
        try:
            with published(folder, folder=True) as temporary:
                temporary.mkdir(exist_ok=True)
                for name, content in files.items():
                    (temporary / name).write_bytes(content)
        except OSError as error:
            raise _refusal(folder, error) from None

    def _table(self, worst: Sequence[WorstPatch]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("picture", "loss", "step", "number", "scene", "y", "x", "height", "width"))
        for place, patch in enumerate(worst, 1):
            writer.writerow((f"{place:02d}.png", f"{patch.loss:.4f}", patch.step, patch.number, *self._where(patch)))
        return text.getvalue()

    def _where(self, patch: WorstPatch) -> tuple[Any, ...]:
        """Scene and window of a patch; empty where the loader does not say them."""
        draws, scenes = getattr(patch.batch, "draws", ()), getattr(self.loader, "scenes", ())
        if not draws:
            return ("",) * 5
        window = draws[0].window
        return scenes[draws[0].scene].name, window.y, window.x, window.height, window.width

    def _write(self, path: Path, picture: Picture) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with published(path) as temporary:
                temporary.write_bytes(encode(picture, "PNG"))
        except OSError as error:
            raise _refusal(path, error) from None


def draw_curve(losses: Points, scores: Points) -> Picture:
    """Picture `(3, y, x)` of losses (left axis) and scores (right axis, from 0 to 1) over steps.

    Args:
        losses: step and loss of each step.
        scores: step and score of each validation.
    """
    steps, values = [step for step, _ in losses], [loss for _, loss in losses]
    parts = np.array_split(np.array(losses, np.float64).reshape(-1, 2), min(SMOOTH, max(1, len(losses))))
    means = [part.mean(axis=0) for part in parts if len(part)]
    top = max(float(np.percentile(values or [1.0], 99)), 1e-6)  # a few steps that lose much do not flatten the rest
    lines = [
        Line("loss", steps, values, "#b5b5b5", dots="only"),
        Line("mean loss", [step for step, _ in means], [loss for _, loss in means], "#222222"),
        Line("validation", [step for step, _ in scores], [score for _, score in scores], "#d1495b", "both", right=True),
    ]
    return draw_lines(lines, title="", x_label="step", y_label="loss", y_range=(0.0, top))


def sample_window(windows: Sequence[Window], number: int, spec: ModelSpec) -> Window:
    """Window of a sample: of a legal side, in a part, at a place that depends on its number alone."""
    generator = np.random.default_rng(number)
    area = windows[int(generator.integers(len(windows)))]
    side = spec.patch.at_least(min(SIDE, area.height, area.width))
    y, x = (
        start + int(generator.integers(max(0, size - side) + 1))
        for start, size in ((area.y, area.height), (area.x, area.width))
    )
    return Window(y, x, side, side)


def stacked(pictures: Sequence[Picture], *, axis: int) -> Picture:
    """Pictures `(3, y, x)` one after the other along an axis; white is between them, and pads smaller ones."""
    other = 3 - axis
    size = max(each.shape[other] for each in pictures)
    parts: list[Picture] = []
    for each in pictures:
        pad = [(0, 0)] * 3
        pad[other] = (0, size - each.shape[other])
        gap = list(each.shape)
        gap[axis], gap[other] = GAP, size
        parts += [np.pad(each, pad, constant_values=255), np.full(gap, 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=axis)


def _refusal(path: Path, error: OSError) -> StoreError:
    return StoreError(cannot(f"write {path}", error, "make room and run the same command again"))
