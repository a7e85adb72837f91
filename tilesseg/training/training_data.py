"""Data of a training: its scenes opened and split, their pixels counted by class, and what was learnt of their values.

Every refusal of the data comes from here, before the first step. Memory does not grow with the scenes: labels are
counted in windows, and values are sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import JobError, SourceError
from tilesseg.models.spec import ModelSpec, PatchSizes
from tilesseg.planning.scene_plan import own_input
from tilesseg.planning.value_range import SceneValues, check_range, scene_statistics, scene_values
from tilesseg.process import available_cores
from tilesseg.raster.labels import NODATA
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.training.class_cells import ClassCells, count_cells
from tilesseg.training.labelled_scenes import LabelledScene, NamedScene, find_labelled, open_labelled
from tilesseg.training.learnt_contract import Sampled, draft_contract, learn_contract, states_normalise
from tilesseg.training.networks import check_start, start_bundle
from tilesseg.training.patch_sampling import Geometry, PatchSampler, SampledScene, largest_side
from tilesseg.training.split import PARTS, Part, PartMap, SplitScene, split_scenes
from tilesseg.training.train_spec import TrainSpec
from tilesseg.training.trained_bundle import check_onnx

USUAL = 128
"""Side in pixels of the smallest patch that is chosen."""


@dataclass(frozen=True)
class TrainingData:
    """Scenes of a training, and the contract of the network to be."""

    scenes: tuple[LabelledScene, ...]
    parts: Mapping[str, PartMap]
    """Part of each pixel, by the scene's name."""
    cells: Mapping[str, Mapping[Part, ClassCells]]
    """Pixels of each class, by the scene's name and the part."""
    spec: ModelSpec
    """Contract of the network to be; no weights yet."""
    geometry: Geometry

    def pixels(self, part: Part) -> NDArray[np.int64]:
        """Number of labelled, valid pixels of each class in a part."""
        counts = [cells[part].pixels for cells in self.cells.values() if part in cells]
        total: NDArray[np.int64] = np.sum([np.zeros(len(self.spec.classes), np.int64), *counts], axis=0, dtype=np.int64)
        return total

    def sampler(self, spec: TrainSpec) -> PatchSampler:
        """Sampler of the part that trains."""
        scenes = [
            SampledScene(number, scene, scene.source.grid.shape, self.parts[scene.name], cells)
            for number, scene in enumerate(self.scenes)
            if (cells := self.cells[scene.name].get("train")) is not None and cells.pixels.any()
        ]
        return PatchSampler(scenes, self.geometry, spec.sampling, spec.augment, spec.seed)


def gather(spec: TrainSpec) -> TrainingData:
    """Open, split and count all scenes, and learn of the part that trains.

    Raises:
        JobError: the spec does not fit the data.
        SourceError: an image or its labels cannot be read, or do not fit one another.
        ModelError: numbers of the spec do not fit the bands, or the bundle to start from cannot be read.
    """
    if spec.output.onnx:
        check_onnx()
    named = find_labelled(spec.data, spec.split)
    started = start_bundle(spec.network).spec if spec.network.start else None
    draft = draft_contract(spec, named[0], started)
    if started is not None:
        check_start(spec, started, bands=spec.bands or started.bands)
    _refuse_stain(spec, draft)
    opened = [open_labelled(one, reading=spec.input, spec=draft) for one in named]
    patch = choose_patch(spec.sampling.patch, draft.patch, draft.margin, [one.source.grid.shape for one in opened])
    parts = split_scenes(_facts(named, opened), spec.split, patch=largest_side(patch, spec.augment.scale))
    cells = _count(opened, parts, len(spec.classes))
    _refuse_empty(spec, cells)
    looks = [_look(one, draft, parts[one.name], cells[one.name].get("train")) for one in opened]
    _refuse_twins(looks, parts)
    contract, scenes = _learn(spec, draft, named, looks, started)
    return TrainingData(tuple(scenes), parts, cells, contract, Geometry(patch, draft.patch.shrink))


def choose_patch(wanted: int | str, sizes: PatchSizes, margin: int | None, shapes: Sequence[tuple[int, int]]) -> int:
    """Side of a training patch in pixels.

    Args:
        wanted: the user's side, or `auto`: the smallest legal one from 128 on, of at least twice the margin, that a
            scene holds; where none does, the largest legal one that a scene holds.
        sizes: sides that the network takes.
        margin: its margin, if it is known.
        shapes: shapes of the scenes.

    Raises:
        JobError: the network does not take the user's side.
    """
    if isinstance(wanted, int):
        if not sizes.legal(wanted):
            near = sizes.at_least(wanted)
            raise JobError(f"sampling.patch is {wanted} and the network takes {sizes.rule}; write {near}")
        return wanted
    usual = sizes.at_least(max(USUAL, 2 * (margin or 0)))
    held = max(min(shape) for shape in shapes)
    legal = [side for side in range(1, min(held, usual) + 1) if sizes.legal(side)]
    return usual if usual <= held or not legal else legal[-1]


def _refuse_stain(spec: TrainSpec, draft: ModelSpec) -> None:
    if spec.augment.stain and len(draft.bands) != 3:
        raise JobError(
            f"augment.stain changes red, green and blue, and the network takes {len(draft.bands)} bands "
            f"({', '.join(draft.bands)}); write stain: 0"
        )


