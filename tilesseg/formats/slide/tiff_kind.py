"""Which TIFFs tifffile reads as well as OpenSlide, or better."""

from __future__ import annotations

import tifffile

COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 33005, 34712, 34925, 50000, 50001)
"""None, LZW, JPEG, deflate, PackBits, JPEG 2000 in RGB, LZMA, zstd, WebP. Not Aperio's JPEG 2000 in YCbCr (33003): its
colours have to be converted, which OpenSlide does."""
_SUFFIXES = (".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff")


def read_by_tifffile(path: str) -> bool:
    """Whether a slide is read by tifffile; a file that it cannot make sense of is left to OpenSlide."""
    if not path.lower().endswith(_SUFFIXES):
        return False
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            if file.is_ndpi or file.is_scn or file.is_philips or file.is_bif:
                return False
            return int(first.compression) in COMPRESSIONS
    except Exception:  # tifffile raises whatever a damaged file provokes
        return False
