"""Damage that a library hides: an altered file is refused where a strict reader refuses it, else reads as there."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
import simplejpeg
import tifffile
import zarr
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray
from PIL import Image
from slide_files import tissue, write_pyramid

from tilesseg.cli.main import run
from tilesseg.errors import SourceError
from tilesseg.formats.damage import is_damage
from tilesseg.formats.geotiff.single_block import check_png
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

SHAPE = (128, 192)
PICTURE = tissue(SHAPE)
FLIPS = 25

Strict = Callable[[Path], NDArray[Any]]
"""Pixels `(channel, y, x)` of a whole file by a strict reader; any error where it refuses the file."""


def read_by_us(path: Path) -> NDArray[Any] | None:
    """Pixels `(channel, y, x)` of a whole image; None where it is damaged."""
    try:
        source = open_source(str(path))
        source.refuse_damaged()
        return source.read(source.grid.window).values
    except SourceError as error:
        assert "\n" not in str(error)
        return None


def by_tifffile(path: Path) -> NDArray[Any]:
    return np.moveaxis(tifffile.imread(path), -1, 0)


def by_simplejpeg(path: Path) -> NDArray[Any]:
    """JPEG tiles of a TIFF: refused strictly, and with the pixels of tifffile or GDAL, which take no notice."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        tables = page.jpegtables[2:-2] if page.jpegtables else b""
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            data = path.read_bytes()[offset : offset + count]
            simplejpeg.decode_jpeg(b"\xff\xd8" + tables + data[2:])
    if path.suffix == ".svs":
        return by_tifffile(path)
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def altered(path: Path, where: list[tuple[int, int]], number: int) -> None:
    """Change one bit of the file in one of these ranges `(offset, count)`."""
    rng = np.random.default_rng(number)
    offset, count = where[rng.integers(len(where))]
    data = bytearray(path.read_bytes())
    data[offset + rng.integers(count)] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def blocks_of(path: Path) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def geotiff(path: Path, **profile: Any) -> Path:
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"}
    return write_scene(path, PICTURE.transpose(2, 0, 1), **{**tiles, **profile})


GEOTIFFS: dict[str, dict[str, Any]] = {
    "deflate": {"compress": "deflate"},
    "deflate with differences": {"compress": "deflate", "predictor": 2},
    "deflate in strips": {"compress": "deflate", "tiled": False, "blockysize": 16},
    "deflate in one strip": {"compress": "deflate", "tiled": False, "blockysize": 128},
    "deflate in planes": {"compress": "deflate", "interleave": "band"},
    "lzw": {"compress": "lzw"},
    "zstd": {"compress": "zstd"},
    "lzma": {"compress": "lzma"},
    "packbits": {"compress": "packbits"},
    "webp": {"compress": "webp", "webp_lossless": True},
    "lerc": {"compress": "lerc"},
    "lerc and deflate": {"compress": "lerc_deflate"},
    "lerc and zstd": {"compress": "lerc_zstd"},
    "jpeg": {"compress": "jpeg", "photometric": "ycbcr"},
}


def by_strict_tiff(name: str) -> Strict:
    if name == "jpeg":
        return by_simplejpeg
    if name == "deflate in planes":
        return lambda path: np.asarray(tifffile.imread(path))
    return by_tifffile


@pytest.mark.parametrize("name", GEOTIFFS)
def test_an_altered_geotiff_is_damaged_or_reads_as_a_strict_reader_reads_it(tmp_path: Path, name: str) -> None:
    sound = geotiff(tmp_path / "sound.tif", **GEOTIFFS[name]).read_bytes()
    _compare(tmp_path, "s.tif", sound, blocks_of(tmp_path / "sound.tif"), by_strict_tiff(name))


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "lzma", "packbits", "webp", "jpeg"])
def test_an_altered_slide_is_damaged_or_reads_as_a_strict_reader_reads_it(tmp_path: Path, compression: str) -> None:
    path = write_pyramid(tmp_path / "sound.tif", [PICTURE, PICTURE[::2, ::2]], compression=compression, mpp=0.5)
    strict = by_simplejpeg if compression == "jpeg" else by_tifffile
    _compare(tmp_path, "s.svs", path.read_bytes(), blocks_of(path), strict)


