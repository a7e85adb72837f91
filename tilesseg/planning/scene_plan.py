"""Scene plans: from a scene that a job names to what a worker opens.

A `ScenePlan` is plain data: everything about one scene that was decided before its first tile. A worker opens it,
once per process, and needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.planning.band_match import (
    check_range,
    choose_bands,
    contract_resolution,
    resolution_note,
    scene_statistics,
    value_range,
)
from tilesseg.planning.patch_speed import PatchSpeed
from tilesseg.planning.recipe import Recipe
from tilesseg.planning.roi_choice import choose_cells, region_identity
from tilesseg.planning.scene_list import Scene
from tilesseg.planning.staging import choose_stage
from tilesseg.planning.tile_layout import Layout, choose_layout, why_patch
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.store.staged_copy import CopyLayout, StagedCopy

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs
    from tilesseg.raster.tiling import Tiling


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What was decided for one scene. Stored in `plan.json`, and all that a worker needs to open it."""

    name: str
    paths: tuple[str, ...]
    bands: tuple[int, ...]
    opening: Opening
    grid: Grid
    image: Grid
    """The image's own finest grid."""
    itemsize: int
    """Bytes of one value as it is read."""
    identity: dict[str, Any]
    layout: Layout
    subtract: tuple[float, ...]
    divide: tuple[float, ...]
    range: tuple[float, float] | None = None
    """The scene's 2–98 % range, or None where no valid pixel was sampled."""
    notes: tuple[str, ...] = field(default=())
    decode_factor: float = 1.0
    """Decoded ÷ needed pixels, were the image read as it is."""
    stage: CopyLayout | None = None
    """How the image is copied to Zarr first, or None where it is read as it is."""
    cells: RoiCells | None = None
    """Where to look, or None where all of it is looked at."""

    @property
    def tiling(self) -> Tiling:
        return self.layout.tiling(self.grid.shape)

    def recipe(self, spec: ModelSpec, *, scores: tuple[int, ...] = ()) -> Recipe:
        normalisation = spec.normalisation(self.subtract, self.divide)
        return Recipe(self.layout.blend, normalisation, self.layout.batch, scores, self.cells)

    @property
    def outside(self) -> int:
        """How many pixels are not looked at."""
        return self.grid.window.area - self.cells.pixels(self.grid.shape) if self.cells else 0

    @property
    def stage_note(self) -> str | None:
        """What to say of a copy that is made first."""
        if self.stage is None:
            return None
        return f"copied to Zarr first: read as it is, {self.decode_factor:.1f} pixels are decoded for each one needed"

    @staticmethod
    def copy_in(folder: Path) -> StagedCopy:
        """The copy of the image that belongs into the scene's folder of a run."""
        return StagedCopy(folder / "staged")

    def open_for_tiles(self, folder: Path) -> Source:
        """The planned bands as tiles read them: from the copy in the scene's folder, where there is one."""
        copy = self.copy_in(folder)
        return copy.open(self.stage) if self.stage and copy.image.exists() else self.open()

    def open(self) -> Source:
        """The image itself, reading the planned bands."""
        return open_source(self.paths, self.opening).select(self.bands)


def input_of(scene: Scene, asked: jobs.Job) -> jobs.Input:
    """How a scene is read: what the job says, and before it what it says of this scene."""
    return asked.input.model_copy(update=scene_input(scene)) if scene.input else asked.input


def scene_input(scene: Scene) -> dict[str, Any]:
    """What the job says of the reading of this scene alone, checked."""
    from tilesseg.planning.job import Input

    own = Input.model_validate(scene.input)
    return {key: getattr(own, key) for key in scene.input}


def open_scene(scene: Scene, how: jobs.Input) -> Source:
    """The image as the job reads it, with all its bands.

    Raises:
        SourceError: it cannot be opened.
    """
    return open_source(scene.paths, how.opening(scene.mpp))


def scene_identity(source: Source, scene: Scene, how: jobs.Input) -> dict[str, Any]:
    """What resume compares: of the image, and of the file that says where to look, where there is one."""
    return {**source.identity(), **region_identity(how, scene.name)}


def with_stage(plan: ScenePlan, source: Source, asked: str) -> ScenePlan:
    """A scene's plan with the choice whether it is copied first. The mask does not depend on it."""
    stage, factor = choose_stage(source, plan.tiling, asked)
    return replace(plan, stage=stage, decode_factor=factor)


def _scaling(source: Source) -> tuple[float, float] | None:
    """Scale and offset with which the selected bands are read, or None where they differ."""
    bands = source.describe()["bands"]
    found = {(float(bands[i]["scale"]), float(bands[i]["offset"])) for i in source.selected}
    return found.pop() if len(found) == 1 else None


def plan_scene(
    scene: Scene,
    *,
    asked: jobs.Job,
    spec: ModelSpec,
    slots: int,
    device: str,
    speeds: Sequence[PatchSpeed] = (),
    parallel_batches: int = 1,
) -> ScenePlan:
    """Decide everything about one scene; every refusal of a scene is raised here.

    Args:
        scene: the image.
        asked: the job.
        spec: the model's contract.
        slots: tiles that will be worked on at the same time.
        device: `cpu` or `cuda`, for the batch size.
        speeds: what was measured of the network, by growing patch.
        parallel_batches: batches that a worker process computes at the same time.

    Raises:
        SourceError: the image cannot be read or does not fit the model.
        JobError: the tiling asked for does not fit the model.
    """
    how = input_of(scene, asked)
    opening = how.opening(scene.mpp)
    source = open_source(scene.paths, opening)
    wanted = contract_resolution(source.native, spec, opening, image=scene.paths[0])
    if wanted != opening.resolution:
        opening = replace(opening, resolution=wanted)
        source = open_source(scene.paths, opening)
    bands, notes = choose_bands(source, spec.bands, how.bands, image=scene.paths[0])
    image, source = source, source.select(bands)
    sample = source.sample()
    span = value_range(sample)
    if span is None:
        notes.append("no valid pixel was found in the sample: the mask may be all nodata")
    elif how.check_range:
        given = how.scale is not None or how.offset is not None
        check_range(span, spec, image=scene.paths[0], scaling=_scaling(source), given=given)
    size_note = resolution_note(source.grid, spec)
    notes += [size_note] if size_note else []
    subtract, divide = scene_statistics(sample, spec)
    shape, itemsize = source.grid.shape, source.dtype.itemsize
    layout = choose_layout(
        shape,
        spec,
        asked.tiling,
        slots=slots,
        device=device,
        itemsize=itemsize,
        speeds=speeds,
        parallel_batches=parallel_batches,
    )
    reason = why_patch(shape, layout, speeds)
    notes += [reason] if reason else []
    cells, looked = choose_cells(image, how, stride=layout.lattice.stride, paths=scene.paths, name=scene.name)
    plan = ScenePlan(
        name=scene.name,
        paths=scene.paths,
        bands=bands,
        opening=opening,
        grid=source.grid,
        image=source.native,
        itemsize=source.dtype.itemsize,
        identity=scene_identity(source, scene, how),
        layout=layout,
        subtract=subtract,
        divide=divide,
        range=span,
        notes=(*notes, *looked, *source.describe().get("notes", ())),
        cells=cells,
    )
    return with_stage(plan, source, how.stage)
