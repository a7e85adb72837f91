"""Labels beside their image: inside the image's OME-Zarr, in its version and with its levels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from tilesseg.errors import FormatError, SourceError, cannot
from tilesseg.formats.ome_zarr.image_groups import group_attributes
from tilesseg.formats.ome_zarr.level_transforms import Frame, Frames, Plain, georeference, transformations
from tilesseg.formats.ome_zarr.metadata import ome_of, own_place
from tilesseg.formats.ome_zarr.product_folder import read_json, write_json
from tilesseg.formats.ome_zarr.series import Chosen, choose_image
from tilesseg.formats.writer import Mask
from tilesseg.formats.zarr.zarr_hierarchy import open_node
from tilesseg.formats.zarr.zipped import split_zip
from tilesseg.paths import is_remote
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import level_shapes


@dataclass(frozen=True, slots=True)
class Home:
    """Image that gets the labels."""

    image: Chosen
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of the levels, along all axes."""

    @property
    def version(self) -> str:
        return self.image.version

    @property
    def kept(self) -> list[int]:
        """Numbers of the axes that labels share with the image: all except the channels."""
        return [number for number, axis in enumerate(self.image.multiscale.axes) if axis.kind != "c"]

    @property
    def plane(self) -> tuple[int, int]:
        """Numbers of the axes y and x."""
        y, x = self.image.multiscale.axis("y"), self.image.multiscale.axis("x")
        assert y is not None and x is not None
        return y, x

    def shape(self, level: int) -> tuple[int, int]:
        y, x = self.plane
        return self.shapes[level][y], self.shapes[level][x]


def find_home(mask: Mask, path: Path, version: str | None) -> Home:
    """Image of a path `<image>.zarr/labels/<name>`.

    Raises:
        FormatError: the folder is no OME-Zarr image in the local file system, has another version or size, several
            times or planes, or the name is not possible.
    """
    remote = next(filter(is_remote, mask.paths), None)
    if remote:
        raise FormatError(cannot("write labels", f"{remote} is not in the local file system", "leave out beside"))
    folder = path.parent.parent
    if split_zip(str(path)) is not None:
        raise FormatError(cannot(f"write labels into {folder}", "it is a zip file", "leave out beside, or unpack it"))
    if path.parent.name != "labels" or path.name.startswith("."):
        cause = "it is no place for labels as <image>.zarr/labels/<name> is"
        raise FormatError(cannot(f"write {path}", cause, "choose another name"))
    try:
        _refuse_collection(os.path.abspath(folder))
        image = choose_image(os.path.abspath(folder), None)
        shapes = tuple(_shape(os.path.join(image.path, level.path)) for level in image.multiscale.datasets)
    except SourceError as error:
        raise FormatError(cannot(f"write labels into {folder}", error, "do so, or leave out beside")) from None
    home = Home(image, shapes)
    for cause, do in _misfits(home, mask.image or mask.grid, version):
        raise FormatError(cannot(f"write labels into {folder}", cause, do))
    return home


def frames_beside(home: Home, mask: Mask) -> Frames:
    """Frames of the image where the mask has its pixels, else those of a pyramid from the image's corner."""
    axes = [dict(home.image.multiscale.axes[k].raw) for k in home.kept]
    names = [home.image.multiscale.axes[k].kind for k in home.kept]
    if names[-2:] != ["y", "x"]:
        cause = f"the image has the axes {', '.join(names)}, and y and x must be the last"
        raise FormatError(cannot(f"write labels into {home.image.path}", cause, "leave out beside"))
    shared = _without_channels(home, home.image.multiscale.raw.get("coordinateTransformations") or [])
    own = mask.grid.shape == home.shape(0)
    return Frames(axes, tuple(_own_frames(home, mask.grid) if own else _new_frames(home, mask)), shared)


@contextmanager
def labels_folder(path: Path) -> Iterator[Path]:
    """Folder `labels` of an image, made where it does not exist, and removed again if it stays empty."""
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
        yield path
    except OSError as error:
        raise FormatError(cannot(f"write {path}", error, "leave out beside")) from error
    finally:
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def list_label(folder: Path, name: str, version: str) -> Path:
    """Add a name to the image's list of labels, unless the list has the name.

    Returns:
        The file with the list.

    Raises:
        FormatError: the list cannot be read.
    """
    file = _list_file(folder, version)
    content = read_json(file)
    ome = _ome(content, version)
    listed = _listed(file, ome)
    if version == "0.4" and not (folder / ".zgroup").exists():
        write_json(folder / ".zgroup", {"zarr_format": 2})
    if name not in listed:
        ome["labels"] = [*listed, name]
        content.pop("consolidated_metadata", None)  # it does not list the new group
        write_json(file, content)
    return file


