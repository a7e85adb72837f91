"""Laws of coordinate reference systems: equal ones are equal however they are written, others differ in something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.crs import crs_difference

DHDN = "+proj=tmerc +lat_0=0 +lon_0=9 +k=1 +x_0=3500000 +y_0=0 +ellps=bessel +units=m"


def wkt(text: str, version: str = "WKT2_2019") -> str:
    return str(CRS.from_user_input(text).to_wkt(version=version))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("EPSG:32632", "+proj=utm +zone=32 +ellps=WGS84 +towgs84=0,0,0,0,0,0,0 +units=m"),
        ("EPSG:32632", "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +x_0=500000 +y_0=0 +ellps=WGS84 +towgs84=0,0,0"),
        ("EPSG:25832", "+proj=utm +zone=32 +ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +units=m"),
        ("EPSG:25832", "+proj=utm +zone=32 +ellps=GRS80 +units=m"),
        ("EPSG:32632", "EPSG:32632+5773"),
        ("EPSG:25832+7837", "EPSG:25832"),
        ("EPSG:4326", "OGC:CRS84"),
        ("EPSG:4326", "EPSG:4979"),
        ("EPSG:2193", "+proj=tmerc +lat_0=0 +lon_0=173 +k=0.9996 +x_0=1600000 +y_0=10000000 +ellps=GRS80 "
         "+towgs84=0,0,0,0,0,0,0 +units=m"),
    ],
)  # fmt: skip
def test_crs_that_place_pixels_alike_are_equal(one: str, two: str) -> None:
    assert crs_difference(wkt(one), wkt(two)) is None
    assert crs_difference(wkt(two), wkt(one)) is None


@pytest.mark.parametrize("code", [2056, 2154, 27700, 31467, 3035, 3413, 3857, 2263, 5514, 32719])
def test_a_crs_is_equal_to_itself_in_the_dialects_of_others(code: int) -> None:
    old, esri = wkt(f"EPSG:{code}", "WKT1_GDAL"), wkt(f"EPSG:{code}", "WKT1_ESRI")
    assert crs_difference(wkt(f"EPSG:{code}"), old) is None
    assert crs_difference(old, esri) is None


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ("EPSG:32632", "EPSG:32633", "longitudeofnaturalorigin 9 against longitudeofnaturalorigin 15"),
        ("EPSG:3857", "EPSG:3395", "projection popularvisualisationpseudomercator against mercator"),
        ("EPSG:2263", "EPSG:32118", "unit 0.304800609601 against metre"),
        ("EPSG:32632", "EPSG:25832", "ellipsoid"),
        ("EPSG:31467", DHDN, "datum deutscheshauptdreiecksnetz against unknownbasedonbessel1841ellipsoid"),
        ("EPSG:4326", "EPSG:32632", "kind geographic against projected"),
    ],
)
def test_crs_that_differ_are_named_with_the_part_in_which_they_differ(one: str, two: str, said: str) -> None:
    difference = crs_difference(wkt(one), wkt(two))
    assert difference is not None and said in difference
    assert crs_difference(wkt(one), None) is not None


def write(path: Path, crs: str) -> str:
    kind = {"driver": "GTiff", "height": 20, "width": 20, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=rasterio.Affine(10, 0, 500000, 0, -10, 5500000), **kind) as file:
        file.write(np.ones((1, 20, 20), np.uint8))
    return str(path)


@pytest.mark.parametrize("crs", ["+proj=utm +zone=32 +ellps=WGS84 +towgs84=0,0,0", "EPSG:32632+5773"])
def test_bands_in_equal_crs_are_one_image(tmp_path: Path, crs: str) -> None:
    paths = [write(tmp_path / "s_red.tif", "EPSG:32632"), write(tmp_path / "s_nir.tif", crs)]
    assert open_source(paths).bands == ("red", "nir")


def test_bands_in_crs_with_one_name_are_refused_with_what_differs(tmp_path: Path) -> None:
    other = wkt("EPSG:32632", "WKT1_GDAL").replace('"central_meridian",9', '"central_meridian",9.5')
    paths = [
        write(tmp_path / "s_red.tif", "EPSG:32632"),
        write(tmp_path / "s_nir.tif", other.split(',AUTHORITY["EPSG","32632"]')[0] + "]"),
    ]
    with pytest.raises(SourceError, match=r"longitudeofnaturalorigin 9 against longitudeofnaturalorigin 9\.5"):
        open_source(paths)
