"""Data of PROJ and GDAL that belong to the installed rasterio: used instead of another installation's, and tested.

`PROJ_LIB`, `PROJ_DATA` and `GDAL_DATA` of another installation (QGIS, conda, an older PROJ) make libraries fail without
a word: a CRS is read as a local one, and the mask is written with it. Wheels of rasterio and pyogrio have data of their
own, which they find where these variables are not set. A rasterio without data of its own uses its system's.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tilesseg.errors import SourceError, cannot

VARIABLES = {"PROJ_DATA": "proj_data", "PROJ_LIB": "proj_data", "GDAL_DATA": "gdal_data"}
"""Variables that name folders of data, and the folder of a wheel of rasterio that serves instead."""
_SET_ASIDE: dict[str, str] = {}


def use_own_data() -> None:
    """Take variables that name another installation's data out of the environment, of child processes, too.

    To be called before rasterio is imported; where it is imported already, it is pointed to its own data.
    """
    package = _package()
    for variable, name in VARIABLES.items():
        folder, value = package / name if package else None, os.environ.get(variable)
        if (
            value is None
            or folder is None
            or not folder.is_dir()
            or os.path.realpath(value) == os.path.realpath(folder)
        ):
            continue
        _SET_ASIDE[variable] = os.environ.pop(variable)
    if _SET_ASIDE and package and "rasterio._env" in sys.modules:
        from rasterio._env import set_gdal_config, set_proj_data_search_path

        set_proj_data_search_path(str(package / "proj_data"))
        set_gdal_config("GDAL_DATA", str(package / "gdal_data"))


def data_note() -> str | None:
    """Sentence on variables that named another installation's data, or None."""
    if not _SET_ASIDE:
        return None
    named = " and ".join(f"{variable} ({value})" for variable, value in _SET_ASIDE.items())
    return f"{named} {'is' if len(_SET_ASIDE) == 1 else 'are'} not used: rasterio has data of its own"


@cache
def check_data() -> None:
    """Refuse to read a CRS with data that do not work.

    Raises:
        SourceError: PROJ does not know EPSG:32632 by its code.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.crs import CRS
    from rasterio.errors import CRSError, RasterioError

    try:
        name = CRS.from_epsg(32632).to_dict(projjson=True).get("name", "nothing")
    except (CRSError, RasterioError, CPLE_BaseError) as error:
        name = str(error)
    if name == "WGS 84 / UTM zone 32N":
        return
    named = ", ".join(f"{variable}={os.environ[variable]}" for variable in VARIABLES if variable in os.environ)
    cause = f"PROJ's data do not work, EPSG:32632 gives {name} ({named or 'no variable names them'})"
    remedy = "unset PROJ_LIB, PROJ_DATA and GDAL_DATA, or install rasterio again"
    raise SourceError(cannot("read coordinate reference systems", cause, remedy))


def _package() -> Path | None:
    """Folder of rasterio, which is not imported for it; None where it is not installed."""
    spec = find_spec("rasterio")
    return Path(spec.origin).parent if spec and spec.origin else None
