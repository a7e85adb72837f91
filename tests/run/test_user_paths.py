"""Paths of a user in jobs and commands: each has the meaning that `tilesseg.paths` gives, or is refused at once."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.formats.open import open_source
from tilesseg.planning.scene_list import find_scenes
from tilesseg.raster.window import Window

LABELS: NDArray[np.uint8] = np.random.default_rng(7).integers(0, 3, (1, 60, 80)).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Takes one band of labels, and gives them back."""
    return write_bundle(tmp_path / "model", input_range=[0, 2])


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current directory that holds nothing."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def segmented(tmp_path: Path, bundle: Path, scenes: Any, **output: Any) -> NDArray[np.uint8]:
    """Mask of the only scene of a job in `tmp_path`, which is run from elsewhere."""
    product = {"format": "cog", "path": "mask.tif", **output.pop("product", {})}
    data = job_data(scenes, bundle, Path("run"), output={"dir": "run", "products": [product], **output})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(data))
    assert run(["run", str(tmp_path / "job.yaml")]) == 0
    with rasterio.open(tmp_path / "mask.tif") as file:
        values: NDArray[np.uint8] = file.read()
    return values


def zarr_of(folder: Path) -> str:
    """A Zarr with one array, relative to the folder."""
    import zarr

    group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("v", shape=LABELS[0].shape, dtype="u1", compressors=None)[:] = LABELS[0]
    return "a.zarr"


def archives(folder: Path) -> dict[str, str]:
    """The scene in archives and under names of drivers, as a job in this folder names it."""
    scene = write_scene(folder / "scene.tif", LABELS)
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.write(scene, "in/scene.tif")
    with tarfile.open(folder / "a.tar", "w") as packed:
        packed.add(scene, "scene.tif")
    with gzip.open(folder / "scene.tif.gz", "wb") as compressed:
        compressed.write(scene.read_bytes())
    (folder / "my scene.tif").write_bytes(scene.read_bytes())
    return {
        "absolute zip": f"/vsizip/{folder}/a.zip/in/scene.tif",
        "relative zip": "/vsizip/a.zip/in/scene.tif",
        "braces": "/vsizip/{a.zip}/in/scene.tif",
        "zip://": "zip://a.zip!in/scene.tif",
        "tar": f"/vsitar/{folder}/a.tar/scene.tif",
        "gzip": "/vsigzip/scene.tif.gz",
        "directory of a TIFF": "GTIFF_DIR:1:scene.tif",
        "VRT": "vrt://scene.tif?bands=1",
        "array of a Zarr": f'ZARR:"{zarr_of(folder)}":/v',
        "file URI": f"file://{folder}/my%20scene.tif",
    }


@pytest.mark.parametrize("kind", ["absolute zip", "relative zip", "zip://", "directory of a TIFF", "VRT", "file URI"])
def test_a_job_reads_what_inspect_reads(tmp_path: Path, bundle: Path, elsewhere: Path, kind: str) -> None:
    path = archives(tmp_path)[kind]
    assert np.array_equal(segmented(tmp_path, bundle, path), LABELS)
    assert not list(elsewhere.iterdir())


def test_every_way_to_name_an_image_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, path in archives(tmp_path).items():
        source = open_source(path)
        assert np.array_equal(source.read(Window(0, 0, 60, 80)).values, LABELS), kind
        assert None not in source.identity().values(), kind


def test_a_scene_has_the_name_of_its_file_and_of_its_image_in_it(tmp_path: Path) -> None:
    archives(tmp_path)
    for name, path in {
        "scene": "vrt://scene.tif?bands=1",
        "a-red": 'NETCDF:"a.nc":red',
        "b-2": "GTIFF_DIR:2:b.tif",
    }.items():
        assert [scene.name for scene in find_scenes(path)] == [name]


