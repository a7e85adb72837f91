"""The job file: a user's request, checked at the boundary and frozen.

Every key is known or refused; a value of `auto` is decided once, by the plan. The docstring of a key is its text in
`tilesseg schema job` and in the help of the option that sets it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from tilesseg import paths
from tilesseg.errors import JobError, cannot, first_problem
from tilesseg.formats.reading.open_options import TOLERANCE, Opening
from tilesseg.formats.registry import FORMATS
from tilesseg.planning.cluster_options import Auto, Cluster, Strict
from tilesseg.planning.fault_options import Faults
from tilesseg.planning.yaml_file import read_yaml

AUTO_OPTIONS = ("overviews", "resolution")
"""Options of a product of `format: auto`, whose format depends on the scene."""


ImagePath = Annotated[str, AfterValidator(paths.source)]
"""Path of something to read, as `paths.place` understands it."""
ModelPath = Annotated[str, AfterValidator(lambda text: paths.place(text).text)]
TargetPath = Annotated[str, AfterValidator(paths.target)]
"""Path of something to write: a file or folder of this machine."""


class SceneEntry(Strict):
    """One scene with its own name or options."""

    image: ImagePath | Annotated[tuple[ImagePath, ...], Field(min_length=1)]
    """Image: a file, a folder of single-band files, or a list of files that make one image."""
    name: str | None = Field(None, pattern=r"^[^/\\]+$")
    """Name of the scene, of its folder and of its products; default: the file's name without its suffix."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel of this image; replaces `input.mpp`."""
    priority: int = 0
    """Rank in the order of work: scenes of a higher number come first, others in the order of the job."""
    input: dict[str, Any] = Field(default_factory=dict)
    """Keys of the section `input` that differ for this scene."""

    @field_validator("input")
    @classmethod
    def _known(cls, keys: dict[str, Any]) -> dict[str, Any]:
        tissue = Input.model_validate(keys).tissue
        return {key: tissue if key == "tissue" else value for key, value in keys.items()}


