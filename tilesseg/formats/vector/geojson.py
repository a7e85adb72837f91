"""Polygons as GeoJSON: annotations of a slide for QuPath, or features on the Earth by RFC 7946.

QuPath reads a FeatureCollection with coordinates in pixels of the finest level, counted from the top-left corner of the
picture that it shows, and with its own properties (manual of QuPath, "Exporting annotations"). The `id` of a polygon
becomes that of the annotation and must be a UUID.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import shapely

from tilesseg.formats.reading.ground_area import plane_area
from tilesseg.formats.vector.coordinates import in_lonlat, in_slide
from tilesseg.formats.vector.features import Choice, Features, area_unit, features
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.formats.writing.publish import growing, publish, refusing

_IDS = uuid.UUID("5d0c8a76-3f4e-5b0e-9a53-5f3c1f6f7b1e")
_MEASURED = {"um2": "Mask area µm^2", "px": "Mask area px", "m2": "Mask area m^2"}


def write(mask: Mask, path: Path, choice: Choice, *, canvas: str) -> tuple[Path, ...]:
    """Write the polygons of a mask, one feature a line, never all in memory.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    with growing(path) as folder, refusing(path):
        with (folder / path.name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(f'{{"type":"FeatureCollection","tilesseg":{_compact(dict(mask.provenance))},"features":[')
            separator = "\n"
            for line in _lines(mask, choice, folder, canvas):
                file.write(separator + line)
                separator = ",\n"
            file.write("\n]}\n")
        return publish(folder, path)


def _lines(mask: Mask, choice: Choice, scratch: Path, canvas: str) -> Iterator[str]:
    georeferenced = mask.grid.crs is not None
    unit, plane = area_unit(mask.grid), plane_area(mask.grid)
    properties_of = partial(_on_earth if georeferenced else _in_qupath, unit=unit)
    for batch in features(mask, choice, scratch):
        if georeferenced:
            shapes = in_lonlat(batch.geometries, mask.grid)
        else:
            shapes = in_slide(batch.geometries, mask, canvas, oblique=bool(choice.simplify))
        for number, shape in enumerate(shapely.to_geojson(shapes)):
            label = int(batch.labels[number])
            properties = properties_of(mask.classes[label], label, float(batch.areas[number]))
            if plane is not None:
                properties["area_grid"] = _rounded(float(batch.pixels[number]) * plane)
            yield (
                f'{{"type":"Feature","id":"{_id(mask.provenance, batch, number)}",'
                f'"geometry":{_whole(shape)},"properties":{_compact(properties)}}}'
            )


def _in_qupath(meant: MaskClass, label: int, area: float, *, unit: str) -> dict[str, Any]:
    return {
        "objectType": "annotation",
        "classification": {"name": meant.name, "color": list(meant.rgb)},
        "measurements": {_MEASURED[unit]: _rounded(area), "Mask label": label},
    }


def _on_earth(meant: MaskClass, label: int, area: float, *, unit: str) -> dict[str, Any]:
    return {"label": label, "class": meant.name, "colour": meant.colour, f"area_{unit}": _rounded(area)}


def _id(provenance: Mapping[str, str], batch: Features, number: int) -> uuid.UUID:
    """UUID of a polygon, the same for every tiling of the same scene by the same model."""
    y, x = batch.corners[number]
    scene = f"{provenance.get('source', '')}/{provenance.get('plan_fingerprint', '')}"
    return uuid.uuid5(_IDS, f"{scene}/{batch.labels[number]}/{y}/{x}")


def _rounded(area: float) -> float:
    return float(f"{area:.9g}")


def _whole(shape: str) -> str:
    """GeoJSON of a geometry with whole numbers written without `.0`."""
    return shape.replace(".0,", ",").replace(".0]", "]")


def _compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
