"""OME-XML, read: names, pixel sizes, channels and objectives of the images of a file."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from tilesseg.formats.reading.stated_size import micrometres, number_above_0


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
