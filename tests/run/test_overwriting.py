"""What is not ours is not replaced: files, styles, pictures, layers of others stay as they are, or the user says so."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.events import ProductWritten
from tilesseg.formats.writing.publish import replaced_at

LABELS: NDArray[np.uint8] = np.random.default_rng(7).integers(0, 3, (1, 40, 50)).astype(np.uint8)
SUFFIXES = [".tif", ".ome.tif", ".ome.zarr", ".geojson", ".gpkg", ".fgb", ".parquet"]
FORMATS = dict(
    zip(SUFFIXES, ["cog", "ome-tiff", "ome-zarr", "geojson", "gpkg", "flatgeobuf", "geoparquet"], strict=True)
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", input_range=[0, 2])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", LABELS)


class Command:
    """A job with products in `out`, carried out in a run directory of its own, as `segment` does."""

    def __init__(self, folder: Path, bundle: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.bundle, self.scene, self.capsys = folder, bundle, scene, capsys
        self.out = folder / "out"
        self.out.mkdir()

    def __call__(self, *names: str, code: int = 0, **more: Any) -> str:
        products = [{"format": FORMATS[name.removeprefix("mask")], "path": str(self.out / name)} for name in names]
        output = {"dir": str(self.folder / "run"), "products": products, "preview": False, **more.pop("output", {})}
        data = {**job_data(self.scene, self.bundle, self.folder), "output": output, **more}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(data))
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        self.capsys.readouterr()
        assert run(["run", str(self.folder / "job.yaml")]) == code
        err = self.capsys.readouterr().err
        if code == 1:
            assert err.startswith("error: ") and err.count("\n") == 1, err
            assert not list((self.folder / "run").rglob("done/*")), "refused before the first tile"
        return err

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.out.rglob("*")) if path.is_file()}


@pytest.fixture
def segment(tmp_path: Path, bundle: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, bundle, scene, capsys)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_product_of_the_same_run_is_replaced_with_a_note(segment: Command, suffix: str) -> None:
    first = segment(f"mask{suffix}", output={"preview": True})
    assert "in place of" not in first
    for name in segment.out.iterdir():
        assert f"mask{suffix}" in str(name) or name.suffix in (".png", ".qml")
    again = segment(f"mask{suffix}", output={"preview": True})
    lines = [line for line in again.splitlines() if line.startswith("wrote")]
    assert len(lines) == 2 and all(line.endswith(", in place of an earlier product of this run") for line in lines)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".gpkg"])
def test_a_product_of_another_run_is_replaced_only_on_request(segment: Command, suffix: str, tmp_path: Path) -> None:
    segment(f"mask{suffix}")
    before = segment.files()
    segment.bundle = write_bundle(tmp_path / "other", input_range=[0, 2], name="other")
    err = segment(f"mask{suffix}", code=1)
    assert "that this run did not write lies there; choose another path, or replace it by --overwrite" in err
    assert segment.files() == before
    err = segment(f"mask{suffix}", output={"overwrite": True})
    assert "that this run did not write" in err and segment.files() != before


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "mask.tif": lambda path: write_scene(path, LABELS),
    "mask.qml": lambda path: path.write_text("<qgis/>"),
    "mask.png": lambda path: path.write_bytes(b"\x89PNG my picture"),
    "empty mask.tif": lambda path: path.touch(),
    "link to nothing mask.tif": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_of_somebody_is_replaced_only_on_request(segment: Command, what: str) -> None:
    path = segment.out / what.rpartition(" ")[2]
    FOREIGN[what](path)
    before = segment.files()
    err = segment("mask.tif", code=1, output={"preview": True})
    assert f"cannot write {path}: a file that this run did not write lies there" in err
    assert segment.files() == before
    segment("mask.tif", output={"preview": True, "overwrite": True})
    after = segment.files()
    assert all(after[name] != content for name, content in before.items())
    assert len(after) == 3 and not any(Path(name).is_symlink() for name in after)


def test_a_style_that_somebody_has_changed_stays(segment: Command) -> None:
    segment("mask.tif")
    style = segment.out / "mask.qml"
    text = style.read_text()
    style.write_text("".join(line for line in text.splitlines(True) if not line.startswith("<!--")).replace("1", "2"))
    assert str(style) in segment("mask.tif", code=1)


@pytest.mark.parametrize("suffix", [".ome.zarr"])
def test_a_zarr_of_somebody_is_never_removed(segment: Command, suffix: str) -> None:
    import zarr

    zarr.create_array(str(segment.out / f"mask{suffix}"), shape=(4, 4), dtype="u1")
    before = segment.files()
    for overwrite in (False, True):
        segment(f"mask{suffix}", code=1, output={"overwrite": overwrite})
        assert segment.files() == before


def test_a_file_that_comes_while_tiles_are_computed_stays(segment: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilesseg.run import finish_scene

    write = finish_scene.write_products

    def later(*arguments: Any, **options: Any) -> Any:
        (segment.out / "mask.tif").write_text("mine")
        return write(*arguments, **options)

    monkeypatch.setattr(finish_scene, "write_products", later)
    assert "mask.tif: a file that this run did not write lies there" in segment("mask.tif", code=3)
    assert (segment.out / "mask.tif").read_text() == "mine"


def test_export_replaces_only_on_request(segment: Command) -> None:
    segment("mask.tif")
    target = segment.out / "other.tif"
    target.write_text("mine")
    command = ["export", str(segment.folder / "run"), "--format", "cog", "--out", str(target)]
    assert run(command) == 1 and target.read_text() == "mine"
    assert run([*command, "--overwrite"]) == 0 and target.stat().st_size > 100
    assert run(command) == 0, "it is a product of this run now"


def test_segment_replaces_only_on_request(segment: Command) -> None:
    target = segment.out / "mask.geojson"
    target.write_text("{}")
    command = ["segment", segment.scene, "--model", segment.bundle, "--out", target, "--workers", 1]
    assert run([*map(str, command)]) == 1 and target.read_text() == "{}"


def test_a_page_of_somebody_is_no_report(segment: Command) -> None:
    segment("mask.tif")
    page = segment.out / "page.html"
    page.write_text("<html>mine</html>")
    command = ["report", str(segment.folder / "run"), "--out"]
    assert run([*command, str(page)]) == 1 and page.read_text() == "<html>mine</html>"
    assert [run([*command, str(segment.out / "r.html")]) for _ in range(2)] == [0, 0]


# GeoPackages


def project(path: Path, *layers: str, wal: bool = False) -> Path:
    """Somebody's GeoPackage with layers, a style and a project."""
    import pyogrio.raw
    import shapely

    points = shapely.to_wkb(shapely.points([[1.0, 2.0], [3.0, 4.0]]))
    for layer in layers:
        fields = [np.array(["a", "b"], object)]
        kind = {"driver": "GPKG", "geometry_type": "Point", "crs": "EPSG:4326"}
        pyogrio.raw.write(path, points, fields, ["name"], layer=layer, **kind)
    with sqlite3.connect(path) as file:
        file.execute("create table qgis_projects (name text, content blob)")
        file.execute("insert into qgis_projects values ('mine', x'00ff')")
    file.close()
    return path


