"""Images read and masks written, a folder for each family of files; `reading` and `writing` are shared.

Importing this package makes rasterio and pyogrio, which are imported later, use their own data: `reading.proj_data`.
"""

from __future__ import annotations

from tilesseg.formats.open import OpenSource as OpenSource
from tilesseg.formats.open import open_source as open_source
from tilesseg.formats.reading.edge_padding import read_reflected as read_reflected
from tilesseg.formats.reading.proj_data import use_own_data
from tilesseg.formats.registry import FORMATS as FORMATS
from tilesseg.formats.registry import Format as Format
from tilesseg.formats.registry import resolve as resolve
from tilesseg.formats.source import Pixels as Pixels
from tilesseg.formats.source import Raw as Raw
from tilesseg.formats.source import Source as Source
from tilesseg.formats.writer import FAILED_CLASS as FAILED_CLASS
from tilesseg.formats.writer import Check as Check
from tilesseg.formats.writer import Mask as Mask
from tilesseg.formats.writer import MaskClass as MaskClass
from tilesseg.formats.writer import MaskLevel as MaskLevel
from tilesseg.formats.writer import Scores as Scores
from tilesseg.formats.writer import Writer as Writer

use_own_data()
