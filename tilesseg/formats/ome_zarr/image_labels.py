"""Labels beside their image: inside its OME-Zarr, in its version, level by level where its levels are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from tilesseg.errors import FormatError, SourceError
from tilesseg.formats.ome_zarr.level_transforms import Frame, Frames, Plain, georeference, transformations
from tilesseg.formats.ome_zarr.metadata import ome_of, own_place
from tilesseg.formats.ome_zarr.product_folder import read_json, write_json
from tilesseg.formats.ome_zarr.series import Chosen, choose_image, group_attributes
from tilesseg.formats.writer import Mask
from tilesseg.formats.zarr.zarr_hierarchy import open_node
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import level_shapes


@dataclass(frozen=True, slots=True)
class Home:
    """The image beside which labels go."""

    image: Chosen
    shapes: tuple[tuple[int, ...], ...]
    """Of its levels, along every axis."""

    @property
    def version(self) -> str:
        return self.image.version

    @property
    def kept(self) -> list[int]:
        """Axes that labels have, too: all but the channels."""
        return [number for number, axis in enumerate(self.image.multiscale.axes) if axis.kind != "c"]

    @property
    def plane(self) -> tuple[int, int]:
        """Which axes are y and x."""
        y, x = self.image.multiscale.axis("y"), self.image.multiscale.axis("x")
        assert y is not None and x is not None
        return y, x

    def shape(self, level: int) -> tuple[int, int]:
        y, x = self.plane
        return self.shapes[level][y], self.shapes[level][x]


def find_home(mask: Mask, path: Path, version: str | None) -> Home:
    """The image of a path `<image>.zarr/labels/<name>`.

    Raises:
        FormatError: it is no OME-Zarr image in the local file system, of another version or size, has several times
            or planes, or the name cannot be one.
    """
    remote = next((one for one in mask.paths if "://" in one), None)
    if remote:
        raise FormatError(f"{remote} is not in the local file system: labels go beside local images; leave out beside")
    folder = path.parent.parent
    if path.parent.name != "labels" or path.name.startswith("."):
        raise FormatError(f"{path} is no place for labels, <image>.zarr/labels/<name> is; choose another name")
    try:
        _refuse_collection(os.path.abspath(folder))
        image = choose_image(os.path.abspath(folder), None)
        shapes = tuple(_shape(os.path.join(image.path, one.path)) for one in image.multiscale.datasets)
    except SourceError as error:
        raise FormatError(f"labels go beside an OME-Zarr image: {error}; or leave out beside") from None
    home = Home(image, shapes)
    _refuse_unfit(home, folder, mask.image or mask.grid, version)
    return home


def frames_beside(home: Home, mask: Mask) -> Frames:
    """The image's own frames where the mask has its pixels, else a pyramid on the image's first corner."""
    axes = [dict(home.image.multiscale.axes[k].raw) for k in home.kept]
    names = [home.image.multiscale.axes[k].kind for k in home.kept]
    if names[-2:] != ["y", "x"]:
        raise FormatError(f"{home.image.path}: axes {', '.join(names)}, y and x needed last; leave out beside")
    shared = _without_channels(home, home.image.multiscale.raw.get("coordinateTransformations") or [])
    own = mask.grid.shape == home.shape(0)
    return Frames(axes, tuple(_own_frames(home, mask.grid) if own else _new_frames(home, mask)), shared)


@contextmanager
def labels_folder(path: Path) -> Iterator[Path]:
    """The folder `labels` of an image, made where there is none, removed again where nothing came into it."""
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
        yield path
    except OSError as error:
        raise FormatError(f"{path} cannot be written: {error.strerror}; leave out beside") from error
    finally:
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def list_label(folder: Path, name: str, version: str) -> Path:
    """Put a name into the image's list of labels; the file stays as it is where it has the name.

    Returns:
        The file with the list.

    Raises:
        FormatError: the list cannot be read.
    """
    file = _list_file(folder, version)
    content = read_json(file)
    ome = _ome(content, version)
    listed = ome.get("labels", [])
    if not isinstance(listed, list):
        raise FormatError(f"{file} has labels {listed!r}, a list needed; correct it first")
    if version == "0.4" and not (folder / ".zgroup").exists():
        write_json(folder / ".zgroup", {"zarr_format": 2})
    if name not in listed:
        ome["labels"] = [*listed, name]
        content.pop("consolidated_metadata", None)  # it would say that the new group is not there
        write_json(file, content)
    return file


def check_list(folder: Path, version: str) -> None:
    """Refuse an image whose list of labels cannot be added to.

    Raises:
        FormatError: it cannot.
    """
    file = _list_file(folder, version)
    listed = _ome(read_json(file), version).get("labels", [])
    if not isinstance(listed, list):
        raise FormatError(f"{file} has labels {listed!r}, a list needed; correct it first")


def _list_file(folder: Path, version: str) -> Path:
    return folder / (".zattrs" if version == "0.4" else "zarr.json")


def _ome(content: Plain, version: str) -> Plain:
    """The part of a group's metadata that has the list, made where it is missing."""
    if version == "0.4":
        return content
    content.setdefault("zarr_format", 3)
    content.setdefault("node_type", "group")
    attributes: Plain = content.setdefault("attributes", {})
    ome: Plain = attributes.setdefault("ome", {"version": version})
    return ome


