"""What the user asked for: the job file, checked at the boundary and frozen.

Every key is known or refused; a value of `auto` is decided once, by the plan. Print the JSON Schema with
`tilesseg schema job`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from tilesseg.errors import JobError, first_problem
from tilesseg.formats.reading.open_options import TOLERANCE, Opening
from tilesseg.formats.registry import FORMATS
from tilesseg.planning.cluster_options import Auto, Cluster, Strict, read_cluster

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Each worker reads the job, and one in Python takes half a minute for a list of 100,000 scenes."""
AUTO_OPTIONS = ("overviews", "resolution")
"""Options of a product whose format the scene decides."""


class SceneEntry(Strict):
    """One scene, where a path alone does not say enough."""

    image: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A file, a folder of single-band files, or a list of files that make one image."""
    name: str | None = Field(None, pattern=r"^[^/\\]+$")
    """Names the scene's folder and products; default: the file's name without its suffix."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel of this image, before `input.mpp`."""
    priority: int = 0
    """Scenes of a higher number come first; the others in the order in which they are named."""
    input: dict[str, Any] = Field(default_factory=dict)
    """Keys of the section `input` that are different for this scene."""

    @field_validator("input")
    @classmethod
    def _known(cls, keys: dict[str, Any]) -> dict[str, Any]:
        Input.model_validate(keys)
        return keys


class Input(Strict):
    """How the images are read."""

    bands: Annotated[tuple[str | int, ...], Field(min_length=1)] | None = None
    """Bands for the model's channels, in its order: names, or numbers from 1. Default: by the model's band names."""
    scale: float | None = None
    """Multiply the values by this; default: the file's own scale tag."""
    offset: float | None = None
    """Add this after `scale`; default: the file's own offset tag."""
    resolution: float | None = Field(None, gt=0)
    """Resample to this pixel size, in the unit of the image's CRS, or micrometres for slides; default: the pixel size
    that the model states (slides), else the native grid."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel of the images at full resolution, where the files say none or a wrong one."""
    tolerance: float = Field(TOLERANCE, ge=0, lt=1)
    """Share by which a slide's pixels may differ from the size wanted without being resampled."""
    series: int | str | None = None
    """Of a file of several images, which: its number from 0, or its name."""
    level: int | None = Field(None, ge=0)
    """Level of the pyramid to read, from 0, the finest; default: the one that serves the pixel size best."""
    t: int | None = Field(None, ge=0)
    """Time point, from 0; needed where there are several."""
    z: int | None = Field(None, ge=0)
    """Plane of a stack, from 0; needed where there are several."""
    tissue: str = "auto"
    """Where to look: `auto` (the tissue of a stained slide, all of any other image), `none` (everywhere), or a file:
    an image that is not 0 there, or GeoJSON polygons; `{scene}` in its path stands for the scene's name."""
    outside: Literal["nodata", "background"] = "nodata"
    """What the mask holds where nobody looked: 255, or the first class."""
    stage: Literal["auto", "always", "never"] = "auto"
    """Copy the image to Zarr first and read it from there; auto: where reading it as it is decodes more than twice
    the pixels that are needed."""
    check_range: bool = True
    """Refuse a scene whose values do not fit the model's `input_range`."""

    def opening(self, mpp: float | None = None) -> Opening:
        """How a scene is opened; `mpp` is its own."""
        fields = ("scale", "offset", "resolution", "tolerance", "series", "level", "t", "z")
        return Opening(**{key: getattr(self, key) for key in fields}, mpp=self.mpp if mpp is None else mpp)


