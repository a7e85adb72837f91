"""Forecast of a training, as `tilesseg train --plan` prints it: its data, its split, and what ten real steps take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tilesseg.models.engines.torch_engine import pick_device
from tilesseg.monitoring.humanize import counted, duration
from tilesseg.process import peak_mb
from tilesseg.training.losses import class_weights, loss_function
from tilesseg.training.optimiser import make_optimiser
from tilesseg.training.patch_sampling import largest_side
from tilesseg.training.split import PARTS, Part
from tilesseg.training.train_job import materials_of, notes_of
from tilesseg.training.train_network import Materials, alike_each_time, precision_of
from tilesseg.training.train_spec import TrainSpec, read_train_spec
from tilesseg.training.training_data import TrainingData, gather
from tilesseg.training.training_loop import Manner, train_step

STEPS, WARM = 10, 2
"""Number of steps that are measured, and of steps before them."""
SHOWN = 20
"""Largest number of scenes in the text."""


@dataclass(frozen=True, slots=True)
class TrainingForecast:
    """A training with its cost."""

    spec: TrainSpec
    data: TrainingData
    device: str
    parameters: int
    """Number of the network's parameters."""
    seconds: float
    """Seconds of a step."""
    memory_mb: float
    """Peak resident memory of this process after its steps, in MB of 10^6 bytes; of a GPU, its own."""

    @property
    def epoch(self) -> float:
        """Number of patches that have as many labels as there are labelled pixels that train."""
        side = self.data.geometry.patch - self.data.geometry.shrink
        return float(self.data.pixels("train").sum()) / side**2

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain data."""
        data, spec = self.data, self.spec
        return {
            "name": spec.name,
            "directory": spec.output.dir,
            "device": self.device,
            "parameters": self.parameters,
            "bands": list(data.spec.bands),
            "input_range": list(data.spec.input_range),
            "normalise": data.spec.normalise.model_dump(mode="json", exclude_defaults=True),
            "classes": {each.name: self._pixels_of(number) for number, each in enumerate(spec.classes)},
            "split": {"by": spec.split.by, "gap": self._gap},
            "scenes": [self._scene(number) for number in range(len(data.scenes))],
            "patch": data.geometry.patch,
            "batch": spec.sampling.batch,
            "epoch_patches": round(self.epoch, 1),
            "steps": spec.optimise.steps,
            "ten_steps_seconds": round(STEPS * self.seconds, 3),
            "memory_mb": round(self.memory_mb),
            "notes": notes_of(data),
        }

    @property
    def text(self) -> str:
        """The forecast for people."""
        spec, data, lines = self.spec, self.data, []
        lines.append(
            f"{spec.name}: {self.parameters:,} parameters, bands {', '.join(data.spec.bands)}, on {self.device}; "
            f"values {data.spec.input_range[0]:g} to {data.spec.input_range[1]:g}"
        )
        lines += [self._part_line(part) for part in PARTS]
        lines += [f"  {line}" for line in self._scene_lines()]
        gap = "" if self._gap is None else f", with a gap of {self._gap} px round the parts that are scored"
        lines.append(f"split by {spec.split.by}{gap}")
        lines.append(
            f"patches of {data.geometry.patch} px, {spec.sampling.batch} in a step; as many pixels as train are in "
            f"{max(1, self.epoch):,.0f} of them"
        )
        lines.append(
            f"ten steps take {STEPS * self.seconds:.3g} s, so {spec.optimise.steps:,} steps about "
            f"{duration(spec.optimise.steps * self.seconds)}, without validation"
        )
        lines.append(f"peak memory {self.memory_mb:,.0f} MB after these steps, without validation")
        return "\n".join([*lines, *(f"note: {note}" for note in notes_of(data))])

    @property
    def _gap(self) -> int | None:
        """Gap in pixels, where parts of one scene are split."""
        split = self.spec.split
        if split.by not in ("block", "polygons"):
            return None
        return largest_side(self.data.geometry.patch, self.spec.augment.scale) if split.gap == "auto" else split.gap

    def _pixels_of(self, label: int) -> dict[str, int]:
        return {part: int(self.data.pixels(part)[label]) for part in PARTS}

    def _part_line(self, part: Part) -> str:
        pixels = self.data.pixels(part)
        scenes = sum(part in cells for cells in self.data.cells.values())
        if not scenes:
            return f"{part}: nothing"
        shares = ", ".join(
            f"{each.name} {100 * count / max(1, int(pixels.sum())):.3g} %"
            for each, count in zip(self.spec.classes, pixels.tolist(), strict=True)
        )
        return f"{part}: {counted(scenes, 'scene')}, {int(pixels.sum()):,} labelled pixels; shares: {shares}"

    def _scene(self, number: int) -> dict[str, Any]:
        scene = self.data.scenes[number]
        cells = self.data.cells[scene.name]
        pixels = {part: cells[part].pixels.tolist() for part in PARTS if part in cells}
        return {"name": scene.name, "size": list(scene.source.grid.shape), "pixels": pixels}

    def _scene_lines(self) -> Iterator[str]:
        for number in range(min(SHOWN, len(self.data.scenes))):
            facts = self._scene(number)
            height, width = facts["size"]
            yield f"{facts['name']}: {height} × {width} px, {', '.join(facts['pixels']) or 'in no part'}"
        if len(self.data.scenes) > SHOWN:
            yield f"and {len(self.data.scenes) - SHOWN} more scenes"


def forecast_training(spec: TrainSpec | str | Path) -> TrainingForecast:
    """Open and count all data, and do some steps; nothing is written.

    Args:
        spec: training spec, or the path of its file.

    Raises:
        TilessegError: the training cannot work.
    """
    spec = spec if isinstance(spec, TrainSpec) else read_train_spec(Path(spec))
    data = gather(spec)
    materials = materials_of(spec, data)
    device = pick_device(spec.device)
    seconds = _seconds_of_step(spec, materials, device)
    parameters = sum(parameter.numel() for parameter in materials.network.parameters())
    memory = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else peak_mb()
    return TrainingForecast(spec, data, str(device), parameters, seconds, memory)


def _seconds_of_step(spec: TrainSpec, materials: Materials, device: torch.device) -> float:
    """Seconds of a step, by real ones: patches read, learnt from."""
    network = materials.network.to(device)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = make_optimiser(network, spec.optimise)
    loss = loss_function(spec.loss, weights=class_weights(spec.loss, materials.counts))
    manner = Manner(loss, device, spec.optimise.clip, precision_of(spec, device) == "bf16")
    with alike_each_time(spec):
        start = time.perf_counter()
        for number, batch in enumerate(materials.loader.batches(1, WARM + STEPS), 1):
            float(train_step(network, batch, optimiser, manner=manner)[0])  # waits for the device
            if number == WARM:
                start = time.perf_counter()
        return (time.perf_counter() - start) / STEPS