def content(path: Path) -> dict[str, list[Any]]:
    """Rows of each table of a GeoPackage that is somebody's."""
    file = sqlite3.connect(path)
    names = [name for (name,) in file.execute("select name from sqlite_master where type = 'table' order by name")]
    rows = {
        name: file.execute(f'select * from "{name}"').fetchall()
        for name in names
        if not name.startswith(("gpkg_", "rtree_", "sqlite_"))
    }
    file.close()
    return rows


def test_a_geopackage_gets_a_layer_added(segment: Command) -> None:
    import pyogrio

    path = project(segment.out / "mask.gpkg", "roads", "houses")
    before = content(path)
    err = segment("mask.gpkg")
    assert "as a layer beside " in err and "roads" in err
    after = content(path)
    assert {name: after[name] for name in before} == before and set(after) - set(before) == {"mask"}
    assert {"roads", "houses", "mask"} <= {str(name) for name, _ in pyogrio.list_layers(path)}
    info = pyogrio.read_info(path, layer="mask")
    assert info["features"] > 10 and info["layer_metadata"]["plan_fingerprint"] and "32633" in info["crs"]
    assert sorted(file.name for file in segment.out.iterdir()) == ["mask.gpkg"]

    assert "in place of an earlier product of this run" in segment("mask.gpkg")
    assert content(path) == after


