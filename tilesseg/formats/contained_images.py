"""Images that a path of several contains, each a scene: a plate, and a folder or files of slides in DICOM."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tilesseg.formats.detect import is_zarr
from tilesseg.formats.registry import resolve
from tilesseg.formats.slide.dicom_series import DicomSlide, is_dicom, is_dicom_folder, slides_in, slides_of
from tilesseg.formats.zarr.zipped import open_file, zarr_root

_PLATE = "tilesseg.formats.ome_zarr.image_groups:plate_images"
"""Function that lists the images of a plate; it imports zarr."""


class ContainedImage(NamedTuple):
    """An image in something larger."""

    name: str
    """Name of its scene, as the path of a file."""
    path: str


def contained_images(path: str) -> list[ContainedImage] | None:
    """Images of a path, or None where the path is an image itself, or something else.

    Raises:
        SourceError: a plate's metadata cannot be read.
    """
    if is_zarr(path):
        return _of_plate(zarr_root(path))
    if not is_dicom_folder(path):
        return None
    slides = slides_in(path)
    return [ContainedImage(slide.image, slide.image) for slide in slides] if len(slides) > 1 else None


def _of_plate(path: str) -> list[ContainedImage] | None:
    images: list[str] | None = resolve(_PLATE)(path) if _may_be_plate(path) else None
    if images is None:
        return None
    name = os.path.basename(os.path.normpath(path))
    for suffix in (".ozx", ".zip", ".zarr", ".ome"):
        name = name.removesuffix(suffix)
    return [ContainedImage(f"{name}-{one.replace('/', '-')}", os.path.join(path, one)) for one in images]


def images_of(paths: Iterable[str]) -> Iterator[ContainedImage]:
    """The images of some paths: of the files of a slide in DICOM one, by the name of its folder where it is alone."""
    listed = list(paths)
    parts = {path for path in listed if is_dicom(path)}
    slides = {slide.files[0]: slide for slide in slides_of(parts)}
    for path in listed:
        if path not in parts:
            yield from contained_images(path) or [ContainedImage(path, path)]
        elif path in slides:
            yield _joined(slides[path])


def _joined(slide: DicomSlide) -> ContainedImage:
    folder = os.path.dirname(slide.image)
    alone = slide.alone and len(slide.files) > 1 and len(slides_in(folder or ".")) == 1
    return ContainedImage(os.path.abspath(folder) if alone else slide.image, slide.image)


def _may_be_plate(path: str) -> bool:
    """Whether a group's attributes have the words of a plate: zarr is not opened for each image of a large job."""
    for name in ("zarr.json", ".zattrs"):
        try:
            with open_file(os.path.join(path, name)) as file:
                text = file.read()
        except OSError:
            continue
        if b'"plate"' in text or b'"well"' in text:
            return True
    return False