def _compare(folder: Path, name: str, sound: bytes, where: list[tuple[int, int]], strict: Strict) -> None:
    """Alter a bit again and again, and compare with a strict reader."""
    path, refused = folder / name, 0
    path.write_bytes(sound)
    whole = read_by_us(path)
    assert whole is not None
    for number in range(FLIPS):
        path.write_bytes(sound)
        altered(path, where, number)
        ours = read_by_us(path)
        try:
            wanted = strict(path)
        except Exception:
            assert ours is None, number
            refused += 1
            continue
        assert ours is None or (ours == wanted).all(), number


def png(path: Path) -> Path:
    path.write_bytes(imagecodecs.png_encode(PICTURE))
    return path


def by_jpeg2k(path: Path) -> NDArray[Any]:
    return np.moveaxis(imagecodecs.jpeg2k_decode(path.read_bytes()), -1, 0)


def test_an_altered_jpeg_2000_is_damaged_or_reads_as_a_strict_reader_reads_it(tmp_path: Path) -> None:
    sound = imagecodecs.jpeg2k_encode(PICTURE, reversible=True, codecformat="jp2")
    _compare(tmp_path, "s.jp2", sound, [(200, len(sound) - 200)], by_jpeg2k)


def test_an_altered_png_is_refused_whole(tmp_path: Path) -> None:
    sound = png(tmp_path / "s.png").read_bytes()
    path = tmp_path / "s.png"
    for number in range(FLIPS):
        path.write_bytes(sound)
        altered(path, [(33, len(sound) - 33)], number)
        assert read_by_us(path) is None, number


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99, 1.0])
def test_a_png_that_ends_too_early_is_refused_whole(tmp_path: Path, keep: float) -> None:
    path = png(tmp_path / "s.png")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) - (12 if keep == 1 else 0)])
    assert read_by_us(path) is None


