"""What lies beside an image or is put together of others: masks, statistics, overviews, world files, VRTs, JPEG 2000.

rasterio, asked directly, is the oracle.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import SourceError, TilessegError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)


def values(bands: int = 1, shape: tuple[int, int] = (40, 60), *, dtype: str = "uint8", seed: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(1, 200, (bands, *shape)).astype(dtype)


def whole(path: Path | str, **how: Any) -> Any:
    source = open_source(str(path), Opening(**how))
    return source.read(source.grid.window)


def bare(path: Path, data: NDArray[Any], **profile: Any) -> Path:
    """A TIFF without any place."""
    shape = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(data)
    return path


def judged(path: Path) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.dataset_mask() != 0


def test_a_mask_file_beside_the_image_counts_and_belongs_to_it(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", values(3))
    hidden = np.zeros((40, 60), bool)
    hidden[5:20, 30:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(~hidden)
    beside = tmp_path / "scene.tif.msk"
    assert beside.exists()
    assert np.array_equal(whole(path).valid, ~hidden) and np.array_equal(judged(path), ~hidden)
    before = open_source(str(path)).identity()
    assert str(beside) in before
    beside.write_bytes(beside.read_bytes() + b"\0")
    assert open_source(str(path)).identity() != before


def test_one_mask_for_each_band_makes_valid_what_any_band_calls_valid(tmp_path: Path) -> None:
    path = tmp_path / "bands.vrt"
    one, two = (write_scene(tmp_path / f"{k}.tif", values(seed=k), nodata=k) for k in (7, 9))
    members = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>{k}</NoDataValue><ComplexSource><SourceFilename '
        f'relativeToVRT="1">{file.name}</SourceFilename><NODATA>{k}</NODATA></ComplexSource></VRTRasterBand>'
        for n, (k, file) in enumerate(((7, one), (9, two)), start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="40">{members}</VRTDataset>')
    with rasterio.open(path) as file:
        expected = (file.read_masks() != 0).any(axis=0)
    assert np.array_equal(whole(path).valid, expected)


def test_an_aux_xml_gives_place_colours_and_points(tmp_path: Path) -> None:
    crs = rasterio.CRS.from_epsg(32633).to_wkt()
    path, beside = bare(tmp_path / "scene.tif", values()), tmp_path / "scene.tif.aux.xml"
    beside.write_text(
        f"<PAMDataset><SRS>{crs}</SRS><GeoTransform>500000, 10, 0, 5600000, 0, -10</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>17</NoDataValue><Description>red</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    source = open_source(str(path))
    assert source.grid.transform == tuple(PLACE)[:6] and source.grid.unit == "metre"
    assert source.bands == ("red",) and str(beside) in source.identity()
    assert np.array_equal(source.read(source.grid.window).valid, values()[0] != 17)
    points = "".join(
        f'<GCP Id="{k}" Pixel="{k}" Line="{k * k}" X="{k}" Y="{-k}" Z="0"/>' for k in range(1, 5)
    )  # fmt: skip
    beside.write_text(f'<PAMDataset><GCPList Projection="EPSG:4326">{points}</GCPList></PAMDataset>')
    placement = open_source(str(path)).grid.placement
    assert placement is not None and [(p.x, p.y) for p in placement.points] == [(k, k * k) for k in range(1, 5)]


@pytest.mark.parametrize("suffix", [".tfw", ".wld"])
def test_a_world_file_gives_the_transform(tmp_path: Path, suffix: str) -> None:
    path, beside = bare(tmp_path / "scene.tif", values()), tmp_path / f"scene{suffix}"
    beside.write_text("10\n0\n0\n-10\n500005\n5599995\n")  # the centre of the first pixel
    source = open_source(str(path))
    assert source.grid.transform == tuple(PLACE)[:6] and source.grid.crs is None
    assert str(beside) in source.identity()


def test_overviews_beside_the_image_belong_to_it_and_are_never_the_mask(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", values(shape=(256, 256)))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
    beside = tmp_path / "scene.tif.ovr"
    assert beside.exists() and str(beside) in open_source(str(path)).identity()
    assert np.array_equal(whole(path).values, values(shape=(256, 256)))


def palette(path: Path, data: NDArray[Any]) -> Path:
    write_scene(path, data, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {k: (k, 255 - k, 7) for k in range(256)})
    return path


@pytest.mark.parametrize("resolution", [3, 4, 10, 25, 30])
def test_indices_into_a_palette_are_never_mixed(tmp_path: Path, resolution: float) -> None:
    data = values()
    got = whole(palette(tmp_path / "classes.tif", data), resolution=resolution)
    rows, columns = (
        np.minimum(np.floor((np.arange(n) + 0.5) * resolution / 10).astype(int), size - 1)
        for n, size in zip(got.values.shape[1:], data.shape[1:], strict=True)
    )
    assert np.array_equal(got.values[0], data[0][rows[:, None], columns])


def test_a_palette_image_gives_the_same_mask_from_its_copy(tmp_path: Path) -> None:
    image = palette(tmp_path / "classes.tif", values() % 3)
    bundle = write_bundle(tmp_path / "model", input_range=[0, 2])
    masks = []
    for stage in ("never", "always"):
        asked = {"resolution": 4, "stage": stage, "check_range": False}
        job = job_data(image, bundle, tmp_path / stage, input=asked)
        report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
        with rasterio.open(report.products[0]) as file:
            masks.append(file.read(1))
    assert np.array_equal(*masks) and np.array_equal(masks[0], whole(image, resolution=4).values[0])


def test_a_palette_image_is_refused_for_a_model_of_colours_with_what_to_do(tmp_path: Path) -> None:
    image = palette(tmp_path / "classes.tif", values())
    bundle = write_bundle(tmp_path / "model", "Constant", bands=3)
    with pytest.raises(
        SourceError, match=r"a palette image, 1 band of indices .* gdal_translate -expand rgb"
    ) as refused:
        run_job(parse_job(job_data(image, bundle, tmp_path / "run"), where="test"), executor=SerialExecutor())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("dtype", "remedy"), [("complex64", "amplitude"), ("int64", "-ot Float64"), ("uint64", "-ot")])
def test_a_type_that_cannot_be_segmented_is_refused_by_name_with_what_to_do(
    tmp_path: Path, dtype: str, remedy: str
) -> None:
    path = bare(tmp_path / "odd.tif", values(dtype=dtype))
    with pytest.raises(SourceError, match=f"data type {dtype}, not one of .*; .*{remedy}") as refused:
        open_source(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_than_eight_bits_come_as_bytes(tmp_path: Path, bits: int) -> None:
    data = values() % (1 << bits)
    assert np.array_equal(whole(bare(tmp_path / "bits.tif", data, nbits=bits)).values, data)


def mosaic(path: Path, members: list[Path], shape: tuple[int, int], *, nodata: int | None = 0) -> Path:
    """A VRT with the members side by side, 60 columns each, from column 0."""
    tag = "" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>"
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{member.name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="60" ySize="40"/><DstRect xOff="{60 * k}" yOff="0" xSize="60" ySize="40"/>'
        "</SimpleSource>"
        for k, member in enumerate(members)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}"><GeoTransform>500000, 10, 0, 5600000, 0, -10'
        f'</GeoTransform><VRTRasterBand dataType="Byte" band="1">{tag}{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


def test_what_no_member_of_a_mosaic_covers_is_nodata(tmp_path: Path) -> None:
    members = [write_scene(tmp_path / f"{k}.tif", values(seed=k)) for k in (1, 2)]
    path = mosaic(tmp_path / "mosaic.vrt", members, (50, 130))
    expected = np.zeros((50, 130), bool)
    expected[:40, :120] = True
    assert np.array_equal(whole(path).valid, expected) and np.array_equal(judged(path), expected)
    assert {str(path), *map(str, members)} <= set(open_source(str(path)).identity())


def test_a_mosaic_without_nodata_says_what_its_gaps_are(tmp_path: Path) -> None:
    path = mosaic(tmp_path / "mosaic.vrt", [write_scene(tmp_path / "1.tif", values())], (50, 130), nodata=None)
    source = open_source(str(path))
    assert source.read(source.grid.window).valid.all() and judged(path).all()
    assert any("a VRT without nodata" in note for note in source.describe()["notes"])


def test_a_member_that_is_gone_fails_its_tiles_and_is_never_zero(tmp_path: Path) -> None:
    members = [write_scene(tmp_path / f"{k}.tif", values(seed=k)) for k in (1, 2)]
    path = mosaic(tmp_path / "mosaic.vrt", members, (40, 120), nodata=None)
    members[1].unlink()
    source = open_source(str(path))
    assert np.array_equal(source.read(Window(0, 0, 40, 60)).values, values(seed=1))
    with pytest.raises(SourceError, match=r"2\.tif"):
        source.read(Window(0, 50, 40, 40))


def test_a_mosaic_with_no_member_left_is_refused_before_the_first_tile(tmp_path: Path) -> None:
    path = mosaic(tmp_path / "mosaic.vrt", [tmp_path / "gone.tif"], (40, 60))
    bundle = write_bundle(tmp_path / "model", "Constant")
    with pytest.raises(TilessegError, match=r"gone\.tif") as refused:
        run_job(parse_job(job_data(path, bundle, tmp_path / "run"), where="test"), executor=SerialExecutor())
    assert "\n" not in str(refused.value)


def test_a_mosaic_of_real_scenes_is_what_rasterio_reads(shared_data: Path, tmp_path: Path) -> None:
    """Two overlapping scenes, laid out by their own transforms."""
    scenes = [shared_data / f"satellite/riotiler/mosaic_cog{k}.tif" for k in (1, 2)]
    opened = [rasterio.open(scene) for scene in scenes]
    left, top = min(f.bounds.left for f in opened), max(f.bounds.top for f in opened)
    size = opened[0].transform.a
    columns, rows = (
        [round((f.bounds.left - left) / size) for f in opened],
        [round((top - f.bounds.top) / size) for f in opened],
    )
    width = max(x + f.width for x, f in zip(columns, opened, strict=True))
    height = max(y + f.height for y, f in zip(rows, opened, strict=True))
    bands = ""
    for band in (1, 2, 3):
        sources = "".join(
            f"<ComplexSource><SourceFilename>{scene}</SourceFilename><SourceBand>{band}</SourceBand><SrcRect xOff='0' "
            f"yOff='0' xSize='{f.width}' ySize='{f.height}'/><DstRect xOff='{x}' yOff='{y}' xSize='{f.width}' "
            f"ySize='{f.height}'/><NODATA>0</NODATA></ComplexSource>"
            for scene, f, x, y in zip(scenes, opened, columns, rows, strict=True)
        )
        bands += f"<VRTRasterBand dataType='UInt16' band='{band}'><NoDataValue>0</NoDataValue>{sources}</VRTRasterBand>"
    path = tmp_path / "mosaic.vrt"
    path.write_text(
        f"<VRTDataset rasterXSize='{width}' rasterYSize='{height}'><SRS>{opened[0].crs.to_wkt()}</SRS><GeoTransform>"
        f"{left}, {size}, 0, {top}, 0, {-size}</GeoTransform>{bands}</VRTDataset>"
    )
    for file in opened:
        file.close()
    got = whole(path)
    with rasterio.open(path) as file:
        assert np.array_equal(got.values, file.read())
        assert np.array_equal(got.valid, file.dataset_mask() != 0) and 0 < got.valid.mean() < 1
    assert {str(scene) for scene in scenes} <= set(open_source(str(path)).identity())


def test_a_vrt_with_a_builtin_pixel_function_is_read_as_gdal_computes_it(tmp_path: Path) -> None:
    real = write_scene(tmp_path / "complex.tif", values().astype("complex64") * (3 + 4j))
    path = tmp_path / "amplitude.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="60" rasterYSize="40"><VRTRasterBand dataType="Float32" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>mod</PixelFunctionType><SourceTransferType>CFloat32'
        f'</SourceTransferType><SimpleSource><SourceFilename relativeToVRT="1">{real.name}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert np.allclose(whole(path).values, values() * 5.0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("side", [64, 1024], ids=["tiled", "one tile"])
def test_lossless_jpeg_2000_is_read_as_it_was_written(tmp_path: Path, dtype: str, side: int) -> None:
    data = values(3, (150, 170), dtype=dtype)
    write_scene(tmp_path / "scene.tif", data)
    path = tmp_path / "scene.jp2"
    lossless = {"QUALITY": 100, "REVERSIBLE": "YES", "YCBCR420": "NO", "BLOCKXSIZE": side, "BLOCKYSIZE": side}
    rasterio.shutil.copy(tmp_path / "scene.tif", path, driver="JP2OpenJPEG", **lossless)
    source = open_source(str(path))
    assert source.grid.transform == tuple(PLACE)[:6] and source.grid.crs is not None
    assert np.array_equal(source.read(source.grid.window).values, data)
    part = Window(70, 60, 50, 90)
    assert np.array_equal(source.read(part).values, data[:, *part.slices()])


@pytest.mark.parametrize("left", [0, 40, 400, 6000])
def test_a_cut_jpeg_2000_costs_one_line(tmp_path: Path, left: int) -> None:
    write_scene(tmp_path / "whole.tif", values(1, (200, 200)))
    path = tmp_path / "cut.jp2"
    rasterio.shutil.copy(tmp_path / "whole.tif", path, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(SourceError, match=r"cut\.jp2") as refused:
        whole(path)
    assert "\n" not in str(refused.value)


def test_the_alpha_band_of_a_vrt_is_its_mask(tmp_path: Path) -> None:
    data = values(4)
    data[3, :10] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    image = write_scene(tmp_path / "scene.tif", data, photometric="RGB", alpha="yes")
    rasterio.shutil.copy(image, tmp_path / "scene.vrt", driver="VRT")
    source = open_source(str(tmp_path / "scene.vrt"))
    with rasterio.open(tmp_path / "scene.vrt") as file:
        assert list(file.colorinterp) == colours
    assert len(source.bands) == 3 and np.array_equal(source.read(source.grid.window).valid, data[3] != 0)


def test_a_member_that_cannot_be_opened_is_never_read_as_zeros_however_often_it_is_asked_for(tmp_path: Path) -> None:
    """GDAL keeps failed members in a pool, and a later handle may get zeros from it without an error."""
    write_scene(tmp_path / "there.tif", np.full((1, 40, 60), 7, np.uint8))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no image")
    inner = mosaic(tmp_path / "inner.vrt", [tmp_path / "gone.tif"], (40, 60))
    for member in (tmp_path / "gone.tif", tmp_path / "broken.tif", inner):
        path = mosaic(tmp_path / f"of_{member.name}.vrt", [tmp_path / "there.tif", member], (40, 120))
        for _ in range(20):
            source = open_source(str(path))
            assert (source.read(Window(0, 0, 40, 60)).values == 7).all()
            with pytest.raises(SourceError, match=r"gone\.tif|broken\.tif"):
                source.read(Window(0, 50, 40, 20))