def test_a_layer_of_another_run_is_replaced_only_on_request(segment: Command, tmp_path: Path) -> None:
    import pyogrio

    path = project(segment.out / "mask.gpkg", "roads")
    segment("mask.gpkg")
    before = content(path)
    segment.bundle = write_bundle(tmp_path / "other", input_range=[0, 2], name="other")
    assert "a layer mask that this run did not write lies there" in segment("mask.gpkg", code=1)
    assert content(path) == before
    segment("mask.gpkg", output={"overwrite": True})
    assert content(path).keys() == before.keys() and content(path)["roads"] == before["roads"]
    assert pyogrio.read_info(path, layer="mask")["layer_metadata"]["model"] == "other"
    file = sqlite3.connect(path)
    (count,) = file.execute("select count(*) from gpkg_metadata_reference where table_name = 'mask'").fetchone()
    file.close()
    assert count == 1, "metadata of the layer before are gone"


@pytest.mark.parametrize("name", ["mask", "Mask", "MASK"])
def test_a_layer_of_somebody_called_mask_stays(segment: Command, name: str) -> None:
    path = project(segment.out / "mask.gpkg", name, "roads")
    before = path.read_bytes()
    assert "a layer mask that this run did not write lies there" in segment("mask.gpkg", code=1)
    assert path.read_bytes() == before


def test_a_file_that_is_no_geopackage_is_replaced_only_on_request(segment: Command) -> None:
    path = segment.out / "mask.gpkg"
    path.write_text("no database" * 1000)
    assert "a file that this run did not write lies there" in segment("mask.gpkg", code=1)
    segment("mask.gpkg", output={"overwrite": True})
    assert set(content(path)) == {"mask"}


def test_a_geopackage_that_a_program_has_open_is_left_alone(segment: Command) -> None:
    """QGIS keeps a GeoPackage open with a journal: what it writes after ours would be lost."""
    path = project(segment.out / "mask.gpkg", "roads")
    qgis = sqlite3.connect(path)
    qgis.execute("pragma journal_mode = wal")
    qgis.execute("update qgis_projects set name = 'c'")
    qgis.commit()
    assert "another program has it open; close it there first" in segment("mask.gpkg", code=1)
    qgis.close()
    segment("mask.gpkg")
    assert content(path)["qgis_projects"][0][0] == "c" and "mask" in content(path)


def test_changes_in_the_journal_of_a_program_that_has_died_are_kept(segment: Command, tmp_path: Path) -> None:
    path = project(tmp_path / "live.gpkg", "roads")
    died = sqlite3.connect(path)
    died.execute("pragma journal_mode = wal")
    died.execute("update qgis_projects set name = 'c'")
    died.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", segment.out / f"mask.gpkg{suffix}")
    died.close()
    segment("mask.gpkg")
    assert content(segment.out / "mask.gpkg")["qgis_projects"][0][0] == "c"


def test_a_geopackage_that_changes_while_the_layer_is_made_is_left_alone(tmp_path: Path) -> None:
    from tilesseg.errors import FormatError
    from tilesseg.formats.writing.geopackage_file import with_other_layers

    path = project(tmp_path / "mask.gpkg", "roads")
    with pytest.raises(FormatError, match="has changed it meanwhile"), with_other_layers(path, tmp_path / "c", "mask"):
        with sqlite3.connect(path) as file:
            file.execute("update qgis_projects set name = 'c'")
        file.close()


# the run directory


@pytest.mark.parametrize("name", ["job.yaml", "plan.json", "report.html", "summary.json", "events.jsonl"])
def test_a_folder_with_files_of_somebody_is_no_run_directory(segment: Command, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text(json.dumps({"mine": 1}))
    data = job_data(segment.scene, segment.bundle, folder)
    job = folder / "job.yaml" if name == "job.yaml" else tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(data))
    before = (folder / name).read_bytes()
    for command in ("plan", "run"):
        assert run([command, str(job)]) == 1
        err = segment.capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1
        assert name in err or name == "plan.json"
    assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_bytes() == before


def test_products_written_say_what_they_replace(tmp_path: Path) -> None:
    assert replaced_at(tmp_path / "mask.tif", "f" * 64) is None
    assert ProductWritten("a", "m.tif", 1.0).replaced == ""
