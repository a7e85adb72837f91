"""Scenes: from what the user named to what a worker opens.

A `ScenePlan` is plain data: everything about one scene that was decided before its first tile. A worker opens it,
once per process, and needs nothing else.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import JobError
from tilesseg.fit import check_range, choose_bands, resolution_note, scene_statistics, value_range
from tilesseg.formats import open_source
from tilesseg.formats.scene_name import scene_name
from tilesseg.grid import Grid
from tilesseg.layout import Layout, choose_layout
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


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What was decided for one scene. Stored in `plan.json`, and all that a worker needs to open it."""

    name: str
    paths: tuple[str, ...]
    bands: tuple[int, ...]
    scale: float | None
    offset: float | None
    resolution: float | None
    grid: Grid
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

    @property
    def tiling(self) -> Tiling:
        return self.layout.tiling(self.grid.shape)

    def recipe(self, spec: ModelSpec, *, scores: tuple[int, ...] = ()) -> Recipe:
        return Recipe(self.layout.blend, spec.normalisation(self.subtract, self.divide), self.layout.batch, scores)

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
        source = open_source(self.paths, scale=self.scale, offset=self.offset, resolution=self.resolution)
        return source.select(self.bands)


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
        return (Scene(entry.name or scene_name(paths[0]), paths),)
    if not any(sign in entry for sign in "*?[") or Path(entry).exists():
        return (Scene(scene_name(entry), (entry,)),)
    found = sorted(glob.glob(entry, recursive=True))
    if not found:
        raise JobError(f"no image matches {entry}; 0 files found")
    return (Scene(scene_name(path), (path,)) for path in found)


def open_scene(scene: Scene, how: jobs.Input) -> Source:
    """The image as the job reads it, with all its bands.

    Raises:
        SourceError: it cannot be opened.
    """
    return open_source(scene.paths, scale=how.scale, offset=how.offset, resolution=how.resolution)


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
    source = open_scene(scene, how)
    bands, notes = choose_bands(source, spec.bands, how.bands, image=scene.paths[0])
    source = source.select(bands)
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
    plan = ScenePlan(
        name=scene.name,
        paths=scene.paths,
        bands=bands,
        scale=how.scale,
        offset=how.offset,
        resolution=how.resolution,
        grid=source.grid,
        itemsize=source.dtype.itemsize,
        identity=source.identity(),
        layout=choose_layout(source.grid.shape, spec, asked.tiling, slots=slots, device=device),
        subtract=subtract,
        divide=divide,
        range=span,
        notes=(*notes, *source.describe().get("notes", ())),
    )
    return with_stage(plan, source, how.stage)
