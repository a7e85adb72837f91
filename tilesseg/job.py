"""What the user asked for: the job file, checked at the boundary and frozen.

Every key is known or refused; a value of `auto` is decided once, by the plan. Print the JSON Schema with
`tilesseg schema job`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tilesseg.errors import JobError, first_problem

Auto = Literal["auto"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SceneEntry(_Strict):
    """One scene, where a path alone does not say enough."""

    image: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A file, a folder of single-band files, or a list of files that make one image."""
    name: str | None = Field(None, pattern=r"^[^/\\]+$")
    """Names the scene's folder and products; default: the file's name without its suffix."""


class Input(_Strict):
    """How the images are read."""

    bands: Annotated[tuple[str | int, ...], Field(min_length=1)] | None = None
    """Bands for the model's channels, in its order: names, or numbers from 1. Default: by the model's band names."""
    scale: float | None = None
    """Multiply the values by this; default: the file's own scale tag."""
    offset: float | None = None
    """Add this after `scale`; default: the file's own offset tag."""
    resolution: float | None = Field(None, gt=0)
    """Resample to this pixel size, in the unit of the image's CRS; default: the native grid."""
    stage: Literal["auto", "always", "never"] = "auto"
    """Copy the image to Zarr first and read it from there; auto: where reading it as it is decodes more than twice
    the pixels that are needed."""
    check_range: bool = True
    """Refuse a scene whose values do not fit the model's `input_range`."""


class Tiling(_Strict):
    """How the scene is cut. The mask depends on patch, overlap, margin and blend; never on the core."""

    patch: Annotated[int, Field(ge=1)] | Auto = "auto"
    overlap: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Pixels that neighbouring patches share, for the blended modes; auto: a quarter of the patch."""
    margin: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Pixels that crop discards at each side; auto: the model's."""
    blend: Literal["auto", "gaussian", "linear", "hann", "crop"] = "auto"
    """auto: crop where the model's margin and patch allow it, else gaussian."""
    core: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Side of a tile's core in pixels: a multiple of the stride (crop) or of 64 (blended)."""
    batch: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Patches a call of the network gets."""


class Product(_Strict):
    """One file to write when a scene is finished."""

    format: Literal["cog", "scores-cog"] = "cog"
    """`cog`: the mask. `scores-cog`: the stored scores, a band for each class; see `output.scores`."""
    path: str | None = None
    """Where; `{scene}` stands for the scene's name. Default: `<output.dir>/scenes/<scene>/<scene>.tif`, and
    `<scene>-scores.tif` for scores."""
    overviews: Literal["mode", "nearest"] = "mode"
    """Of a mask; those of scores are means."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """`scores-cog` only: of the classes whose scores are stored, those to write. Default: all."""

    @model_validator(mode="after")
    def _consistent(self) -> Product:
        if self.classes is not None and self.format != "scores-cog":
            raise ValueError(f"format {self.format} takes no classes, only scores-cog does")
        return self


class Output(_Strict):
    """Where the run directory is, and what is written from it."""

    dir: str
    products: tuple[Product, ...] = (Product(),)
    scores: bool | Annotated[tuple[str, ...], Field(min_length=1)] = False
    """Also store the scores, as uint8 (0–250 for 0–1, 255 nodata): of all classes, or of those named."""
    preview: bool = True
    """A quick-look PNG beside the first product."""


class Cluster(_Strict):
    """Who works."""

    kind: Literal["local", "address", "serial", "threads"] = "local"
    """`local`: worker processes on this machine. `address`: a running Dask scheduler. `serial`, `threads`: no Dask."""
    workers: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Worker processes (local); auto: one per GPU; else one per core up to four, then one for every four cores."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Tiles at the same time in each worker; auto: 2, so that reading and writing overlap computing."""
    engine_threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Threads the network computes with in each worker; auto: the cores divided by the workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    address: str | None = None
    """Of the scheduler, as `tcp://host:8786`."""

    @model_validator(mode="after")
    def _consistent(self) -> Cluster:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("kind address needs an address, and no other kind takes one")
        return self


class Job(_Strict):
    """One model over one or many scenes."""

    name: str = "job"
    scenes: str | SceneEntry | Annotated[tuple[str | SceneEntry, ...], Field(min_length=1)]
    """A path, a glob, a list, or entries with an image and a name."""
    model: str
    """A bundle folder, a weights file with its spec, `package://name/path`, an https URL, or a name."""
    input: Input = Input()
    tiling: Tiling = Tiling()
    output: Output
    cluster: Cluster = Cluster()


def parse_job(data: Any, *, where: str) -> Job:
    """Check a job given as plain data; `where` names it in the refusal.

    Raises:
        JobError: something is missing, unknown or impossible.
    """
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {first_problem(error)}; see tilesseg schema job") from None


def read_job(path: Path) -> Job:
    """Read a job file. Relative paths in it are meant from the folder it lies in.

    Raises:
        JobError: the file is missing, is not YAML, or asks for something unknown.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError(f"no job file at {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return _anchored(parse_job(data, where=str(path)), path.parent)


def _anchored(job: Job, folder: Path) -> Job:
    """The job with its relative paths made relative to the current directory."""

    def anchor(path: str) -> str:
        return path if "://" in path else str(folder / path)

    def scene(entry: str | SceneEntry) -> str | SceneEntry:
        if isinstance(entry, str):
            return anchor(entry)
        image = anchor(entry.image) if isinstance(entry.image, str) else tuple(map(anchor, entry.image))
        return entry.model_copy(update={"image": image})

    scenes = tuple(map(scene, job.scenes)) if isinstance(job.scenes, tuple) else scene(job.scenes)
    products = tuple(p.model_copy(update={"path": p.path and anchor(p.path)}) for p in job.output.products)
    output = job.output.model_copy(update={"dir": anchor(job.output.dir), "products": products})
    model = anchor(job.model) if (folder / job.model).exists() else job.model
    return job.model_copy(update={"scenes": scenes, "output": output, "model": model})


def parse_product(data: Any, *, where: str) -> Product:
    """Check one product given as plain data.

    Raises:
        JobError: an unknown format or option.
    """
    try:
        return Product.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {first_problem(error)}") from None
