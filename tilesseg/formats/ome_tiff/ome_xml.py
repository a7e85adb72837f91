"""OME-XML: names, sizes, channels and objectives read; sizes, position, channels and annotations written.

Schema 2016-06. Written text is ASCII with character references, because the ImageDescription of a TIFF is ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree

from tilesseg.formats.reading.stated_size import micrometres, number_above_0
from tilesseg.formats.writer import xml_text
from tilesseg.raster.grid import Grid

SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
MICROMETRE = "µm"


class Note(NamedTuple):
    """An annotation of the image, as pairs of keys and texts."""

    namespace: str
    pairs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Physical:
    """Size of pixels and position of the first pixel on the slide; OME counts positions at centres."""

    size: tuple[float, float] | None
    """Sides of a pixel `(y, x)` in micrometres; None where unknown."""
    position: tuple[float, float] | None
    """Centre of the first pixel `(y, x)`, counted from the centre of the first pixel of the slide itself."""
    unit: str = MICROMETRE
    """Unit of the position: micrometres, or pixels of unknown size."""


def physical(grid: Grid, image: Grid | None) -> Physical:
    """Size and position of the pixels of a mask.

    Lengths on Earth are in micrometres too, because many readers ignore the unit and assume micrometres. A mask on
    Earth has no position: OME has no coordinates for it.

    Args:
        grid: grid of the mask.
        image: finest grid of the image; None where it equals `grid`.
    """
    scale = grid.metres_per_unit
    size = None
    if grid.unit == "micrometre" or scale is not None:
        factor = 1.0 if scale is None or grid.unit == "micrometre" else scale * 1e6
        y, x = grid.resolution
        size = (y * factor, x * factor)
    if grid.crs is not None or grid.unit not in ("micrometre", "pixel"):
        return Physical(size, None)
    corner = (grid.transform[5], grid.transform[2])
    native = grid.resolution if image is None else image.resolution
    y, x = (at + (own - whole) / 2 for at, own, whole in zip(corner, grid.resolution, native, strict=True))
    if grid.unit == "pixel":
        return Physical(size, (y, x) if (y, x) != (0, 0) else None, "pixel")
    return Physical(size, (y, x))


def ome_xml(name: str, shape: tuple[int, int], channels: Sequence[str], where: Physical, notes: Sequence[Note]) -> str:
    """OME-XML of one image of bytes.

    Args:
        name: name of the image.
        shape: `(y, x)` in pixels.
        channels: names of the channels, each a plane of its own, in this order.
        where: size and position of the pixels, see `physical`.
        notes: annotations of the image.
    """
    root = ElementTree.Element("OME", xmlns=SCHEMA, Creator="tilesseg")
    image = _add(root, "Image", ID="Image:0", Name=name)
    pixels = _pixels(image, shape, len(channels), where)
    for number, channel in enumerate(channels):
        _add(pixels, "Channel", ID=f"Channel:0:{number}", Name=channel, SamplesPerPixel="1")
    for number in range(len(channels)):
        _add(pixels, "TiffData", FirstC=str(number), FirstT="0", FirstZ="0", IFD=str(number), PlaneCount="1")
    if where.position is not None:
        for number in range(len(channels)):
            _plane(pixels, number, where)
    annotations = _add(root, "StructuredAnnotations")
    for number, note in enumerate(notes):
        _add(image, "AnnotationRef", ID=f"Annotation:{number}")
        _annotate(annotations, number, note)
    text: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=False)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + text.decode("ascii")


def _pixels(image: ElementTree.Element, shape: tuple[int, int], channels: int, where: Physical) -> ElementTree.Element:
    sizes = {"SizeX": shape[1], "SizeY": shape[0], "SizeC": channels, "SizeZ": 1, "SizeT": 1}
    physical: dict[str, str] = {}
    if where.size is not None:
        for axis, side in zip("YX", where.size, strict=True):
            physical |= {f"PhysicalSize{axis}": repr(side), f"PhysicalSize{axis}Unit": MICROMETRE}
    facts = {"DimensionOrder": "XYCZT", "Type": "uint8", "SignificantBits": "8", "Interleaved": "false"}
    return _add(image, "Pixels", ID="Pixels:0", **facts, **{key: str(size) for key, size in sizes.items()}, **physical)


def _plane(pixels: ElementTree.Element, channel: int, where: Physical) -> None:
    assert where.position is not None
    place: dict[str, str] = {}
    for axis, at in zip("YX", where.position, strict=True):
        place |= {f"Position{axis}": repr(at), f"Position{axis}Unit": where.unit}
    _add(pixels, "Plane", TheC=str(channel), TheT="0", TheZ="0", **place)


def _annotate(annotations: ElementTree.Element, number: int, note: Note) -> None:
    annotation = _add(annotations, "MapAnnotation", ID=f"Annotation:{number}", Namespace=note.namespace)
    value = _add(annotation, "Value")
    for key, text in note.pairs.items():
        _add(value, "M", K=key).text = xml_text(text)


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    texts = {key: xml_text(text) for key, text in attributes.items()}
    return ElementTree.SubElement(parent, tag, texts)


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of a file."""

    name: str
    shape: tuple[int, int]
    mpp: tuple[float, float] | None
    channels: tuple[str | None, ...]
    objective: float | None


def ome_images(text: str | None) -> list[OmeImage]:
    """Images of OME-XML; empty where the text is no XML."""
    try:
        root = ElementTree.fromstring(text or "")
    except ElementTree.ParseError:
        return []
    powers = {one.get("ID"): one.get("NominalMagnification") for one in root.iter() if _is(one, "Objective")}
    return [_image(image, pixels, powers) for image in root if _is(image, "Image") for pixels in _all(image, "Pixels")]


def _image(image: ElementTree.Element, pixels: ElementTree.Element, powers: dict[str | None, str | None]) -> OmeImage:
    sides = [_length(pixels, f"PhysicalSize{axis}") for axis in "YX"]
    used = next((one.get("ID") for one in _all(image, "ObjectiveSettings")), None)
    return OmeImage(
        name=image.get("Name") or "",
        shape=(int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0))),
        mpp=(sides[0], sides[1]) if sides[0] and sides[1] else None,
        channels=tuple(one.get("Name") for one in _all(pixels, "Channel")),
        objective=number_above_0(powers.get(used)) if used else None,
    )


def _length(pixels: ElementTree.Element, key: str) -> float:
    """A length in micrometres, 0 where it is missing, not above 0, or in a unit that is no length."""
    return (number_above_0(pixels.get(key)) or 0.0) * (micrometres(pixels.get(f"{key}Unit", "µm")) or 0.0)


def _all(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [one for one in element if _is(one, name)]


def _is(element: ElementTree.Element, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name
