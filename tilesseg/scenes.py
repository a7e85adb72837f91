"""Scenes: from what the user named to what a worker opens.

A `ScenePlan` is plain data: everything about one scene that was decided before its first tile. A worker opens it,
once per process, and needs nothing else.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import JobError
from tilesseg.fit import check_range, choose_bands, resolution_note, scene_statistics, value_range
from tilesseg.formats import open_source
from tilesseg.grid import Grid
from tilesseg.layout import Layout, choose_layout
from tilesseg.segment import Recipe

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

    @property
    def tiling(self) -> Tiling:
        return self.layout.tiling(self.grid.shape)

    def recipe(self, spec: ModelSpec) -> Recipe:
        return Recipe(self.layout.blend, spec.normalisation(self.subtract, self.divide), self.layout.batch)

    def open(self) -> Source:
        """The image, reading the planned bands."""
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
        return (Scene(entry.name or _stem(paths[0]), paths),)
    if not any(sign in entry for sign in "*?[") or Path(entry).exists():
        return (Scene(_stem(entry), (entry,)),)
    found = sorted(glob.glob(entry, recursive=True))
    if not found:
        raise JobError(f"no image matches {entry}; 0 files found")
    return (Scene(_stem(path), (path,)) for path in found)


def _stem(path: str) -> str:
    return Path(path).name.partition(".")[0] or "scene"


def identify(scene: Scene, how: jobs.Input) -> dict[str, Any]:
    """What a resumed run compares: see `formats.Source.identity`.

    Raises:
        SourceError: the image cannot be opened.
    """
    return _open(scene, how).identity()


def _open(scene: Scene, how: jobs.Input) -> Source:
    return open_source(scene.paths, scale=how.scale, offset=how.offset, resolution=how.resolution)


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
    source = _open(scene, how)
    bands, notes = choose_bands(source, spec.bands, how.bands, image=scene.paths[0])
    source = source.select(bands)
    sample = source.sample()
    span = value_range(sample)
    if span is None:
        notes.append("no valid pixel was found in the sample: the mask may be all nodata")
    elif how.check_range:
        check_range(span, spec, image=scene.paths[0], scaling=_scaling(source))
    size_note = resolution_note(source.grid, spec)
    notes += [size_note] if size_note else []
    subtract, divide = scene_statistics(sample, spec)
    return ScenePlan(
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