def _facts(named: Sequence[NamedScene], opened: Sequence[LabelledScene]) -> list[SplitScene]:
    return [
        SplitScene(scene.name, one.scene.paths[0], scene.source.grid, scene.source.native, one.row)
        for one, scene in zip(named, opened, strict=True)
    ]


def _count(
    scenes: Sequence[LabelledScene], parts: Mapping[str, PartMap], classes: int
) -> dict[str, dict[Part, ClassCells]]:
    threads = min(4, available_cores())
    return {
        scene.name: count_cells(scene, scene.source.grid.shape, classes, parts=parts[scene.name], threads=threads)
        for scene in scenes
    }


def _refuse_empty(spec: TrainSpec, cells: Mapping[str, Mapping[Part, ClassCells]]) -> None:
    """Refuse a part without any labelled pixel, and a class that no pixel for training has."""
    for part in PARTS:
        held = {name: own[part].pixels for name, own in cells.items() if part in own}
        total = np.zeros(len(spec.classes), np.int64) + sum(held.values())
        if not total.any() and (held or part == "train"):
            names = ", ".join(list(held)[:3]) or "no scene"
            raise JobError(
                f"the part {part} ({names}) has no labelled pixel with data, of {len(cells)} scenes; correct split, or "
                "the labels"
            )
        if part == "train":
            _refuse_unseen(spec, total, cells)


def _refuse_unseen(spec: TrainSpec, total: NDArray[np.int64], cells: Mapping[str, Mapping[Part, ClassCells]]) -> None:
    for label, seen in enumerate(total.tolist()):
        if not seen:
            elsewhere = [name for name, own in cells.items() if any(one.pixels[label] for one in own.values())]
            where = (
                f"only scenes that do not train, such as {elsewhere[0]}, have it" if elsewhere else "no scene has it"
            )
            raise JobError(
                f"class {spec.classes[label].name} is one of {len(total)}, and no pixel that trains has it: {where}; "
                "change split, or leave the class out"
            )


def _learn(
    spec: TrainSpec,
    draft: ModelSpec,
    named: Sequence[NamedScene],
    looks: Sequence[SceneLook],
    started: ModelSpec | None,
) -> tuple[ModelSpec, list[LabelledScene]]:
    """Contract of the network to be, and the scenes normalised by it."""
    contract, opened = draft, [look.scene for look in looks]
    if started is None or states_normalise(spec):
        contract = learn_contract(draft, spec.normalise, opened, [look.train for look in looks if look.train])
    scenes = []
    for one, look in zip(named, looks, strict=True):
        note = _range_note(one, look, contract, spec)
        normalisation = contract.normalisation(*look.statistics) if look.statistics else contract.normalisation()
        scenes.append(look.scene.normalised(normalisation, contract.fill, [note] if note else []))
    return contract, scenes


@dataclass(frozen=True, slots=True)
class SceneLook:
    """Facts of a scene's sampled values."""

    scene: LabelledScene
    values: SceneValues
    digest: str | None
    """Hash of the values, or None where they are all the same."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Numbers to subtract and to divide by, where the contract takes those of the scene."""
    train: Sampled | None
    """Statistics of the pixels that train, where there are any."""


def _look(scene: LabelledScene, draft: ModelSpec, parts: PartMap, cells: ClassCells | None) -> SceneLook:
    """Facts of a scene's sampled values.

    Raises:
        SourceError: no pixel is valid.
    """
    sample = scene.source.sample(scene.cells)
    values = scene_values(sample, scene.source)
    if values is None:
        raise SourceError(f"scene {scene.name} has no valid pixel; check its nodata value or mask, or leave it out")
    plain = values.least == values.most
    digest = None if plain else hashlib.sha256(repr(scene.source.grid.shape).encode() + sample.tobytes()).hexdigest()
    statistics = scene_statistics(sample, draft) if draft.normalise.needs_scene else None
    pixels, codes = int(cells.pixels.sum()) if cells else 0, parts.codes == PARTS.index("train")
    if pixels and not codes.all():
        sample = scene.source.sample(RoiCells.of(codes, stride=parts.side, label=NODATA))
    train = Sampled.of(sample, pixels) if pixels and sample.size else None
    return SceneLook(scene, values, digest, statistics, train)


def _refuse_twins(looks: Sequence[SceneLook], parts: Mapping[str, PartMap]) -> None:
    """Refuse the same pixels under two names, where one trains and the other is scored."""
    seen = dict[str, str]()
    for look in looks:
        name = look.scene.name
        other = seen.setdefault(look.digest or name, name)
        first, second = ([part for part in PARTS if parts[one].holds(part)] for one in (other, name))
        if other != name and first != second:
            raise JobError(
                f"scenes {other} ({', '.join(first)}) and {name} ({', '.join(second)}) have the same pixels; leave one "
                "out, or keep both in one part"
            )


def _range_note(named: NamedScene, look: SceneLook, contract: ModelSpec, spec: TrainSpec) -> str | None:
    """Note about values in a doubtful unit, or None.

    Raises:
        SourceError: they are in another unit than those that train.
    """
    reading = own_input(named.scene, spec.input)
    if not reading.check_range:
        return None
    given = reading.scale is not None or reading.offset is not None
    return check_range(look.values, contract, image=named.scene.paths[0], given=given)
