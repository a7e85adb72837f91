"""What a product says of itself: OME's attributes of masks and of scores, and ours of where they come from."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

from tilesseg.formats import FAILED_CLASS, MaskClass
from tilesseg.formats.ome_zarr.frames import Frames, Plain
from tilesseg.labels import FAILED, NODATA, SCORE_STEPS

PROVENANCE = "tilesseg_provenance"
"""By this attribute a group is known as a product of tilesseg."""


def group_attributes(
    version: str,
    ome: Mapping[str, Any],
    *,
    provenance: Mapping[str, str],
    further: Mapping[str, Any],
) -> Plain:
    """Attributes of a group: OME's where the version has them, then ours."""
    placed = dict(ome) if version == "0.4" else {"ome": {"version": version, **ome}}
    return {**placed, PROVENANCE: dict(provenance), **further}


def multiscales(name: str, frames: Frames, version: str, method: str) -> list[Plain]:
    """One image with its levels, named 0, 1 and so on.

    Args:
        name: of the image.
        frames: its axes and where its levels lie.
        version: of OME-Zarr.
        method: how a level follows from the one before: mode, nearest or mean.
    """
    return [
        {
            **({"version": version} if version == "0.4" else {}),
            "name": name,
            "axes": frames.axes,
            "datasets": [
                {"path": str(number), "coordinateTransformations": level.transformations}
                for number, level in enumerate(frames.levels)
            ],
            **({"coordinateTransformations": frames.shared} if frames.shared else {}),
            "type": method,
            "metadata": {"method": f"tilesseg.pyramid.halve_{method}"},
        }
    ]


def image_label(classes: Sequence[MaskClass], version: str, *, image: str | None = None) -> Plain:
    """Names and colours of labels; 254 is drawn in magenta, 255 not at all.

    Args:
        classes: of labels 0 … n − 1.
        version: of OME-Zarr.
        image: path of the image, where the labels lie in it.
    """
    listed = [*enumerate(classes), (FAILED, FAILED_CLASS)]
    colours = [{"label-value": label, "rgba": [*one.rgb, 255]} for label, one in listed]
    names = [{"label-value": label, "class": one.name} for label, one in listed]
    return {
        **({"version": version} if version == "0.4" else {}),
        "colors": [*colours, {"label-value": NODATA, "rgba": [0, 0, 0, 0]}],
        "properties": [*names, {"label-value": NODATA, "class": "nodata"}],
        **({"source": {"image": image}} if image else {}),
    }


def omero(classes: Sequence[str]) -> Plain:
    """Names and colours of channels of scores, shown from 0 to 250."""
    window = {"start": 0, "end": SCORE_STEPS, "min": 0, "max": SCORE_STEPS}
    return {
        "channels": [
            {"label": name, "color": _hue(k, len(classes)), "window": window, "active": k == 0, "coefficient": 1}
            for k, name in enumerate(classes)
        ],
        "rdefs": {"defaultT": 0, "defaultZ": 0, "model": "greyscale" if len(classes) == 1 else "color"},
    }


def _hue(number: int, count: int) -> str:
    """White where there is one channel, else colours as far from each other as they can be."""
    if count == 1:
        return "FFFFFF"
    return "".join(f"{round(255 * part):02X}" for part in colorsys.hsv_to_rgb(number / count, 1.0, 1.0))
