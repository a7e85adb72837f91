"""OME-TIFF as it is read: series, planes, channels and micrometres; tifffile's own reading is the oracle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from slide_files import halved, tissue

from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.raster.window import Window

RNG = np.random.default_rng(3)
MICRONS = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}


def noise(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    return RNG.integers(0, 4000, shape).astype(dtype)


def write_ome(path: Path, values: NDArray[Any], *, axes: str, levels: int = 1, **options: Any) -> Path:
    """An OME-TIFF with a pyramid in SubIFDs; `values` ends in `(y, x)`, or in `(y, x, sample)`."""
    told = {"axes": axes, **MICRONS, **options.pop("told", {})}
    options = {"photometric": "rgb" if axes.endswith("S") else "minisblack", "tile": (64, 64), **options}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(values, subifds=levels - 1, metadata=told, **options)
        for level in range(1, levels):
            step = 2**level
            coarse = values[..., ::step, ::step, :] if axes.endswith("S") else values[..., ::step, ::step]
            file.write(coarse, subfiletype=1, **options)
    return path


def whole(source: Any) -> NDArray[Any]:
    return source.read(source.grid.window).values


def test_channels_are_bands_with_their_names_and_their_own_micrometres(tmp_path: Path) -> None:
    values = noise(3, 150, 170)
    told = {"Channel": {"Name": ["DAPI", "nanog", "Lamin"]}}
    path = write_ome(tmp_path / "cells.ome.tif", values, axes="CYX", levels=3, told=told)
    source = open_source(str(path))
    assert format_of(str(path)) == "ome-tiff"
    assert source.bands == ("DAPI", "nanog", "Lamin")
    assert source.grid.transform == (0.25, 0, 0, 0, 0.5, 0)
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(whole(source), values)
    np.testing.assert_array_equal(whole(source.select([2, 0])), values[[2, 0]])
    assert [level.grid.resolution for level in source.levels] == [(1.0, 0.5), (2.0, 1.0)]
    np.testing.assert_array_equal(whole(source.levels[1].select([1])), values[[1], ::4, ::4])


def test_a_model_finds_red_green_and_blue_by_name(tmp_path: Path) -> None:
    image = tissue((150, 170))
    path = write_ome(tmp_path / "he.ome.tif", image, axes="YXS", levels=2)
    source = open_source(str(path))
    assert source.bands == ("red", "green", "blue")
    assert source.masks == (0, 0, 0)
    np.testing.assert_array_equal(whole(source), image.transpose(2, 0, 1))
    planes = write_ome(
        tmp_path / "rgb.ome.tif", image.transpose(2, 0, 1), axes="CYX", told={"Channel": {"Name": ["R", "G", "B"]}}
    )
    assert open_source(str(planes)).bands == ("red", "green", "blue")


def test_samples_kept_apart_are_bands_all_the_same(tmp_path: Path) -> None:
    image = tissue((150, 170)).transpose(2, 0, 1)
    path = tmp_path / "planar.ome.tif"
    tifffile.imwrite(
        path, image, ome=True, photometric="rgb", planarconfig="separate", tile=(64, 64), metadata={"axes": "SYX"}
    )
    source = open_source(str(path))
    assert source.bands == ("red", "green", "blue")
    np.testing.assert_array_equal(whole(source), image)
    np.testing.assert_array_equal(whole(source.select([1])), image[1:2])


def test_alpha_says_what_is_valid(tmp_path: Path) -> None:
    image = tissue((150, 170), channels=4)
    image[..., 3] = 255
    image[20:50, 100:, 3] = 0
    path = tmp_path / "rgba.ome.tif"
    told = {"axes": "YXS"}
    tifffile.imwrite(
        path, image, ome=True, photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64), metadata=told
    )
    source = open_source(str(path))
    assert source.bands == ("red", "green", "blue")
    values, valid = source.read(source.grid.window)
    np.testing.assert_array_equal(valid, image[..., 3] != 0)
    np.testing.assert_array_equal(values, image[..., :3].transpose(2, 0, 1))


def test_a_time_and_a_depth_are_chosen_where_there_are_several(tmp_path: Path) -> None:
    values = noise(2, 3, 4, 40, 50)
    path = write_ome(tmp_path / "stack.ome.tif", values, axes="TCZYX", tile=(16, 16), compression="deflate")
    with pytest.raises(SourceError, match="2 time points, of which 1 is read; choose t from 0 to 1"):
        open_source(str(path))
    with pytest.raises(SourceError, match="4 planes in depth, of which 1 is read; choose z from 0 to 3"):
        open_source(str(path), Opening(t=0))
    with pytest.raises(SourceError, match="z 4 is requested, of 4 planes in depth"):
        open_source(str(path), Opening(t=0, z=4))
    for t, z in ((0, 0), (1, 3)):
        np.testing.assert_array_equal(whole(open_source(str(path), Opening(t=t, z=z))), values[t, :, z])


def test_a_place_on_an_axis_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "flat.ome.tif", noise(40, 50), axes="YX", tile=(16, 16))
    assert open_source(str(path), Opening(t=0, z=0)).bands == (None,)
    with pytest.raises(SourceError, match="t 2 is requested"):
        open_source(str(path), Opening(t=2))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    path = tmp_path / "series.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, size in (("overview", 60), ("left", 200), ("right", 200)):
            told = {"axes": "YX", "Name": name, **MICRONS}
            file.write(noise(size, size), tile=(64, 64), metadata=told, photometric="minisblack")
    return path


def test_the_first_of_the_largest_images_is_read_and_that_is_said(three: Path) -> None:
    source = open_source(str(three))
    np.testing.assert_array_equal(whole(source)[0], tifffile.imread(three, series=1))
    notes = " ".join(source.describe()["notes"])
    assert "number 1 is read" in notes
    assert "1 'left' 200 × 200" in notes
    assert source.describe()["series"] == ["overview", "left", "right"]


@pytest.mark.parametrize("series", [2, "right", "2"])
def test_an_image_is_chosen_by_number_or_name(three: Path, series: int | str) -> None:
    source = open_source(str(three), Opening(series=series))
    np.testing.assert_array_equal(whole(source)[0], tifffile.imread(three, series=2))
    assert not [note for note in source.describe()["notes"] if "is read" in note]


@pytest.mark.parametrize("series", [3, -1, "middle"])
def test_an_unknown_image_is_refused_and_the_names_are_listed(three: Path, series: int | str) -> None:
    with pytest.raises(SourceError, match=r"is requested; choose one of 0 'overview' 60 × 60, 1 'left'"):
        open_source(str(three), Opening(series=series))


@pytest.mark.parametrize(
    ("size", "unit", "mpp"), [(250.0, "nm", 0.25), (0.00025, "mm", 0.25), (0.25, "um", 0.25), (2.0, "pixel", None)]
)
def test_every_unit_of_length_becomes_micrometres(tmp_path: Path, size: float, unit: str, mpp: float | None) -> None:
    told = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    path = write_ome(tmp_path / "a.ome.tif", noise(40, 50), axes="YX", tile=(16, 16), told=told)
    grid = open_source(str(path)).grid
    assert grid.unit == ("pixel" if mpp is None else "micrometre")
    assert grid.resolution == pytest.approx((mpp or 1.0,) * 2)


def test_strips_are_read_and_say_so(tmp_path: Path) -> None:
    values = noise(2, 90, 70)
    path = tmp_path / "strips.ome.tif"
    tifffile.imwrite(path, values, ome=True, rowsperstrip=16, compression="deflate", photometric="minisblack")
    source = open_source(str(path))
    assert source.storage_block == (16, 70)
    assert "strips of full rows" in " ".join(source.describe()["notes"])
    np.testing.assert_array_equal(source.read(Window(10, 5, 50, 40)).values, values[:, 10:60, 5:45])


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_uncompressed_rows_are_read_without_their_neighbours(tmp_path: Path, byteorder: Any) -> None:
    values = noise(2, 90, 70).astype("float32")
    path = tmp_path / "raw.ome.tif"
    tifffile.imwrite(path, values, ome=True, byteorder=byteorder, photometric="minisblack")
    source = open_source(str(path))
    assert source.storage_block == (1, 70)
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.read(Window(10, 5, 50, 40)).values, values[:, 10:60, 5:45])


def split(folder: Path, *, companion: bool) -> tuple[NDArray[Any], list[Path], Path]:
    """One image of two channels in two files, whose metadata are in the first one or in a companion file."""
    values = noise(2, 100, 120)
    names = ["c0.ome.tif", "c1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(names)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" Name="stain{c}" SamplesPerPixel="1"/>' for c in range(2))
    head = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">{}</OME>'
    image = (
        '<Image ID="Image:0" Name="both"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="120" '
        'SizeY="100" SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
        f"{channels}{planes}</Pixels></Image>"
    )
    only = '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:9"/>'
    for c, name in enumerate(names):
        text = head.format(c, only if companion else image)
        tifffile.imwrite(
            folder / name, values[c], tile=(64, 64), compression="deflate", description=text, metadata=None
        )
    root = folder / "set.companion.ome"
    if companion:
        root.write_text(head.format(9, image), encoding="utf-8")
    return values, [folder / name for name in names], root if companion else folder / names[0]


@pytest.mark.parametrize("companion", [True, False])
def test_a_set_of_files_is_one_image_and_all_of_them_are_its_identity(tmp_path: Path, companion: bool) -> None:
    values, files, root = split(tmp_path, companion=companion)
    for path in (root, files[1]):
        source = pickle.loads(pickle.dumps(open_source(str(path))))
        assert source.bands == ("stain0", "stain1")
        assert source.grid.resolution == (0.5, 0.5)
        np.testing.assert_array_equal(whole(source), values)
        assert {Path(name).name for name in source.identity()} == {root.name, *(file.name for file in files)}


def test_a_set_with_a_file_missing_is_refused_by_name(tmp_path: Path) -> None:
    _, files, root = split(tmp_path, companion=True)
    files[1].unlink()
    with pytest.raises(SourceError, match=r"set\.companion\.ome: c1\.ome\.tif of its set is missing"):
        open_source(str(root))
    root.unlink()
    with pytest.raises(SourceError, match=r"its metadata are in set\.companion\.ome, which is not beside it"):
        open_source(str(files[0]))


def test_a_real_ome_tiff_gives_what_tifffile_reads(shared_data: Path) -> None:
    path = shared_data / "microscopy/instanseg/HE_example.ome.tif"
    source = open_source(str(path))
    assert source.bands == ("red", "green", "blue")
    assert source.grid.resolution == pytest.approx((0.5000799214486333,) * 2, abs=1e-12)
    np.testing.assert_array_equal(whole(source).transpose(1, 2, 0), tifffile.imread(path))


def test_types_that_cannot_be_segmented_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "complex.ome.tif"
    tifffile.imwrite(path, np.zeros((32, 32), np.complex64), ome=True, tile=(16, 16))
    with pytest.raises(SourceError, match="values of type complex64, not one of uint8"):
        open_source(str(path))


def test_levels_of_the_pyramid_are_read_as_pixels_wanted(tmp_path: Path) -> None:
    image = tissue((256, 320))
    path = tmp_path / "he.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        told = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        levels = halved(image, 2)
        file.write(levels[0], subifds=1, tile=(64, 64), photometric="rgb", metadata=told)
        file.write(levels[1], subfiletype=1, tile=(64, 64), photometric="rgb")
    source = open_source(str(path), Opening(resolution=0.51))
    np.testing.assert_array_equal(whole(source), levels[1].transpose(2, 0, 1))
    assert "taken as they are for the 0.51 wanted" in " ".join(source.describe()["notes"])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("extras", "at"), [(["unassalpha"], 3), (["assocalpha"], 3), (["unspecified", "unassalpha"], 4),
    (["unassalpha", "unspecified"], 3)],
)  # fmt: skip
def test_alpha_is_the_mask_wherever_it_is_stored_and_a_band_where_asked(
    tmp_path: Path, planar: str, extras: list[str], at: int
) -> None:
    count = 3 + len(extras)
    image = tissue((70, 90), channels=count)
    image[..., at] = 255
    image[20:50, 60:, at] = 0
    stored = image if planar == "contig" else image.transpose(2, 0, 1)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, stored, ome=True, photometric="rgb", planarconfig=planar, extrasamples=extras, tile=(32, 32),
        metadata={"axes": "YXS" if planar == "contig" else "SYX"},
    )  # fmt: skip
    source = open_source(str(path))
    kept = [k for k in range(count) if k != at]
    assert source.bands == ("red", "green", "blue", *[None] * (len(kept) - 3))
    assert [band.number for band in source.alpha] == [at + 1]
    for bands in (range(len(kept)), [len(kept) - 1, 0]):
        values, valid = source.select(list(bands)).read(source.grid.window)
        np.testing.assert_array_equal(valid, image[..., at] != 0)
        np.testing.assert_array_equal(values, image[..., [kept[k] for k in bands]].transpose(2, 0, 1))
    asked = open_source(str(path), Opening(alpha="band"))
    assert (len(asked.bands), asked.alpha) == (count, ())
    values, valid = asked.read(asked.grid.window)
    assert valid.all()
    np.testing.assert_array_equal(values, image.transpose(2, 0, 1))
