"""The QGIS style beside a mask: class names and colours, which a TIFF's colour table cannot name.

QGIS loads `<stem>.qml` by itself when it opens `<stem>.tif`.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from tilesseg.formats.writer import FAILED_CLASS, MaskClass
from tilesseg.formats.writing.xml_text import xml_text
from tilesseg.raster.labels import FAILED

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def qgis_style(classes: Sequence[MaskClass]) -> str:
    """A paletted QGIS renderer for labels 0 … n − 1 and 254; 255 is nodata, which QGIS leaves out by itself."""
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
    for value, (name, rgb) in [*enumerate(classes), (FAILED, FAILED_CLASS)]:
        colour = "#{:02x}{:02x}{:02x}".format(*rgb)
        ET.SubElement(palette, "paletteEntry", value=str(value), color=colour, alpha="255", label=xml_text(name))
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    return _DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"
