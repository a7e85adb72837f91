"""A CSV of scenes: what each row says of its own image, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesseg.errors import JobError
from tilesseg.scenes import Scene, find_scenes


def table(path: Path, text: str, *, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


def test_each_row_is_a_scene_with_its_own_name_and_pixel_size(tmp_path: Path) -> None:
    text = "image,name,mpp\nslides/17.svs,patient-17,\n18.tif,,0.2528\nhttps://host/19.tif,x,\n"
    assert find_scenes(table(tmp_path / "slides.csv", text)) == (
        Scene("patient-17", (str(tmp_path / "slides" / "17.svs"),)),
        Scene("18", (str(tmp_path / "18.tif"),), 0.2528),
        Scene("x", ("https://host/19.tif",)),
    )


def test_absolute_paths_stay_and_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = table(tmp_path / "slides.csv", f"image\n{tmp_path / 'other' / 'a.svs'}\n", encoding="utf-8-sig")
    assert find_scenes(path) == (Scene("a", (str(tmp_path / "other" / "a.svs"),)),)


def test_a_table_is_one_entry_among_others(tmp_path: Path) -> None:
    path = table(tmp_path / "slides.csv", "image\na.svs\n")
    assert [scene.name for scene in find_scenes((path, "b.svs"))] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no scenes"),
        ("image\n", "has no scenes"),
        ("image,mpp\na.svs,0\n", "line 2: mpp"),
        ("image,mpp\na.svs,0.5\nb.svs,fine\n", "line 3: mpp"),
        ("name\na\n", "line 2: image"),
        ("image,stain\na.svs,HE\n", "stain"),
        ("image\na.svs,0.5\n", "line 2"),
        ("image,name\na.svs,x/y\n", "line 2: name"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=said):
        find_scenes(table(tmp_path / "slides.csv", text))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read as a table of scenes"):
        find_scenes(str(tmp_path / "none.csv"))