def check_list(folder: Path, version: str) -> None:
    """Refuse an image of which the list of labels cannot be read.

    Raises:
        FormatError: the list cannot be read.
    """
    file = _list_file(folder, version)
    _listed(file, _ome(read_json(file), version))


def _listed(file: Path, ome: Plain) -> list[Any]:
    listed = ome.get("labels", [])
    if not isinstance(listed, list):
        raise FormatError(cannot(f"read {file}", f"labels is {listed!r}, a list needed", "correct the file first"))
    return listed


def _list_file(folder: Path, version: str) -> Path:
    return folder / (".zattrs" if version == "0.4" else "zarr.json")


def _ome(content: Plain, version: str) -> Plain:
    """Part of a group's metadata that has the list of labels, made where it is missing."""
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
        raise SourceError(cannot(f"open {path}", "it is a group, an array needed", "correct the image's datasets"))
    return tuple(int(side) for side in node.shape)


def _refuse_collection(path: str) -> None:
    ome = ome_of(group_attributes(path))
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        do = f"give an image of it as the scene, as {path}/0"
        raise FormatError(cannot(f"write labels into {path}", "it is a collection of images", do))


def _misfits(home: Home, native: Grid, version: str | None) -> Iterator[tuple[str, str]]:
    """Reasons for which an image does not take labels of a mask, each with its remedy."""
    axes, (height, width) = home.image.multiscale.axes, home.shape(0)
    if version is not None and version != home.version:
        yield f"it is OME-Zarr {home.version}, and version {version} is requested", "leave version out"
    for shape in home.shapes:
        if len(shape) != len(axes):
            yield f"a level has the shape {shape}, and the image {len(axes)} axes", "correct the image's datasets"
    for number, axis in enumerate(axes):
        if axis.kind not in ("c", "y", "x") and home.shapes[0][number] > 1:
            length = home.shapes[0][number]
            yield f"{axis.name} has a length of {length}, and labels have one plane", "leave out beside"
    if native.shape != (height, width):
        size = f"{native.shape[0]} × {native.shape[1]}"
        yield f"it has {height} × {width} pixels, and the mask is of an image of {size}", "leave out beside"


def _own_frames(home: Home, grid: Grid) -> Iterator[Frame]:
    full = home.shape(0)
    for number, dataset in enumerate(home.image.multiscale.datasets):
        steps = _without_channels(home, dataset.raw.get("coordinateTransformations") or [])
        shape = home.shape(number)
        yield Frame(shape, steps, georeference(_stretched(grid, full, shape)))


def _new_frames(home: Home, mask: Mask) -> Iterator[Frame]:
    """Frames of the mask's own pixels: the centre of the first lies `(size − size in the image) / 2` further in."""
    dataset, native = home.image.multiscale.datasets[0], mask.image or mask.grid
    scale, translation = own_place(home.image.path, dataset)
    ratios = [own / image for own, image in zip(mask.grid.resolution, native.resolution, strict=True)]
    for number, shape in enumerate(level_shapes(mask.grid.shape)):
        sides, places = list(scale), list(translation)
        for axis, ratio in zip(home.plane, ratios, strict=True):
            sides[axis] = scale[axis] * ratio * 2**number
            places[axis] = translation[axis] + (sides[axis] - scale[axis]) / 2
        steps = transformations([sides[k] for k in home.kept], [places[k] for k in home.kept])
        yield Frame(shape, steps, georeference(mask.grid.coarsen(2**number)))


def _stretched(grid: Grid, full: tuple[int, int], shape: tuple[int, int]) -> Grid:
    """Grid of a level of the image, of which a pixel covers a whole number of pixels of `grid`."""
    y, x = (max(1, round(whole / part)) for whole, part in zip(full, shape, strict=True))
    a, b, c, d, e, f = grid.transform
    return Grid(
        *shape,
        transform=(a * x, b * y, c, d * x, e * y, f),
        crs=grid.crs,
        unit=grid.unit,
        metres_per_unit=grid.metres_per_unit,
    )


def _without_channels(home: Home, steps: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Transformations of the image, for the axes that labels have."""
    kept_steps = []
    for step in steps:
        kind = str(step.get("type"))
        numbers = step.get(kind)
        kept = [numbers[k] for k in home.kept] if isinstance(numbers, list) else numbers
        kept_steps.append({**step, kind: kept} if kind in step else dict(step))
    return kept_steps