def test_home_is_no_folder_called_tilde(
    tmp_path: Path, bundle: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write_scene(home / "scene.tif", LABELS)
    tissue = {"type": "Polygon", "coordinates": [[[0, 0], [80, 0], [80, 60], [0, 60], [0, 0]]]}
    (home / "roi.geojson").write_text(json.dumps(tissue))
    table = tmp_path / "scenes.csv"
    table.write_text("image\n~/scene.tif\n")
    for scenes in ("~/scene.tif", "~/*.tif", ["~/scene.tif"], {"image": "~/scene.tif"}, str(table)):
        assert [scene.paths for scene in find_scenes(_scenes(scenes))] == [(f"{home}/scene.tif",)]
    data = job_data("~/scene.tif", bundle, Path("~/run"))
    data["output"]["products"] = [{"format": "cog", "path": "~/masks/{scene}.tif"}]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(data))
    assert run(["run", str(tmp_path / "job.yaml")]) == 0
    assert (home / "masks" / "scene.tif").is_file() and (home / "run" / "plan.json").is_file()
    assert run(["status", "~/run"]) == 0
    assert not list(tmp_path.rglob("~")) and not list(elsewhere.iterdir())


def _scenes(scenes: Any) -> Any:
    from tilesseg.planning.job import parse_job

    return parse_job({"scenes": scenes, "model": "m", "output": {"dir": "run"}}, where="test").scenes


REMOTE = ["s3://my-bucket/mask.tif", "gs://b/mask.tif", "https://host/mask.tif?sig=SECRET", "/vsis3/b/mask.tif",
          "/vsizip/a.zip/mask.tif", "s3:/my-bucket/mask.tif", "sftp://me:SECRET@host/mask.tif"]  # fmt: skip


@pytest.mark.parametrize("target", REMOTE)
def test_a_target_that_is_no_local_file_is_refused_before_the_first_tile(
    tmp_path: Path, bundle: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", LABELS)
    inside = target.replace("mask.tif", "run")
    commands = {
        "--out": ["segment", scene, "--model", bundle, "--out", target],
        "--scores": ["segment", scene, "--model", bundle, "--out", "m.tif", "--scores", target],
        "--run": ["segment", scene, "--model", bundle, "--out", "m.tif", "--run", inside],
        "stage": ["stage", scene, target.replace(".tif", ".zarr")],
        "export": ["export", "run", "--format", "cog", "--out", target],
        "report": ["report", "run", "--out", target],
        "status": ["status", inside],
        "demo": ["demo", "--dir", inside],
    }
    for number, output in enumerate(({"dir": inside}, {"dir": "run", "products": [{"path": target}]})):
        job = tmp_path / f"job{number}.yaml"
        job.write_text(yaml.safe_dump(job_data(scene, bundle, Path("x"), output=output)))
        commands |= {
            f"run {number}": ["run", job],
            f"plan {number}": ["plan", job],
            f"submit {number}": ["submit", job],
        }
    for name, command in commands.items():
        code = run([str(argument) for argument in command])
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (1, "", 1), (name, out, err)
        assert err.startswith("error: ") and ("only files of this machine are written" in err or "lost a slash" in err)
        assert "SECRET" not in err, name
    assert not list(elsewhere.iterdir()) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("./my%20scene.tif", "my scene.tif"),
        ("./my scene.tif", "my scene.tif"),
        ("my%20folder/a%2Bb.tif", "my folder/a+b.tif"),
        ("./100%25.tif", "100%.tif"),
        ("./my%20scene.tif", "my%20scene.tif"),
        ("file://HERE/my%20scene.tif", "my scene.tif"),
        ("HERE/my scene.tif", "my scene.tif"),
        ("~scene.tif", "~scene.tif"),
    ],
)
def test_a_link_of_a_stac_item_is_decoded(tmp_path: Path, elsewhere: Path, href: str, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_scene(tmp_path / name, LABELS)
    item = _item("e", href.replace("HERE", str(tmp_path)))
    (tmp_path / "item.json").write_text(json.dumps(item))
    source = open_source(str(tmp_path / "item.json"))
    assert np.array_equal(source.read(Window(0, 0, 60, 80)).values, LABELS)


def test_links_of_a_catalog_are_decoded(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "my items"
    folder.mkdir()
    write_scene(folder / "a b.tif", LABELS)
    (folder / "a b.json").write_text(json.dumps(_item("e", "a%20b.tif")))
    links = [{"rel": "item", "href": "./my%20items/a%20b.json"}]
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    (scene,) = find_scenes(str(tmp_path / "catalog.json"))
    assert open_source(scene.paths).grid.shape == (60, 80)


@pytest.mark.parametrize("href", ["file://server/x.json", "s3:/bucket/x.json", "file:x.json"])
def test_a_link_that_leads_nowhere_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bundle: Path, href: str
) -> None:
    known = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": ""}
    (tmp_path / "catalog.json").write_text(json.dumps({**known, "links": [{"rel": "item", "href": href}]}))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_data("catalog.json", bundle, tmp_path / "run")))
    (tmp_path / "item.json").write_text(json.dumps(_item("e", href.replace("json", "tif"))))
    for command in (["plan", str(tmp_path / "job.yaml")], ["inspect", str(tmp_path / "item.json")]):
        assert run(command) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1