def _shape(path: str) -> tuple[int, ...]:
    node = open_node(path)
    if not isinstance(node, zarr.Array):
        raise SourceError(f"{path}: a group, an array needed")
    return tuple(int(side) for side in node.shape)


def _refuse_collection(path: str) -> None:
    ome = ome_of(group_attributes(path))
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        raise FormatError(f"{path} is a collection, labels go into an image of it; give that as the scene, as {path}/0")


def _refuse_unfit(home: Home, folder: Path, native: Grid, version: str | None) -> None:
    image, shown = home.image, str(folder)
    if version is not None and version != home.version:
        raise FormatError(f"{shown} is OME-Zarr {home.version}, and version {version} is asked for; leave version out")
    wrong = [shape for shape in home.shapes if len(shape) != len(image.multiscale.axes)]
    if wrong:
        raise FormatError(f"{shown}: a level of shape {wrong[0]}, {len(image.multiscale.axes)} axes needed")
    for number, axis in enumerate(image.multiscale.axes):
        if axis.kind not in ("c", "y", "x") and home.shapes[0][number] > 1:
            raise FormatError(
                f"{shown}: {axis.name} has a length of {home.shapes[0][number]}, and labels of one plane go beside an "
                "image of one; leave out beside"
            )
    if native.shape != home.shape(0):
        raise FormatError(
            f"{shown} has {home.shape(0)[0]} × {home.shape(0)[1]} pixels, and the mask is of an image of "
            f"{native.shape[0]} × {native.shape[1]}; leave out beside"
        )


def _own_frames(home: Home, grid: Grid) -> Iterator[Frame]:
    full = home.shape(0)
    for number, dataset in enumerate(home.image.multiscale.datasets):
        told = _without_channels(home, dataset.raw.get("coordinateTransformations") or [])
        shape = home.shape(number)
        yield Frame(shape, told, georeference(_stretched(grid, full, shape)))


def _new_frames(home: Home, mask: Mask) -> Iterator[Frame]:
    """Levels of the mask's own pixels: the centre of the first one lies `(size − image's size) / 2` further in."""
    dataset, native = home.image.multiscale.datasets[0], mask.image or mask.grid
    scale, translation = own_place(home.image.path, dataset)
    ratios = [own / image for own, image in zip(mask.grid.resolution, native.resolution, strict=True)]
    for number, shape in enumerate(level_shapes(mask.grid.shape)):
        sides, places = list(scale), list(translation)
        for axis, ratio in zip(home.plane, ratios, strict=True):
            sides[axis] = scale[axis] * ratio * 2**number
            places[axis] = translation[axis] + (sides[axis] - scale[axis]) / 2
        told = transformations([sides[k] for k in home.kept], [places[k] for k in home.kept])
        yield Frame(shape, told, georeference(mask.grid.coarsen(2**number)))


def _stretched(grid: Grid, full: tuple[int, int], shape: tuple[int, int]) -> Grid:
    """The grid of a level of the image, by the whole number of pixels that one of its pixels covers."""
    y, x = (max(1, round(whole / part)) for whole, part in zip(full, shape, strict=True))
    a, b, c, d, e, f = grid.transform
    return Grid(
        *shape,
        transform=(a * x, b * y, c, d * x, e * y, f),
        crs=grid.crs,
        unit=grid.unit,
        metres_per_unit=grid.metres_per_unit,
    )


def _without_channels(home: Home, told: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Transformations as the image has them, for the axes that labels have."""
    found = []
    for step in told:
        kind = str(step.get("type"))
        numbers = step.get(kind)
        kept = [numbers[k] for k in home.kept] if isinstance(numbers, list) else numbers
        found.append({**step, kind: kept} if kind in step else dict(step))
    return found
