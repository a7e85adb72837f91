"""QGIS style beside a mask, with the names and colours of its classes: the colour table of a TIFF has no names.

QGIS loads `<stem>.qml` by itself when it opens `<stem>.tif`.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from tilesseg.formats.writer import FAILED_CLASS, MaskClass, xml_text
from tilesseg.raster.labels import FAILED

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def qgis_style(classes: Sequence[MaskClass], fingerprint: str = "") -> str:
    """XML of a paletted QGIS renderer for labels 0 … n − 1 and 254; QGIS leaves out 255 by itself, as nodata.

    Args:
        classes: names and colours of the labels.
        fingerprint: plan of the mask; it stands in a comment, which is gone when somebody saves another style there.
    """
    root = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    provider = ET.SubElement(pipe, "provider")
    nearest = "nearestNeighbour"  # any other resampling invents labels
    ET.SubElement(
        provider, "resampling", enabled="false", zoomedInResamplingMethod=nearest, zoomedOutResamplingMethod=nearest
    )
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for label, meant in [*enumerate(classes), (FAILED, FAILED_CLASS)]:
        text = xml_text(meant.name)
        ET.SubElement(palette, "paletteEntry", value=str(label), color=meant.colour, alpha="255", label=text)
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    written = f"<!-- {fingerprint} -->\n" if fingerprint else ""
    return _DOCTYPE + written + ET.tostring(root, encoding="unicode") + "\n"
