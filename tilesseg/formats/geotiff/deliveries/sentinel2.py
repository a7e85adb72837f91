"""Sentinel-2 products as they are delivered: a `.SAFE` folder of Level 1C or 2A.

Digital numbers become reflectance by the product's metadata: `(number + offset) / quantification value`
(Sentinel-2 Products Specification Document, 14.9 and 15.0: from processing baseline 04.00 with an offset).
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.deliveries.delivery_files import SceneFile, SceneFiles, in_order, single
from tilesseg.formats.geotiff.deliveries.product_rules import SHIFT, contradiction, read_baseline, shifted
from tilesseg.formats.reading.spectral_bands import MSI

NAMES = {re.sub(r"^B(\d)$", r"B0\1", number): name for number, name in MSI.numbers.items()}
"""Common names of the bands, in the order in which the metadata counts them."""

_BAND_FILE = re.compile(r"_(B\d\d|B8A)(?:_(\d\d)m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
_NOTE = (
    "values are reflectance, by quantification value and offsets of {metadata}; classification, masks, AOT, WVP and "
    "true colour are left out"
)


def find_safe(path: str) -> SceneFiles | None:
    """The bands of a Sentinel-2 product, each at its finest, or None where the folder is no such product.

    Raises:
        SourceError: no band, several tiles, or metadata that cannot be read.
    """
    folder = Path(path)
    metadata = sorted(folder.glob("MTD_MSIL*.xml")) or sorted(folder.glob("S2*_OPER_MTD_SAFL*.xml"))
    if not metadata:
        if folder.suffix.lower() == ".safe":
            because = "neither MTD_MSIL1C.xml nor MTD_MSIL2A.xml is there"
            raise SourceError(cannot(f"open the SAFE folder {path}", because, "fetch the whole product"))
        return None
    _one_tile(folder)
    scales, notes = _scales(metadata[0])
    bands = _finest(folder)
    if not bands:
        because = "no band is in GRANULE/*/IMG_DATA"
        raise SourceError(cannot(f"open the SAFE folder {path}", because, "fetch the whole product"))
    files = [_file(file, band, scales) for band, file in bands.items()]
    return SceneFiles(
        str(metadata[0]), in_order(files, [*NAMES.values()]), (_NOTE.format(metadata=metadata[0].name), *notes)
    )


def _one_tile(folder: Path) -> None:
    tiles = [tile for tile in (folder / "GRANULE").glob("*") if (tile / "IMG_DATA").is_dir()]
    if len(tiles) > 1:
        raise SourceError(f"{folder}: a product of {len(tiles)} tiles, not of 1; give the files of one as a list")


def _finest(folder: Path) -> dict[str, Path]:
    """The finest file of each band."""
    finest: dict[str, tuple[int, Path]] = {}
    for file in sorted((folder / "GRANULE").glob("*/IMG_DATA/**/*")):
        match = _BAND_FILE.search(file.name)
        if match and match[1].upper() in NAMES:
            size = int(match[2] or 0)  # Level 1C has one file of each band
            band = match[1].upper()
            finest[band] = min(finest.get(band, (size, file)), (size, file))
    return {band: file for band, (_, file) in finest.items()}


def _file(path: Path, band: str, scales: tuple[float, dict[str, float], float | None]) -> SceneFile:
    quantification, offsets, nodata = scales
    offset = offsets.get(band, 0.0)
    return single(
        str(path), NAMES[band], scale=1 / quantification, offset=offset / quantification, nodata=nodata
    )  # fmt: skip


def _scales(metadata: Path) -> tuple[tuple[float, dict[str, float], float | None], list[str]]:
    """Quantification value, offset by band, and the number that stands for nodata; then contradictions among them."""
    try:
        root = ET.parse(metadata).getroot()
        values = [_number(root, tag) for tag in ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")]
        bands = {
            int(one.get("bandId", "-1")): _band(one.get("physicalBand", ""))
            for one in _all(root, "Spectral_Information")
        }
        bands = bands or dict(enumerate(NAMES))
        offsets = {
            bands[int(one.get("band_id", "-1"))]: float(one.text or "nan")
            for tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
            for one in _all(root, tag)
        }
        special = {
            one.findtext("SPECIAL_VALUE_TEXT"): one.findtext("SPECIAL_VALUE_INDEX")
            for one in _all(root, "Special_Values")
        }
        nodata = float(special["NODATA"]) if special.get("NODATA") else None  # type: ignore[arg-type]
    except (OSError, ET.ParseError, ValueError, KeyError) as error:
        raise SourceError(cannot(f"read {metadata}", f"{type(error).__name__} {error}", "fetch it again")) from error
    quantification = next((value for value in values if value), None)
    if quantification is None:
        raise SourceError(
            cannot(f"compute reflectance by {metadata}", "it has no quantification value", "fetch it again")
        )
    baseline = next((read_baseline(one.text) for one in _all(root, "PROCESSING_BASELINE")), None)
    if baseline is None:
        baseline = read_baseline(metadata.parent.resolve().name)
    offsets, notes = _settled(offsets, baseline, quantification, metadata)
    return (quantification, offsets, nodata), notes


def _settled(
    offsets: dict[str, float], baseline: float | None, quantification: float, metadata: Path
) -> tuple[dict[str, float], list[str]]:
    """Offset by band, and the contradiction of list and processing baseline, where there is one.

    From baseline 04.00 on each product lists its offsets: metadata without the list are not as they were delivered.
    """
    listed = next((offset for offset in offsets.values() if offset), 0.0)
    if baseline is None or shifted(baseline) == bool(listed):
        return offsets, []
    expected = SHIFT if shifted(baseline) else 0.0
    product = f"Sentinel-2 of processing baseline {baseline:05.2f}"
    first, second = ((1 / quantification, offset / quantification) for offset in (expected, listed))
    if offsets:
        return offsets, [contradiction(product, f"{metadata.name} lists", first, second, second)]
    return dict.fromkeys(NAMES, expected), [contradiction(product, f"{metadata.name} lists", first, second, first)]


def _all(root: ET.Element, tag: str) -> list[ET.Element]:
    return [one for one in root.iter() if one.tag.rpartition("}")[2] == tag]


def _number(root: ET.Element, tag: str) -> float | None:
    elements = _all(root, tag)
    return float(elements[0].text or "nan") if elements else None


def _band(physical: str) -> str:
    """Name of a band in file names: `B04` for `B4`."""
    return re.sub(r"^B(\d)$", r"B0\1", physical.upper())
