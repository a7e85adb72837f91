"""Which scenes a job names, which of them are chosen, and the list of them that a run keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tilesseg.errors import JobError, StoreError
from tilesseg.formats.stac.stac_items import safe_name
from tilesseg.planning.job import SceneEntry, parse_job
from tilesseg.planning.scene_list import Scene, choose_scenes, find_scenes, read_scene_list, write_scene_list


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(asked: str | SceneEntry | tuple[str | SceneEntry, ...]) -> list[str]:
    return [scene.name for scene in find_scenes(asked)]


def test_a_glob_gives_a_scene_for_each_match_in_the_order_of_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "b.tif", "a.tif", "sub/c.tif", "notes.txt")
    assert find_scenes(f"{tmp_path}/*.tif") == tuple(Scene(n, (str(tmp_path / f"{n}.tif"),)) for n in "ab")
    assert names(f"{tmp_path}/**/*.tif") == ["a", "b", "c"]
    assert names(f"{tmp_path}/[b-z].tif") == ["b"]


def test_a_folder_that_a_glob_matches_is_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "LC08_1/LC08_1_B2.TIF", "LC08_1/LC08_1_B3.TIF", "LC08_2/LC08_2_B2.TIF")
    assert find_scenes(f"{tmp_path}/LC08_*") == tuple(Scene(f"LC08_{k}", (f"{tmp_path}/LC08_{k}",)) for k in (1, 2))


def test_a_pattern_that_ends_in_two_stars_means_files(tmp_path: Path) -> None:
    touch(tmp_path, "2024/a.tif", "2025/b.tif")
    assert names(f"{tmp_path}/**") == ["a", "b"]


def test_a_glob_passes_over_what_lies_beside_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.tif.aux.xml", "a.tif.ovr", "a.TFW", "a.qml", "a.tif.msk")
    assert find_scenes(f"{tmp_path}/*") == (Scene("a", (str(tmp_path / "a.tif"),)),)


def test_a_file_that_has_brackets_in_its_name_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].tif", "a1.tif")
    assert names(f"{tmp_path}/a[1].tif") == ["a[1]"]


def test_the_question_mark_of_an_address_is_no_pattern() -> None:
    assert find_scenes("https://host/a.tif?token=x*y") == (Scene("a", ("https://host/a.tif?token=x*y",)),)


def test_a_glob_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no image matches .*\.tif; correct scenes"):
        find_scenes(f"{tmp_path}/*.tif")


def test_images_are_not_opened_so_that_a_missing_one_is_a_scene_too(tmp_path: Path) -> None:
    assert names((str(tmp_path / "gone.tif"), str(tmp_path / "lost.json"))) == ["gone", "lost"]


def test_what_an_entry_says_holds_for_all_scenes_that_it_names(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.tif", "north/b.tif")
    entry = SceneEntry(image=f"{tmp_path}/north/*.tif", mpp=0.5, priority=2, input={"bands": [1, 2]})
    assert find_scenes(entry) == tuple(
        Scene(name, (f"{tmp_path}/north/{name}.tif",), 0.5, 2, {"bands": [1, 2]}) for name in "ab"
    )


def test_a_row_of_a_table_goes_before_the_entry_that_names_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,mpp,scale\na.tif,0.25,\nb.tif,,2\n")
    a, b = find_scenes(SceneEntry(image=str(tmp_path / "t.csv"), mpp=1.0, input={"scale": 3.0, "offset": 1.0}))
    assert (a.mpp, a.input, b.mpp, b.input) == (0.25, {"scale": 3.0, "offset": 1.0}, 1.0, {"scale": 2.0, "offset": 1.0})


def test_a_name_is_for_one_scene(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    assert names(SceneEntry(image=f"{tmp_path}/a*", name="first")) == ["first"]
    with pytest.raises(JobError, match="has 2 scenes, and name both is for a single one"):
        find_scenes(SceneEntry(image=f"{tmp_path}/*.tif", name="both"))


def test_several_files_of_an_entry_are_one_scene() -> None:
    entry = SceneEntry(image=("b/T_B02.tif", "b/T_B03.tif"), name="t", priority=-1)
    assert find_scenes((entry,)) == (Scene("t", ("b/T_B02.tif", "b/T_B03.tif"), priority=-1),)


def test_where_files_give_one_name_their_folders_are_added(tmp_path: Path) -> None:
    assert names(("x/a.tif", "b.tif", "y/a.svs")) == ["x-a", "b", "y-a"]
    touch(tmp_path, "p1/HE.tif", "p2/HE.tif", "q/p2/HE.tif", "p1/CD3.tif")
    assert names(f"{tmp_path}/p*/*.tif") == ["CD3", "p1-HE", "p2-HE"]
    assert names((f"{tmp_path}/p2/HE.tif", f"{tmp_path}/q/p2/HE.tif")) == [
        f"{safe_name(tmp_path.name)}-p2-HE",
        "q-p2-HE",
    ]
    assert names(("d/a.tif", "d/a.svs")) == ["a.tif", "a.svs"]
    assert names(("d/a.tif", "d/a.svs", "e/a.tif")) == ["d-a.tif", "d-a.svs", "e-a.tif"]
    assert names(("https://host/1/a.tif?sig=x", "https://host/2/a.tif?sig=y")) == ["1-a", "2-a"]
    (tmp_path / "t.csv").write_text("image,name\nx/a.tif,\ny/a.tif,a\nz/a.tif,\n")
    assert names(f"{tmp_path}/t.csv") == ["x-a", "a", "z-a"]  # a name that is given stays


def test_two_scenes_that_nothing_tells_apart_are_refused_with_both_paths() -> None:
    with pytest.raises(JobError, match=r"two scenes are called a: x/a\.tif and x/a\.tif; give one another name"):
        find_scenes(("x/a.tif", "b.tif", "x/a.tif"))
    with pytest.raises(JobError, match=r"two scenes are called a: x\.tif and y\.tif; give one another name"):
        find_scenes((SceneEntry(image="x.tif", name="a"), SceneEntry(image="y.tif", name="a")))


def test_names_lose_known_suffixes_only() -> None:
    kept = {
        "ortho_2024.05.01.tif": "ortho_2024.05.01",
        "HLS.S30.T10SEG.2020203T184919.v2.0.B02.tif": "HLS.S30.T10SEG.2020203T184919.v2.0.B02",
        "2024-05-12_09.59.06.tif": "2024-05-12_09.59.06",
        "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs": "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF",
        "MOD09GA.A2024001.h18v04.061.hdf": "MOD09GA.A2024001.h18v04.061",
        "a.ome.tif": "a",
        "a.OME.TIFF": "a",
        "s.companion.ome": "s",
        "x.ome.zarr": "x",
        "S2B_MSIL2A_20230611.SAFE": "S2B_MSIL2A_20230611",
        "v1.2/site.tif.gz": "site",
        "2024.05.01": "2024.05.01",
    }
    assert {path: names(path)[0] for path in kept} == kept


def test_the_cases_of_names_are_told_apart(shared_cases: Path) -> None:
    dots, folders, slides = shared_cases / "geo/09-dots", shared_cases / "geo/09-folders", shared_cases / "micro/names"
    assert names(f"{dots}/*.tif") == [f"HLS.S30.T10SEG.202020{day}T184919.v2.0.B02" for day in (3, 4)]
    assert names(f"{folders}/*/scene.tif") == ["a-scene", "b-scene"]
    assert names(f"{slides}/*.tif") == ["2024-05-12_09.59.06", "2024-05-12_09.59.41"]
    assert names(f"{slides}/*/HE.tif") == ["p1-HE", "p2-HE"]


@pytest.mark.parametrize("name", ["..", ".", " ", "a\nb", "x" * 201])
def test_what_cannot_be_the_name_of_a_folder_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="cannot be the name of a scene") as refused:
        find_scenes(SceneEntry(image="a.tif", name=name))
    assert "\n" not in str(refused.value)


SCENES = tuple(
    Scene(name, (f"{name}.tif",), priority=priority)
    for name, priority in (("s2-a", 0), ("s2-b", 5), ("l8-a", 0), ("l8-[x]", 5), ("l8-x", -1))
)


def chosen(*only: str, limit: int | None = None) -> list[str]:
    return [scene.name for scene in choose_scenes(SCENES, only=only, limit=limit)]


def test_higher_priorities_come_first_and_the_others_keep_their_order() -> None:
    assert chosen() == ["s2-b", "l8-[x]", "s2-a", "l8-a", "l8-x"]
    assert chosen(limit=2) == ["s2-b", "l8-[x]"] and chosen(limit=99) == chosen()


def test_only_takes_names_and_patterns() -> None:
    assert chosen("s2-*") == ["s2-b", "s2-a"]
    assert chosen("l8-a", "s2-b") == ["s2-b", "l8-a"]
    assert chosen("l8-[x]") == ["l8-[x]"]  # a name before a pattern
    assert chosen("l8-[w-y]") == ["l8-x"]
    assert chosen("*", limit=1) == ["s2-b"]


def test_a_choice_that_no_scene_has_is_refused_with_what_is_close() -> None:
    with pytest.raises(JobError, match="none of 5 scenes is called s2_a; give a name such as s2-a"):
        chosen("s2-b", "s2_a")
    with pytest.raises(JobError, match="none of 5 scenes is called zebra; give a name such as s2-a, s2-b, l8-a"):
        chosen("zebra")
    with pytest.raises(JobError, match="limit 0 leaves no scene; give 1 or more"):
        chosen(limit=0)


def test_the_list_of_scenes_holds_all_that_is_said_of_them(tmp_path: Path) -> None:
    scenes = (*SCENES, Scene("ö", ("a.tif", "b.tif"), 0.25, 3, {"bands": ["red", 2], "scale": 0.5}))
    write_scene_list(tmp_path / "scenes.jsonl", scenes)
    assert read_scene_list(tmp_path / "scenes.jsonl") == scenes
    lines = (tmp_path / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"name": "s2-a", "paths": ["s2-a.tif"]} and len(lines) == 6
    assert os.listdir(tmp_path) == ["scenes.jsonl"]


@pytest.mark.parametrize("text", ['{"name": "a", "paths": ["a"]}\n{"name": "b", "pa', '{}\n{"name": 1}\n', "[]\n"])
def test_a_damaged_list_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "scenes.jsonl").write_text(text)
    with pytest.raises(StoreError, match=r"scenes\.jsonl, line [12] is damaged"):
        read_scene_list(tmp_path / "scenes.jsonl")
    with pytest.raises(StoreError, match="as a list of scenes: "):
        read_scene_list(tmp_path / "none.jsonl")


def test_a_job_may_name_its_scenes_in_all_ways_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "one.tif", "many/a.tif", "many/b.tif")
    (tmp_path / "t.csv").write_text("image\nc.svs\n")
    data = {
        "scenes": [
            f"{tmp_path}/one.tif",
            f"{tmp_path}/many/*",
            f"{tmp_path}/t.csv",
            {"image": "d.tif", "name": "last"},
        ],
        "model": "landscape",
        "output": {"dir": "run"},
    }
    assert names(parse_job(data, where="test").scenes) == ["one", "a", "b", "c", "last"]  # type: ignore[arg-type]