class Input(Strict):
    """Section `input`: options of reading the images."""

    bands: Annotated[tuple[str | int, ...], Field(min_length=1)] | None = None
    """Bands for the model's channels, in the model's order: names, or numbers from 1; default: by the model's band
    names."""
    scale: float | None = None
    """Factor by which values are multiplied; default: the file's own scale tag."""
    offset: float | None = None
    """Number that is added to the values after `scale`; default: the file's own offset tag."""
    resolution: float | None = Field(None, gt=0)
    """Pixel size to resample to, in the unit of the image's CRS, or in micrometres for slides; default: the pixel size
    that the model states (slides), else the native grid."""
    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel of the images at full resolution, where the files state none or a wrong value."""
    tolerance: float = Field(TOLERANCE, ge=0, lt=1)
    """Largest difference between a slide's pixel size and the requested size, as a share, at which nothing is
    resampled."""
    series: int | str | None = None
    """Image of a file of several, or page of a TIFF: its number from 0, or its name; default: the largest image."""
    level: int | None = Field(None, ge=0)
    """Level of the pyramid to read, from 0, the finest; default: the level that serves the pixel size best."""
    t: int | None = Field(None, ge=0)
    """Time point, from 0; required where the image has several."""
    z: int | None = Field(None, ge=0)
    """Plane of a stack, from 0; required where the image has several."""
    alpha: Literal["auto", "mask", "band"] = "auto"
    """Use of a band that the file tags as alpha: the `mask`, a `band` like any other, or `auto`: the mask, unless the
    job or the model asks for the band; refused where its values look like those of a band."""
    missing: Literal["auto", "nodata", "fill"] = "auto"
    """Pixels of a Zarr in chunks that are not stored: `nodata`, `fill` (the array's fill value), or `auto`: the fill
    value, which is nodata where the metadata say so."""
    tissue: ImagePath = "auto"
    """Region of interest: `auto` (the tissue of a stained slide, all of any other image), `none` (everywhere), or a
    file: an image that is not 0 inside the region, or GeoJSON polygons; `{scene}` in its path stands for the scene's
    name."""
    outside: Literal["nodata", "background"] = "nodata"
    """Value of the mask outside the region of interest: `nodata` (255) or `background` (the first class)."""
    stage: Literal["auto", "always", "never"] = "auto"
    """Whether the image is first copied to Zarr and read from the copy: `always`, `never`, or `auto`, where reading it
    directly decodes more than twice the pixels that are needed."""
    damaged: Literal["mark", "coarser"] = "mark"
    """Treatment of pixels that cannot be decoded: `mark` (pixels of the mask that depend on them are 254) or `coarser`
    (they are read from a coarser level of the image, where it has one). Either way the exit code is 3."""
    check_range: bool = True
    """Whether a scene is refused whose values are in another unit than the model's `input_range`."""

    def opening(self, mpp: float | None = None) -> Opening:
        """Options of opening a scene; `mpp` is the scene's own value."""
        fields = ("scale", "offset", "resolution", "tolerance", "series", "level", "t", "z", "damaged")
        return Opening(
            **{key: getattr(self, key) for key in fields},
            mpp=self.mpp if mpp is None else mpp,
            alpha=None if self.alpha == "auto" else self.alpha,
            missing=None if self.missing == "auto" else self.missing,
        )


class TilingOptions(Strict):
    """Section `tiling`: patches and tiles. The mask depends on patch, overlap, margin and blend; never on the core."""

    patch: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Side of a patch, the square that the network sees, in pixels; auto: the model's size, or the fastest where the
    size is free."""
    overlap: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Number of pixels that neighbouring patches share, for the blended modes; auto: a quarter of the usual patch."""
    margin: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Number of pixels at each side of a patch that are discarded; auto: the model's margin."""
    blend: Literal["auto", "gaussian", "linear", "hann", "crop"] = "auto"
    """Blending of patches: `crop`, `gaussian`, `linear`, `hann`, or `auto`: crop where the model's margin and patch
    allow it, else gaussian."""
    core: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Side of a tile's core in pixels: a multiple of the stride (crop) or of 64 (blended)."""
    batch: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of patches in a call of the network."""
    turns: Literal[1, 4, 8] = 1
    """Number of turns of each patch whose scores are averaged: 1, 4 (quarter turns) or 8 (with mirrors); it costs as
    many times the computing."""


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
    """Format: `auto`, `cog`, `ome-tiff` or `ome-zarr` (the mask; auto is ome-tiff for slides, else cog), `geojson`,
    `gpkg`, `flatgeobuf` or `geoparquet` (its polygons), `scores-cog`, `scores-ome-tiff` or `scores-ome-zarr` (the
    stored scores, see `output.scores`)."""
    path: TargetPath | None = None
    """Path of the file; `{scene}` stands for the scene's name. Default: `<output.dir>/scenes/<scene>/<scene>` and the
    format's suffix, after `-scores` for scores."""
    overviews: Literal["mode", "nearest"] = "mode"
    """Coarser levels of a mask: `mode` (the most frequent of four labels) or `nearest`; those of scores are always
    means."""
    resolution: Literal["model", "image"] = "model"
    """Pixels of a mask: those of the `model`, which the network saw, or those of the `image`."""
    version: Literal["0.4", "0.5"] | None = None
    """Version of OME-Zarr: `0.5` or `0.4`. Default: 0.5, or beside an image the image's own version."""
    beside: str | None = Field(None, pattern=r"^[^/\\]+$")
    """Name of the labels, for `ome-zarr`: write into the image's own OME-Zarr, as `labels/<this name>`."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Classes to write, of scores and polygons. Default: all scores that are stored; polygons of all classes but the
    first where that is called background."""
    min_area: float = Field(0.0, ge=0)
    """Area below which polygons are left out; in µm² for slides, in m² on the ground, else in pixels."""
    simplify: float = Field(0.0, ge=0)
    """Number of pixels by which the lines of polygons may be moved."""
    canvas: Literal["bounds", "full"] = "bounds"
    """Origin of coordinates in `geojson` of a slide: `bounds`, the scanned region, as in QuPath, or `full`, the whole
    canvas."""

    @model_validator(mode="after")
    def _consistent(self) -> Product:
        takes = AUTO_OPTIONS if self.format == "auto" else FORMATS[self.format].options
        for key, field in type(self).model_fields.items():
            if key not in (*takes, "format", "path") and getattr(self, key) != field.default:
                can = [name for name, row in FORMATS.items() if key in row.options]
                raise ValueError(f"format {self.format} takes no {key}, only {', '.join(can)} do; leave it out")
        if self.beside is not None and self.path is not None:
            raise ValueError(f"beside {self.beside} says where the labels go, and path {self.path} too; leave one out")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Options for the writer of the format; not for `auto`, whose format depends on the scene."""
        return {key: getattr(self, key) for key in FORMATS[self.format].options}


class Output(Strict):
    """Section `output`: the run directory, and the files that are written from it."""

    dir: TargetPath
    """Run directory; made where there is none."""
    products: tuple[Product, ...] = (Product(),)
    """Files to write when a scene is finished."""
    scores: bool | Annotated[tuple[str, ...], Field(min_length=1)] = False
    """Whether the scores are stored too, as uint8 (0–250 for 0–1, 255 nodata): of all classes, or of the classes in a
    list."""
    preview: bool = True
    """Whether a quick-look PNG is written beside the first product."""
    overwrite: bool = False
    """Whether products replace files that this run did not write; else such a file is refused before the first
    tile."""


Scenes = ImagePath | SceneEntry | Annotated[tuple[ImagePath | SceneEntry, ...], Field(min_length=1)]
"""Key `scenes` of a job."""


class Job(Strict):
    """One model over one or many scenes."""

    name: str = "job"
    """Name of the job, for people."""
    scenes: Scenes
    """Images to segment: a path, a glob, a `.csv` with a row for each scene, a STAC item, collection or item collection
    (`.json`), an entry with an image and a name, or a list of these."""
    model: ModelPath | Annotated[tuple[ModelPath, ...], Field(min_length=1)]
    """Model: a bundle folder, a weights file with its spec, `package://name/path`, an https URL, or a name that
    `tilesseg models` lists; or a list of models, whose scores are averaged."""
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    """Library that computes the network: `torch`, `openvino`, `onnxruntime`, or `auto`: the fastest that is installed
    and takes the model."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that the network computes with: `fp32` (exact), `bf16`, `fp16`, or `auto`: those that the device
    accelerates, else fp32."""
    compile: bool = False
    """Whether torch computes the network, and compiles it before the first tile (`torch.compile`)."""
    input: Input = Input()
    """Options of reading the images."""
    tiling: TilingOptions = TilingOptions()
    """Options of cutting a scene into patches and tiles."""
    output: Output
    """Run directory and products."""
    cluster: Cluster = Cluster()
    """Workers; or the path of a file that holds this section."""
    faults: Faults = Faults()
    """Limits from which on a tile or the run is given up."""

    @property
    def models(self) -> tuple[str, ...]:
        """References of all models."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @field_validator("model")
    @classmethod
    def _once(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, tuple):
            for model in value:
                if value.count(model) > 1:
                    raise ValueError(f"model {model} is named {value.count(model)} times; name each model once")
            return value if len(value) > 1 else value[0]
        return value

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
    """Read a job file, whose relative paths are relative to its folder.

    Raises:
        JobError: the file is missing, is not YAML, or has an unknown or impossible key.
    """
    data = read_yaml(path, "job file")
    if isinstance(data, dict) and isinstance(data.get("cluster"), str):
        data = {**data, "cluster": read_yaml(_beside(path, data["cluster"]), "cluster file")}
    return anchored(parse_job(data, where=str(path)), path.parent)


def _beside(job: Path, file: str) -> Path:
    try:
        return Path(paths.anchored(paths.target(file), str(job.parent)))
    except ValueError as error:
        raise JobError(cannot(f"read the cluster of {job}", error, "give the path of a file")) from None


def anchored(job: Job, folder: Path) -> Job:
    """Job whose relative paths are relative to the current directory instead of `folder`."""

    def anchor(path: str) -> str:
        return paths.anchored(path, str(folder))

    products = tuple(p.model_copy(update={"path": p.path and anchor(p.path)}) for p in job.output.products)
    output = job.output.model_copy(update={"dir": anchor(job.output.dir), "products": products})
    read, scenes = anchored_input(job.input, folder), anchored_scenes(job.scenes, folder)
    models = tuple(anchored_model(model, folder) for model in job.models)
    model = models if len(models) > 1 else models[0]
    return job.model_copy(update={"scenes": scenes, "output": output, "model": model, "input": read})


def anchored_model(model: str, folder: Path) -> str:
    """Reference of a model; the path of a bundle in `folder` is relative to the current directory instead."""
    path = paths.anchored(model, str(folder))
    return path if os.path.exists(path) else model


def anchored_input(reading: Input, folder: Path) -> Input:
    """Options of reading whose path of a region is relative to the current directory instead of `folder`."""
    return reading.model_copy(update={"tissue": _anchored_tissue(reading.tissue, folder)})


def anchored_scenes(scenes: Scenes, folder: Path) -> Scenes:
    """Scenes whose relative paths are relative to the current directory instead of `folder`."""

    def anchor(path: str) -> str:
        return paths.anchored(path, str(folder))

    def scene(entry: str | SceneEntry) -> str | SceneEntry:
        if isinstance(entry, str):
            return anchor(entry)
        image = anchor(entry.image) if isinstance(entry.image, str) else tuple(map(anchor, entry.image))
        own = entry.input
        if "tissue" in own:
            own = {**own, "tissue": _anchored_tissue(str(own["tissue"]), folder)}
        return entry.model_copy(update={"image": image, "input": own})

    return tuple(map(scene, scenes)) if isinstance(scenes, tuple) else scene(scenes)


def _anchored_tissue(tissue: str, folder: Path) -> str:
    return tissue if tissue in ("auto", "none") else paths.anchored(tissue, str(folder))


def parse_product(data: Any, *, where: str) -> Product:
    """Check one product given as plain data.

    Raises:
        JobError: an unknown format or option.
    """
    try:
        return Product.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {first_problem(error)}; see tilesseg export --help") from None