def test_blanks_in_an_address_are_encoded(tmp_path: Path, url: str, elsewhere: Path) -> None:
    (tmp_path / "my folder").mkdir()
    write_scene(tmp_path / "my folder" / "my scene.tif", LABELS)
    (tmp_path / "my folder" / "my item.json").write_text(json.dumps(_item("e", "./my scene.tif")))
    for address in (f"{url}/my folder/my item.json", f"{url}/my%20folder/my%20item.json"):
        assert open_source(address).grid.shape == (60, 80)
        assert [scene.name for scene in find_scenes(address)] == ["my_item"]
    assert open_source(f"{url}/my folder/my scene.tif").grid.shape == (60, 80)


def _item(identity: str, href: str) -> dict[str, Any]:
    bands = [{"name": "v"}]
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"], "eo:bands": bands}
    known = {"type": "Feature", "stac_version": "1.0.0", "id": identity, "geometry": None, "links": []}
    return {**known, "properties": {"datetime": "2023-06-11T10:10:31Z"}, "assets": {"v": asset}}


@pytest.mark.parametrize("name", ["a" * 300, "b/" * 2_000 + "c.tif", "a" * 300 + ".json", "fc.json#" + "a" * 300])
def test_a_name_that_is_too_long_is_refused_in_one_line(
    tmp_path: Path, bundle: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "fc.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [_item("a" * 300, "x.tif")]})
    )
    job = tmp_path / "job.yaml"
    commands: list[list[object]] = [["plan", job], ["inspect", name]]
    for scenes in (name, "fc.json"):
        job.write_text(yaml.safe_dump(job_data(scenes, bundle, tmp_path / "run")))
        for command in commands:
            assert run([str(argument) for argument in command]) == 1
            err = capsys.readouterr().err
            assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("what", ["tissue", "model", "product", "cluster"])
def test_no_path_of_a_job_ends_in_a_traceback(
    tmp_path: Path, bundle: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", LABELS)
    for path in ("a" * 300 + ".tif", "s3:/bucket/x.tif", "file:x", "~nobody-of-this-name/x.tif", "a\0b.tif"):
        data = job_data(scene, bundle, tmp_path / "run")
        keys: dict[str, Any] = {
            "tissue": {"input": {"tissue": path}},
            "model": {"model": path},
            "cluster": {"cluster": path},
            "product": {"output": {"dir": str(tmp_path / "run"), "products": [{"format": "cog", "path": path}]}},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({**data, **keys[what]}))
        assert run(["run", str(tmp_path / "job.yaml")]) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1, path
