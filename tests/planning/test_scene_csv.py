"""A CSV of scenes: what each row says of its own image, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesseg.errors import JobError
from tilesseg.planning.job import Input
from tilesseg.planning.scene_csv import COLUMNS
from tilesseg.planning.scene_list import Scene, find_scenes


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


def test_a_row_may_say_how_its_image_is_read(tmp_path: Path) -> None:
    text = (
        "image,priority,bands,scale,series,level,check_range,tissue,outside,stage\n"
        "a.svs,7,,,2,1,no,masks/a.png,background,never\n"
        "b.tif,,red nir 3,0.0001,,,,none,,\n"
        "c.tif,,near infrared;B 4,,Image 3,,,,,\n"
    )
    a, b, c = find_scenes(table(tmp_path / "slides.csv", text))
    assert a.priority == 7 and a.input == {
        "series": 2, "level": 1, "check_range": False, "tissue": str(tmp_path / "masks" / "a.png"),
        "outside": "background", "stage": "never",
    }  # fmt: skip
    assert (b.priority, b.input) == (0, {"bands": ["red", "nir", 3], "scale": 0.0001, "tissue": "none"})
    assert c.input == {"bands": ["near infrared", "B 4"], "series": "Image 3"}


def test_every_key_of_the_section_input_may_be_a_column() -> None:
    assert set(Input.model_fields) <= set(COLUMNS)


def test_several_files_of_one_image_are_separated_by_semicolons(tmp_path: Path) -> None:
    text = "image,name\nT1_B02.tif; T1_B03.tif,t1\n/data/T2_B02.tif;https://host/T2_B03.tif,t2\n"
    one, two = find_scenes(table(tmp_path / "scenes.csv", text))
    assert one.paths == (str(tmp_path / "T1_B02.tif"), str(tmp_path / "T1_B03.tif"))
    assert two.paths == ("/data/T2_B02.tif", "https://host/T2_B03.tif")


def test_a_row_is_one_scene_whatever_signs_its_path_has(tmp_path: Path) -> None:
    assert [scene.name for scene in find_scenes(table(tmp_path / "s.csv", "image\na*.tif\n\nb[1].tif\n"))] == [
        "a*",
        "b[1]",
    ]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    text = 'image,name\n"a\nb.tif",x\n\nc.tif,y/z\n'
    with pytest.raises(JobError, match="line 5: name"):
        find_scenes(table(tmp_path / "s.csv", text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no scenes"),
        ("image\n", "has no scenes"),
        ("image,mpp\na.svs,0\n", "line 2: mpp"),
        ("image,mpp\na.svs,0.5\nb.svs,fine\n", "line 3: mpp"),
        ("name\na\n", "line 2: image"),
        ("image,stain\na.svs,HE\n", "line 1: unknown column 'stain'; use some of image, name, mpp, priority, bands"),
        ("image,name,name\na.svs,a,b\n", "line 1: two columns are called name"),
        ("image\na.svs,0.5\n", "line 2: 2 fields for 1 columns"),
        ("image,priority\na.svs,high\n", "line 2: priority: .*not 'high'"),
        ("image,scale\na.svs,1\nb.svs,x\n", "line 3: scale: .*not 'x'"),
        ("image,outside\na.svs,white\n", "line 2: outside: .*'background', not 'white'"),
        ("image,level\na.svs,-1\n", "line 2: level"),
        ("image\n;\n", "line 2: image"),
        ("image,name\na.svs,x/y\n", "line 2: name"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=said) as refused:
        find_scenes(table(tmp_path / "slides.csv", text))
    assert "\n" not in str(refused.value)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="as a table of scenes: "):
        find_scenes(str(tmp_path / "none.csv"))
