"""Scene plans: from a scene that a job names to what a worker opens.

A `ScenePlan` is plain data: everything about one scene that was decided before its first tile. A worker opens it,
once per process, and needs nothing else. `draft_scene` decides everything that can be refused at little cost,
`complete_draft` the region of interest, which takes a look at the whole image.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError, StoreError, cannot, joined_lines
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.paths import unsigned, without_secrets
from tilesseg.planning.alpha_choice import resolve_alpha
from tilesseg.planning.band_choice import choose_bands
from tilesseg.planning.gap_notes import gap_notes
from tilesseg.planning.pixel_contract import contract_resolution, refuse_enlarging, refuse_shrinking, resolution_note
from tilesseg.planning.plan import PLAN_FILE
from tilesseg.planning.recipe import Recipe
from tilesseg.planning.roi_choice import choose_cells, region_identity
from tilesseg.planning.scene_list import Scene
from tilesseg.planning.staging import choose_stage
from tilesseg.planning.tile_layout import Layout, choose_layout, why_patch
from tilesseg.planning.value_range import check_range, scene_statistics, scene_values
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window
from tilesseg.store.staged_copy import CopyLayout, StagedCopy

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs
    from tilesseg.planning.plan import Plan
    from tilesseg.raster.tiling import Tiling
    from tilesseg.store.scene_store import Store


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers that a model's normalisation subtracts and divides by, for each band of a scene."""

    subtract: tuple[float, ...]
    divide: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """Everything that was decided for one scene. Stored in `plan.json`, and enough for a worker to open the scene."""

    name: str
    paths: tuple[str, ...]
    bands: tuple[int, ...]
    opening: Opening
    grid: Grid
    image: Grid
    """The image's own finest grid."""
    itemsize: int
    """Number of bytes of one value as it is read."""
    identity: dict[str, Any]
    """State of the scene's files, which a run that goes on compares."""
    layout: Layout
    subtract: tuple[float, ...]
    divide: tuple[float, ...]
    range: tuple[float, float] | None = None
    """The scene's 2–98 % range, or None where no valid pixel was sampled."""
    notes: tuple[str, ...] = field(default=())
    decode_factor: float = 1.0
    """Read amplification of the image itself: decoded ÷ needed pixels."""
    stage: CopyLayout | None = None
    """Layout of the image's copy in Zarr, or None where the image is read directly."""
    cells: RoiCells | None = None
    """Region of interest, or None where it is the whole image."""
    others: tuple[Statistics, ...] = ()
    """Numbers of the further models of an ensemble; `subtract` and `divide` are those of the first."""

    @property
    def tiling(self) -> Tiling:
        return self.layout.tiling(self.grid.shape)

    def recipe(self, plan: Plan) -> Recipe:
        numbers = (Statistics(self.subtract, self.divide), *self.others)
        first, *others = [
            spec.normalisation(own.subtract, own.divide) for spec, own in zip(plan.specs, numbers, strict=True)
        ]
        return Recipe(self.layout.blend, first, self.layout.batch, plan.scores, self.cells, tuple(others))

    def fingerprint(self, plan: Plan) -> str:
        """Hash of exactly that which the mask is made from: input, network, normalisation, tiling, blending, scores."""
        left_out = {"stage", "decode_factor", "notes", *([] if self.others else ["others"])}
        scene = _SCENE.dump_python(self, mode="json", exclude=left_out)
        made_from = {
            "format": plan.format,
            "rules": plan.rules,
            "model": [plan.model_sha256, *plan.compute.arithmetic],
            "scores": plan.scores,
            "scene": {**scene, "paths": [*map(unsigned, self.paths)]},
            **({"averages": plan.averages} if plan.averages else {}),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    @property
    def outside(self) -> int:
        """Number of pixels outside the region of interest."""
        return self.grid.window.area - self.cells.pixels(self.grid.shape) if self.cells else 0

    @property
    def stage_note(self) -> str | None:
        """Note about a copy that is made first, for people."""
        if self.stage is None:
            return None
        return f"copied to Zarr first (read amplification of the image: {self.decode_factor:.1f}×)"

    @staticmethod
    def copy_in(folder: Path) -> StagedCopy:
        """The copy of the image in the scene's folder of a run."""
        return StagedCopy(folder / "staged")

    def open_for_tiles(self, folder: Path) -> Source:
        """The planned bands as tiles read them: from the copy in the scene's folder, where there is one."""
        copy = self.copy_in(folder)
        return copy.open(self.stage) if self.stage and copy.image.exists() else self.open()

    def open(self) -> Source:
        """The image itself, reading the planned bands."""
        return open_source(self.paths, self.opening).select(self.bands)


_SCENE: TypeAdapter[ScenePlan] = TypeAdapter(ScenePlan)


def scene_to_json(scene: ScenePlan) -> Any:
    """A scene's plan as `plan.json` in its folder holds it."""
    return _SCENE.dump_python(scene, mode="json")


def parse_scene_plan(data: Any, *, where: Path) -> ScenePlan:
    """A stored plan of a scene.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return _SCENE.validate_python(data)
    except ValueError as error:
        problem = joined_lines(error)[:200]
        raise StoreError(f"{where}: {PLAN_FILE} is damaged ({problem}); delete {where} to do the scene again") from None


@dataclass(frozen=True, slots=True)
class SceneRun:
    """A planned scene and the place of its files: all that products, reports and records are made from."""

    store: Store
    plan: Plan
    scene: ScenePlan

    @property
    def fingerprint(self) -> str:
        """Hash of exactly that which the scene's mask is made from."""
        return self.scene.fingerprint(self.plan)


@dataclass(frozen=True, slots=True)
class SceneDraft:
    """A scene plan that still lacks the region of interest and the choice of a copy, with its opened image."""

    planned: ScenePlan
    image: Source
    """The image with all its bands."""
    reading: jobs.Input
    """Options of the job for reading this scene."""


@dataclass(frozen=True, slots=True)
class OpenedBands:
    """An image, opened as a network reads it."""

    image: Source
    """The image with all its bands."""
    source: Source
    """The image, reading the network's bands in their order."""
    opening: Opening
    bands: tuple[int, ...]
    """Indices of the network's bands, from 0."""
    notes: tuple[str, ...]


def input_of(scene: Scene, job: jobs.Job) -> jobs.Input:
    """Options for reading a scene: the scene's own go before those of the job."""
    return own_input(scene, job.input)


def own_input(scene: Scene, reading: jobs.Input) -> jobs.Input:
    """Options for reading a scene, where those for all scenes are `reading`."""
    if not scene.input:
        return reading
    own = type(reading).model_validate(scene.input)
    return reading.model_copy(update={key: getattr(own, key) for key in scene.input})


def open_scene(scene: Scene, reading: jobs.Input) -> Source:
    """The image as the job reads it, with all its bands.

    Raises:
        SourceError: it cannot be opened.
    """
    return open_source(scene.paths, reading.opening(scene.mpp))


def scene_identity(source: Source, scene: Scene, reading: jobs.Input) -> dict[str, Any]:
    """State of the image, and of the file with the region of interest where there is one."""
    return {**source.identity(), **region_identity(reading, scene.name)}


def with_stage(planned: ScenePlan, source: Source, option: str) -> ScenePlan:
    """A scene's plan with the choice whether its image is copied first. The mask does not depend on it."""
    stage, factor = choose_stage(source, planned.tiling, option)
    return replace(planned, stage=stage, decode_factor=factor)


def draft_scene(scene: Scene, *, job: jobs.Job, plan: Plan) -> SceneDraft:
    """Decide everything about one scene but its region of interest. No more is read than a sample of the image.

    Raises:
        SourceError: the image cannot be read or does not fit the model.
        JobError: the tiling options do not fit the model.
    """
    reading, spec = input_of(scene, job), plan.spec
    opened = open_bands(scene, reading=reading, spec=spec, options=job.tiling)
    source, notes = opened.source, opened.notes
    itemsize = source.dtype.itemsize
    planned = ScenePlan(
        name=scene.name,
        paths=scene.paths,
        bands=opened.bands,
        opening=opened.opening,
        grid=source.grid,
        image=source.native,
        itemsize=itemsize,
        identity=scene_identity(source, scene, reading),
        layout=choose_layout(source.grid.shape, spec, job.tiling, compute=plan.compute, itemsize=itemsize),
        subtract=(),
        divide=(),
        notes=(*plan.notes, *notes),
    )
    if not plan.needs_scene:  # a wrong unit is refused before anything takes time
        planned = _with_values(planned, source, reading, plan.specs)
    return SceneDraft(planned, opened.image, reading)


def open_bands(scene: Scene, *, reading: jobs.Input, spec: ModelSpec, options: jobs.TilingOptions) -> OpenedBands:
    """Open an image as a network reads it: at the pixel size, with the bands and the mask that its contract asks for.

    Args:
        scene: the scene.
        reading: options of reading it.
        spec: the network's contract.
        options: options of cutting it into patches.

    Raises:
        SourceError: the image cannot be read or does not fit the network.
    """
    opening, source = _at_contract(scene, reading.opening(scene.mpp), spec, options)
    source.refuse_damaged()
    source, opening, selected = resolve_alpha(
        source, opening, paths=scene.paths, wanted=spec.bands, selected=reading.bands
    )
    bands, notes = choose_bands(source, spec.bands, selected, image=scene.paths[0])
    size_note = resolution_note(source.grid, spec)
    return OpenedBands(source, source.select(bands), opening, bands, (*notes, *([size_note] if size_note else [])))


def _at_contract(
    scene: Scene, opening: Opening, spec: ModelSpec, options: jobs.TilingOptions
) -> tuple[Opening, Source]:
    """The image at the pixel size that job or model state, and the options that open it so.

    Raises:
        SourceError: it cannot be opened, its pixel size is not known, or resampling would enlarge it more than 4 times
            or make it smaller than a patch.
    """
    image = scene.paths[0]
    own = open_source(scene.paths, opening.without_resolution())
    refused = own.describe().get("mpp_refused")
    wanted = contract_resolution(own.native, spec, opening, image=image, refused=refused)
    if wanted is None:
        return opening, own
    opening = replace(opening, resolution=wanted)
    source = open_source(scene.paths, opening)
    refuse_enlarging(own.grid, source.grid, image=image)
    refuse_shrinking(own.grid, source.grid, spec, options, image=image)
    return opening, source


def cut_anew(draft: SceneDraft, *, job: jobs.Job, plan: Plan) -> SceneDraft:
    """The draft with the layout of another plan: its speeds have been measured since."""
    planned = draft.planned
    shape, itemsize = planned.grid.shape, planned.itemsize
    layout = choose_layout(shape, plan.spec, job.tiling, compute=plan.compute, itemsize=itemsize)
    return replace(draft, planned=replace(planned, layout=layout))


def complete_draft(draft: SceneDraft, *, plan: Plan) -> ScenePlan:
    """Choose the region of interest, compute statistics of it, and choose whether the image is copied first.

    Raises:
        SourceError: the file with the region of interest cannot be read, or touches nothing of the image; or the model
            needs statistics of the scene, and no pixel is valid.
    """
    planned, source = draft.planned, draft.image.select(draft.planned.bands)
    reason = why_patch(planned.grid.shape, planned.layout, plan.compute.speeds)
    stride = planned.layout.lattice.stride
    cells, looked = choose_cells(draft.image, draft.reading, stride=stride, paths=planned.paths, name=planned.name)
    planned = replace(planned, cells=cells)
    if plan.needs_scene:
        planned = _with_values(planned, source, draft.reading, plan.specs)
    own = source.describe().get("notes", ())
    notes = tuple(map(without_secrets, (*planned.notes, *([reason] if reason else []), *looked, *own)))
    return with_stage(replace(planned, notes=notes), source, draft.reading.stage)


def _with_values(planned: ScenePlan, source: Source, reading: jobs.Input, specs: tuple[ModelSpec, ...]) -> ScenePlan:
    """A scene's plan with statistics and range of its values, and notes on them.

    Args:
        planned: the plan; a model that needs statistics of the scene gets them of its region of interest.
        source: the image, reading the planned bands.
        reading: options of the job for reading this scene.
        specs: specs of the models.

    Raises:
        SourceError: the values are in another unit, or no pixel is valid of a scene whose statistics are needed.
    """
    image, cells = planned.paths[0], planned.cells
    unread: list[Window] = []
    sample = source.sample(cells, unread)
    if unread:
        pixels = sum(window.area for window in set(unread))
        left_out = f"{pixels:,} px that were sampled for statistics cannot be decoded, and are left out of them"
        planned = replace(planned, notes=(*planned.notes, doubt("damaged-pixels", left_out)))
    values = scene_values(sample, source)
    if values is None:
        nothing = np.zeros((len(planned.bands), 1))  # nowhere a value that these statistics would change
        if any(spec.normalise.needs_scene for spec in specs) and not (cells and not cells.in_roi.any()):
            why = "the model is normalised by the scene's statistics, and the scene has no valid pixel"
            raise SourceError(cannot(f"segment {image}", why, "check its nodata value or mask, or leave the scene out"))
        note = doubt("no-valid-pixel", "no valid pixel was found in the whole image: the mask is all nodata")
        return _with_statistics(planned, nothing, specs, [note])
    given = reading.scale is not None or reading.offset is not None
    of_range = [check_range(values, spec, image=image, given=given) for spec in specs if reading.check_range]
    planned = replace(planned, notes=(*planned.notes, *gap_notes(sample, source)), range=values.span)
    return _with_statistics(planned, sample, specs, [*dict.fromkeys(note for note in of_range if note)])


def _with_statistics(
    planned: ScenePlan, sample: NDArray[np.float64], specs: tuple[ModelSpec, ...], notes: list[str]
) -> ScenePlan:
    first, *others = [Statistics(*scene_statistics(sample, spec)) for spec in specs]
    notes_now = (*planned.notes, *notes)
    return replace(planned, subtract=first.subtract, divide=first.divide, others=tuple(others), notes=notes_now)