class TilingOptions(Strict):
    """How the scene is cut. The mask depends on patch, overlap, margin and blend; never on the core."""

    patch: Annotated[int, Field(ge=1)] | Auto = "auto"
    overlap: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Pixels that neighbouring patches share, for the blended modes; auto: a quarter of the usual patch."""
    margin: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Pixels that crop discards at each side; auto: the model's."""
    blend: Literal["auto", "gaussian", "linear", "hann", "crop"] = "auto"
    """auto: crop where the model's margin and patch allow it, else gaussian."""
    core: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Side of a tile's core in pixels: a multiple of the stride (crop) or of 64 (blended)."""
    batch: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Patches a call of the network gets."""


class Product(Strict):
    """One file to write when a scene is finished."""

    format: Literal[
        "auto",
        "cog",
        "ome-tiff",
        "ome-zarr",
        "geojson",
        "gpkg",
        "flatgeobuf",
        "geoparquet",
        "scores-cog",
        "scores-ome-tiff",
        "scores-ome-zarr",
    ] = "auto"
    """The mask: `auto` is `ome-tiff` for slides, else `cog`. Its polygons: `geojson`, `gpkg`, `flatgeobuf`,
    `geoparquet`. The stored scores, see `output.scores`: `scores-…`."""
    path: str | None = None
    """Where; `{scene}` stands for the scene's name. Default: `<output.dir>/scenes/<scene>/<scene>` and the format's
    suffix, after `-scores` for scores."""
    overviews: Literal["mode", "nearest"] = "mode"
    """Coarser levels of a mask; those of scores are means."""
    resolution: Literal["model", "image"] = "model"
    """Pixels of a mask: those the network saw, or the image's own."""
    version: Literal["0.4", "0.5"] | None = None
    """`ome-zarr`: of the format. Default: 0.5, or beside an image the image's own."""
    beside: str | None = Field(None, pattern=r"^[^/\\]+$")
    """`ome-zarr`: write into the image's own OME-Zarr, as `labels/<this name>`."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Scores and polygons: the classes to write. Default: all scores that are stored; polygons of all classes but the
    first one where that is called background."""
    min_area: float = Field(0.0, ge=0)
    """Polygons: leave out smaller ones; in µm² for slides, in m² on the Earth, else in pixels."""
    simplify: float = Field(0.0, ge=0)
    """Polygons: move their lines by at most this many pixels."""
    canvas: Literal["bounds", "full"] = "bounds"
    """`geojson` of a slide: count coordinates from the scanned region, as QuPath does, or from the whole canvas."""

    @model_validator(mode="after")
    def _consistent(self) -> Product:
        takes = AUTO_OPTIONS if self.format == "auto" else FORMATS[self.format].options
        for key, field in type(self).model_fields.items():
            if key not in (*takes, "format", "path") and getattr(self, key) != field.default:
                can = [name for name, row in FORMATS.items() if key in row.options]
                raise ValueError(f"format {self.format} takes no {key}, only {', '.join(can)} do")
        if self.beside is not None and self.path is not None:
            raise ValueError(f"beside {self.beside} says where the labels go, and path {self.path} too; leave one out")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What the writer takes; not for `auto`, which the scene decides."""
        return {key: getattr(self, key) for key in FORMATS[self.format].options}


class Output(Strict):
    """Where the run directory is, and what is written from it."""

    dir: str
    products: tuple[Product, ...] = (Product(),)
    scores: bool | Annotated[tuple[str, ...], Field(min_length=1)] = False
    """Also store the scores, as uint8 (0–250 for 0–1, 255 nodata): of all classes, or of those named."""
    preview: bool = True
    """A quick-look PNG beside the first product."""


class Job(Strict):
    """One model over one or many scenes."""

    name: str = "job"
    scenes: str | SceneEntry | Annotated[tuple[str | SceneEntry, ...], Field(min_length=1)]
    """A path, a glob, a `.csv` with a row for each scene, a STAC item, collection or item collection (`.json`), a list
    of these, or entries with an image and a name."""
    model: str
    """A bundle folder, a weights file with its spec, `package://name/path`, an https URL, or a name."""
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    """The library that computes the network; auto: the fastest that is installed and takes it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that the network computes with; auto: those that the device accelerates, else fp32, which is exact."""
    compile: bool = False
    """Compute with torch, and let it compile the network before the first tile (`torch.compile`)."""
    input: Input = Input()
    tiling: TilingOptions = TilingOptions()
    output: Output
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _torch_compiles(self) -> Job:
        if self.compile and self.engine not in ("auto", "torch"):
            raise ValueError(f"compile is for torch, and engine is {self.engine}; leave one out")
        return self


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
        data = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except OSError as error:
        raise JobError(f"no job file at {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if isinstance(data, dict) and isinstance(data.get("cluster"), str):
        data = {**data, "cluster": read_cluster(path.parent / data["cluster"])}
    return anchored(parse_job(data, where=str(path)), path.parent)


def anchored(job: Job, folder: Path) -> Job:
    """The job with its relative paths made relative to the current directory."""

    def anchor(path: str) -> str:
        return path if "://" in path else str(folder / path)

    def anchor_tissue(tissue: str) -> str:
        return tissue if tissue in ("auto", "none") else anchor(tissue)

    def scene(entry: str | SceneEntry) -> str | SceneEntry:
        if isinstance(entry, str):
            return anchor(entry)
        image = anchor(entry.image) if isinstance(entry.image, str) else tuple(map(anchor, entry.image))
        own = {key: anchor_tissue(str(value)) if key == "tissue" else value for key, value in entry.input.items()}
        return entry.model_copy(update={"image": image, "input": own})

    scenes = tuple(map(scene, job.scenes)) if isinstance(job.scenes, tuple) else scene(job.scenes)
    products = tuple(p.model_copy(update={"path": p.path and anchor(p.path)}) for p in job.output.products)
    output = job.output.model_copy(update={"dir": anchor(job.output.dir), "products": products})
    model = anchor(job.model) if (folder / job.model).exists() else job.model
    read = job.input.model_copy(update={"tissue": anchor_tissue(job.input.tissue)})
    return job.model_copy(update={"scenes": scenes, "output": output, "model": model, "input": read})


def parse_product(data: Any, *, where: str) -> Product:
    """Check one product given as plain data.

    Raises:
        JobError: an unknown format or option.
    """
    try:
        return Product.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {first_problem(error)}") from None