def test_a_png_with_too_few_pixels_and_right_checksums_is_refused_whole(tmp_path: Path) -> None:
    path = png(tmp_path / "s.png")
    pixels = zlib.compress(bytes(100))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    path.write_bytes(path.read_bytes()[:33] + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    assert read_by_us(path) is None


def adam7(pixels: NDArray[np.uint8]) -> bytes:
    """An interlaced PNG of one byte a pixel, row by row of its seven passes (PNG specification, section 8.2)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, down, across in passes for row in pixels[y::down, x::across] if len(row)]
    height, width = pixels.shape
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 1])
    chunks = [
        (b"IHDR", head),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 9), (37, 41), (64, 64)])
def test_an_interlaced_png_is_sound(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "s.png").write_bytes(adam7(pixels))
    read = read_by_us(tmp_path / "s.png")
    assert read is not None
    np.testing.assert_array_equal(read[0], pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13)])
def test_a_png_of_any_kind_of_pixel_is_sound(tmp_path: Path, mode: str, shape: tuple[int, int]) -> None:
    image = Image.new(mode, shape[::-1])
    image.save(tmp_path / "s.png")
    check_png(str(tmp_path / "s.png"))


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_a_png_in_an_archive_and_behind_an_address_is_checked_too(tmp_path: Path, url: str, keep: float) -> None:
    data = png(tmp_path / "s.png").read_bytes()
    (tmp_path / "s.png").write_bytes(data[: int(len(data) * keep)])
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "s.png", "s.png")
    for path in (f"/vsizip/{tmp_path}/s.zip/s.png", f"{url}/s.png"):
        source = open_source(path)
        if keep == 1:
            source.refuse_damaged()
        else:
            with pytest.raises(SourceError, match="the PNG is damaged"):
                source.refuse_damaged()


def test_a_damaged_png_is_refused_as_the_region_of_interest(tmp_path: Path) -> None:
    image = geotiff(tmp_path / "s.tif", compress="deflate")
    path = png(tmp_path / "region.png")
    path.write_bytes(path.read_bytes()[:-4000])
    given = {"tissue": str(path), "bands": [1, 2, 3]}
    job = job_data(str(image), write_bundle(tmp_path / "model", bands=3), tmp_path / "run", input=given)
    with pytest.raises(SourceError, match="the PNG is damaged"):
        run_job(parse_job(job, where="test"))


@pytest.mark.parametrize("encode", [imagecodecs.jpeg_encode, imagecodecs.webp_encode])
def test_a_stream_that_ends_too_early_is_refused_whole(tmp_path: Path, encode: Any) -> None:
    path, data = tmp_path / "s.img", encode(PICTURE)
    path.write_bytes(data)
    assert read_by_us(path) is not None
    for keep in (0.3, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * keep)])
        assert read_by_us(path) is None, keep


def test_a_damaged_png_refuses_the_scene_before_its_first_tile_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bundle = png(tmp_path / "s.png"), write_bundle(tmp_path / "model", bands=3)
    path.write_bytes(path.read_bytes()[:-4000])
    out = tmp_path / "mask.tif"
    given = ["--bands", "1,2,3", "--workers", "1"]
    assert run(["segment", str(path), "--model", str(bundle), "--out", str(out), *given]) == 1
    error = capsys.readouterr().err
    assert "PNG is damaged" in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("codec", ["crc32c", "zstd", "gzip", "blosc"])
def test_an_altered_zarr_is_damaged_or_reads_as_zarr_reads_it(tmp_path: Path, codec: str) -> None:
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

    compressors: dict[str, Any] = {
        "crc32c": [Crc32cCodec()],
        "zstd": [ZstdCodec(checksum=True)],
        "gzip": [GzipCodec()],
        "blosc": [BloscCodec(cname="zstd"), Crc32cCodec()],
    }
    path = tmp_path / "s.zarr"
    array = zarr.create_array(
        str(path), shape=(3, *SHAPE), chunks=(3, 64, 64), dtype="uint8", compressors=compressors[codec],
        serializer=BytesCodec(), dimension_names=["band", "y", "x"],
    )  # fmt: skip
    array[:] = PICTURE.transpose(2, 0, 1)
    chunks = sorted(file for file in path.glob("c/**/*") if file.is_file())
    sound = [chunk.read_bytes() for chunk in chunks]
    wrong = 0
    for number in range(FLIPS):
        at = number % len(chunks)
        altered(chunks[at], [(0, len(sound[at]))], number)
        ours = read_by_us(path)
        wrong += ours is None
        assert ours is None or (ours == PICTURE.transpose(2, 0, 1)).all(), number
        chunks[at].write_bytes(sound[at])
    assert wrong > FLIPS * 0.9


def test_an_error_of_a_remote_file_is_damage_only_if_its_values_cannot_be_decoded() -> None:
    def error(where: str, cause: Exception) -> SourceError:
        raised = SourceError(where)
        raised.__cause__ = cause
        return raised

    remote = "/vsicurl/https://host/a.tif: cannot read rows 0–3"
    assert is_damage(error(remote, ValueError("ZIPDecode:Decoding error at scanline 0")))
    assert not is_damage(error(remote, ValueError("TIFFReadEncodedTile() failed")))
    assert not is_damage(error(remote, ValueError("HTTP response code: 403")))
    assert not is_damage(error("a.tif", PermissionError(13, "Permission denied")))
    assert not is_damage(error("a.tif", ConnectionResetError()))
    assert not is_damage(error("a.tif", MemoryError()))
    assert not is_damage(SourceError("a.tif: it is not copied yet"))
    assert is_damage(error("a.tif", OSError("the file ends 4 bytes before the tile does")))


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="shared cases are not here")
@pytest.mark.parametrize(
    "case", ["fuzz/00-png-a.png", "fuzz/02-tif-strip-01-epsg2056.tif", "micro/one-damaged-tile.tif"]
)
def test_a_case_is_refused_or_done_with_damage(tmp_path: Path, case: str) -> None:
    source = open_source(str(CASES / case))
    bundle = write_bundle(tmp_path / "model", bands=len(source.bands))
    scene = {"image": str(CASES / case), "name": "s"}
    given = {"bands": list(range(1, len(source.bands) + 1)), "check_range": False, "tissue": "none"}
    tiling = {"patch": 64, "overlap": 16, "blend": "gaussian"}
    job = parse_job(job_data(scene, bundle, tmp_path / "run", input=given, tiling=tiling), where="test")
    if case.startswith("fuzz"):
        with pytest.raises(SourceError, match=r"damaged|check"):
            run_job(job)
        return
    report = run_job(job)
    assert report.exit_code == 3 and report.scenes[0].state == "damaged" and report.scenes[0].products
    assert report.scenes[0].damaged_pixels < source.grid.window.area / 2
