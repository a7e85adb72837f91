"""Scenes: from what the user named to what a worker opens.

A `ScenePlan` is plain data: everything about one scene that was decided before its first tile. A worker opens it,
once per process, and needs nothing else.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tilesseg.cells import Cells
from tilesseg.errors import JobError, first_problem
from tilesseg.fit import (
    check_range,
    choose_bands,
    contract_resolution,
    resolution_note,
    scene_statistics,
    value_range,
)
from tilesseg.formats import open_source
from tilesseg.formats.opening import Opening
from tilesseg.formats.scene_name import scene_name
from tilesseg.grid import Grid
from tilesseg.layout import Layout, choose_layout
from tilesseg.look import choose_cells, region_identity
from tilesseg.segment import Recipe
from tilesseg.stage import Stage, StageLayout, choose_stage

if TYPE_CHECKING:
    from tilesseg import job as jobs
    from tilesseg.formats import Source
    from tilesseg.models.spec import ModelSpec
    from tilesseg.tiling import Tiling


@dataclass(frozen=True, slots=True)
class Scene:
    """One input image with its own outputs."""

    name: str
    paths: tuple[str, ...]
    mpp: float | None = None
    """Micrometres per pixel, where the job says it of this scene."""


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
    stage: StageLayout | None = None
    """How the image is copied to Zarr first, or None where it is read as it is."""
    cells: Cells | None = None
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

    def copy_in(self, folder: Path) -> Stage:
        """The copy of the image that belongs into the scene's folder of a run."""
        return Stage(folder / "staged")

    def open_for_tiles(self, folder: Path) -> Source:
        """The planned bands as tiles read them: from the copy in the scene's folder, where there is one."""
        copy = self.copy_in(folder)
        return copy.open(self.stage) if self.stage and copy.image.exists() else self.open()

    def open(self) -> Source:
        """The image itself, reading the planned bands."""
        return open_source(self.paths, self.opening).select(self.bands)


def find_scenes(asked: str | jobs.SceneEntry | Sequence[str | jobs.SceneEntry]) -> tuple[Scene, ...]:
    """The scenes that a job names, in order: paths, globs, folders of bands, entries.

    Raises:
        JobError: a glob matches nothing, or two scenes have one name.
    """
    entries = asked if isinstance(asked, tuple) else (asked,)
    scenes = [scene for entry in entries for scene in _expand(entry)]
    named: dict[str, Scene] = {}
    for scene in scenes:
        other = named.setdefault(scene.name, scene)
        if other is not scene:
            raise JobError(
                f"two scenes are called {scene.name}: {other.paths[0]} and {scene.paths[0]}; give one a name"
            )
    return tuple(scenes)


def _expand(entry: str | jobs.SceneEntry) -> Iterable[Scene]:
    if not isinstance(entry, str):
        paths = (entry.image,) if isinstance(entry.image, str) else entry.image
        return (Scene(entry.name or scene_name(paths[0]), paths, entry.mpp),)
    if entry.lower().endswith(".csv"):
        return read_scene_table(Path(entry))
    if not any(sign in entry for sign in "*?[") or Path(entry).exists():
        return (Scene(scene_name(entry), (entry,)),)
    found = sorted(glob.glob(entry, recursive=True))
    if not found:
        raise JobError(f"no image matches {entry}; 0 files found")
    return (Scene(scene_name(path), (path,)) for path in found)


def read_scene_table(path: Path) -> tuple[Scene, ...]:
    """The scenes of a CSV with the columns `image` and, where wanted, `name` and `mpp`, in its order.

    Relative paths are meant from the folder of the table. An empty field is as if it were not there.

    Raises:
        JobError: there is no such file, a column is unknown, or a row says something impossible.
    """
    from tilesseg.job import SceneEntry

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey="more"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise JobError(f"{path} cannot be read as a table of scenes: {error}") from None
    if not rows:
        raise JobError(f"{path} has no scenes: it needs a line of column names with image, and a line for each scene")
    scenes: list[Scene] = []
    for number, row in enumerate(rows, start=2):
        fields = {key: value for key, value in row.items() if value}
        try:
            entry = SceneEntry.model_validate(fields)
        except ValidationError as error:
            raise JobError(f"{path}, line {number}: {first_problem(error)}; columns are image, name, mpp") from None
        image = str(entry.image) if "://" in str(entry.image) else str(path.parent / str(entry.image))
        scenes.append(Scene(entry.name or scene_name(image), (image,), entry.mpp))
    return tuple(scenes)


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


def plan_scene(scene: Scene, *, asked: jobs.Job, spec: ModelSpec, slots: int, device: str) -> ScenePlan:
    """Decide everything about one scene; every refusal of a scene is raised here.

    Args:
        scene: the image.
        asked: the job.
        spec: the model's contract.
        slots: tiles that will be worked on at the same time.
        device: `cpu` or `cuda`, for the batch size.

    Raises:
        SourceError: the image cannot be read or does not fit the model.
        JobError: the tiling asked for does not fit the model.
    """
    how = asked.input
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
    layout = choose_layout(source.grid.shape, spec, asked.tiling, slots=slots, device=device)
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
