"""Slides in DICOM: a folder, a glob or a list of the files of a slide is one slide; OpenSlide is the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from dicom_files import write_dicom

from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.open import open_source
from tilesseg.formats.slide.dicom_series import is_dicom_folder, slides_in
from tilesseg.planning.scene_list import Scene, find_scenes

IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)


def write_slide(folder: Path, series: str = "1.2.9", *, before: str = "", suffix: str = ".dcm") -> list[Path]:
    """A slide of two levels with a label, whose file comes first by its name."""
    folder.mkdir(exist_ok=True)
    return [
        write_dicom(folder / f"{before}0{suffix}", IMAGE[:20, :20], series=series, number=3, kind="LABEL"),
        write_dicom(folder / f"{before}1{suffix}", IMAGE, series=series, number=1),
        write_dicom(folder / f"{before}2{suffix}", IMAGE[::2, ::2], series=series, number=2, mpp=1.0),
    ]


def assert_is_the_slide(image: str | list[str]) -> None:
    source = open_source(image)
    np.testing.assert_array_equal(np.moveaxis(source.read(source.grid.window).values, 0, -1), IMAGE)
    assert source.grid.resolution == (0.5, 0.5)
    assert [level.grid.shape for level in source.levels] == [(48, 64)]


def scenes(requested: str) -> list[tuple[str, str]]:
    return [(scene.name, Path(scene.paths[0]).name) for scene in find_scenes(requested)]


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ""])
def test_a_folder_is_one_slide(tmp_path: Path, suffix: str) -> None:
    write_slide(tmp_path / "slide", suffix=suffix)
    assert format_of(str(tmp_path / "slide")) == "slide"
    assert_is_the_slide(str(tmp_path / "slide"))


def test_a_list_of_its_files_is_one_slide(tmp_path: Path) -> None:
    assert_is_the_slide([str(path) for path in write_slide(tmp_path / "slide")])


def test_a_glob_of_its_files_is_one_scene_with_the_name_of_the_folder(tmp_path: Path) -> None:
    write_slide(tmp_path / "slide")
    assert scenes(f"{tmp_path}/slide/*.dcm") == [("slide", "1.dcm")]
    assert scenes(f"{tmp_path}/slide") == [("slide", "slide")]
    assert scenes(f"{tmp_path}/*/*.dcm") == [("slide", "1.dcm")]


def test_two_slides_of_a_folder_are_two_scenes(tmp_path: Path) -> None:
    write_slide(tmp_path / "slides", "1.2.9", before="a")
    write_slide(tmp_path / "slides", "1.2.8", before="b")
    for requested in ("slides", "slides/*.dcm"):
        assert scenes(f"{tmp_path}/{requested}") == [("a1", "a1.dcm"), ("b1", "b1.dcm")]
    with pytest.raises(SourceError, match=r"2 slides are in it \(a1\.dcm, b1\.dcm\)"):
        open_source(str(tmp_path / "slides"))
    assert_is_the_slide(str(tmp_path / "slides/b1.dcm"))


def test_slides_of_several_folders_have_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_slide(tmp_path / name, f"1.2.{len(name)}.{name == 'one'}")
    assert scenes(f"{tmp_path}/*/*.dcm") == [("one", "1.dcm"), ("two", "1.dcm")]
    assert scenes(f"{tmp_path}/*") == [("one", "one"), ("two", "two")]


def test_a_label_in_a_series_of_its_own_is_no_slide(tmp_path: Path) -> None:
    write_slide(tmp_path / "slide")
    write_dicom(tmp_path / "slide/9.dcm", IMAGE[:20, :20], series="7.7", number=1, kind="OVERVIEW")
    assert [slide.image for slide in slides_in(str(tmp_path / "slide"))] == [str(tmp_path / "slide/1.dcm")]
    assert_is_the_slide(str(tmp_path / "slide"))


def test_the_identity_is_that_of_all_files_of_the_slide(tmp_path: Path) -> None:
    write_slide(tmp_path / "slides", "1.2.9", before="a")
    write_slide(tmp_path / "slides", "1.2.8", before="b")
    names = [Path(path).name for path in open_source(str(tmp_path / "slides/a2.dcm")).identity()]
    assert sorted(names) == ["a0.dcm", "a1.dcm", "a2.dcm"]


def test_a_damaged_file_is_a_slide_of_its_own_and_refused(tmp_path: Path) -> None:
    write_slide(tmp_path / "slide")
    (tmp_path / "slide/3.dcm").write_bytes(bytes(128) + b"DICM\x02\0")
    assert len(slides_in(str(tmp_path / "slide"))) == 2
    with pytest.raises(SourceError, match=r"3\.dcm with OpenSlide"):
        open_source(str(tmp_path / "slide/3.dcm"))


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("x" * 200)
    (tmp_path / "b.tif").write_bytes(b"II")
    assert not is_dicom_folder(str(tmp_path))
    assert find_scenes(str(tmp_path)) == (Scene(tmp_path.name, (str(tmp_path),)),)


def test_the_slide_of_the_cases_is_one_slide(shared_cases: Path) -> None:
    folder = shared_cases / "micro/dicom-slide"
    source = open_source(str(folder))
    with openslide.OpenSlide(next(folder.glob("*.dcm"))) as slide:
        expected = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    np.testing.assert_array_equal(np.moveaxis(source.read(source.grid.window).values, 0, -1), expected)
    assert [name for name, _ in scenes(f"{folder}/*.dcm")] == ["dicom-slide"]
