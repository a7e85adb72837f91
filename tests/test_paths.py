"""What a user calls a path: one table of inputs and their meaning, and what is refused or cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilesseg import paths

HOME = "/home-of-somebody"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.chdir(tmp_path)


MEANING = [
    # written, kind, as it is opened
    ("scene.tif", "file", "scene.tif"),
    ("/data/a b.tif", "file", "/data/a b.tif"),
    ("a%20b.tif", "file", "a%20b.tif"),
    ("2024-01-01T10:00:00.tif", "file", "2024-01-01T10:00:00.tif"),
    ("C:\\data\\x.tif", "file", "C:\\data\\x.tif"),
    ("items.json#one", "file", "items.json#one"),
    ("~", "file", HOME),
    ("~/scene.tif", "file", f"{HOME}/scene.tif"),
    ("./~/scene.tif", "file", "./~/scene.tif"),
    ("~scene.tif", "file", "~scene.tif"),
    ("file:///data/my%20scene.tif", "file", "/data/my scene.tif"),
    ("file://localhost/data/x.tif", "file", "/data/x.tif"),
    ("file:/data/x.tif", "file", "/data/x.tif"),
    ("FILE:///data/x.tif", "file", "/data/x.tif"),
    ("https://host/my scene.tif", "address", "https://host/my%20scene.tif"),
    ("https://host/my%20scene.tif?sig=a%2Fb", "address", "https://host/my%20scene.tif?sig=a%2Fb"),
    ("HTTPS://host/x.tif", "address", "https://host/x.tif"),
    ("http://[::1]:80/ü.tif", "address", "http://[::1]:80/%C3%BC.tif"),
    ("ftp://host/x.tif", "address", "ftp://host/x.tif"),
    ("s3://bucket/key.tif", "storage", "s3://bucket/key.tif"),
    ("gs://bucket/key.tif", "storage", "gs://bucket/key.tif"),
    ("abfss://c@a.host/key.tif", "storage", "abfss://c@a.host/key.tif"),
    ("sftp://host/x.tif", "unknown", "sftp://host/x.tif"),
    ("/vsizip//data/a.zip/x.tif", "vsi", "/vsizip//data/a.zip/x.tif"),
    ("/vsicurl/https://host/x.tif", "vsi", "/vsicurl/https://host/x.tif"),
    ("zip:///data/a.zip!b/x.tif", "vsi", "/vsizip//data/a.zip/b/x.tif"),
    ("zip://a.zip!/x.tif", "vsi", "/vsizip/a.zip/x.tif"),
    ("zip://~/a.zip!x.tif", "vsi", f"/vsizip/{HOME}/a.zip/x.tif"),
    ("tar:///data/a.tar!x.tif", "vsi", "/vsitar//data/a.tar/x.tif"),
    ("zip+https://host/a.zip!x.tif", "vsi", "/vsizip//vsicurl/https://host/a.zip/x.tif"),
    ("zip+s3://bucket/a.zip!x.tif", "vsi", "/vsizip//vsis3/bucket/a.zip/x.tif"),
    ('NETCDF:"a.nc":red', "driver", 'NETCDF:"a.nc":red'),
    ("netcdf:~/a.nc:red", "driver", f"netcdf:{HOME}/a.nc:red"),
    ("GTIFF_DIR:2:a.tif", "driver", "GTIFF_DIR:2:a.tif"),
    ("vrt://~/a.tif?bands=2,1", "driver", f"vrt://{HOME}/a.tif?bands=2,1"),
    ("<VRTDataset/>", "driver", "<VRTDataset/>"),
    ("WMS:http://host/?layers=a", "driver", "WMS:http://host/?layers=a"),
]


@pytest.mark.parametrize(("written", "kind", "opened"), MEANING)
def test_a_path_has_one_meaning(written: str, kind: str, opened: str) -> None:
    at = paths.place(written)
    assert (at.kind, at.text) == (kind, opened)
    assert paths.place(at.text).text == at.text, "what is opened means itself"


@pytest.mark.parametrize(("written", "kind"), [(row[0], row[1]) for row in MEANING])
def test_only_files_of_this_machine_are_written(written: str, kind: str) -> None:
    if kind == "file":
        assert paths.target(written) == paths.place(written).text
    else:
        with pytest.raises(ValueError, match=r"^cannot write .*only files of this machine are written; give a local"):
            paths.target(written)


ANCHORED = [
    ("scene.tif", "/job/scene.tif"),
    ("./a/../b.tif", "/job/a/../b.tif"),
    ("*/b?.tif", "/job/*/b?.tif"),
    ("/data/x.tif", "/data/x.tif"),
    ("~/x.tif", f"{HOME}/x.tif"),
    ("file:///data/x.tif", "/data/x.tif"),
    ("https://host/x.tif", "https://host/x.tif"),
    ("s3://bucket/x.tif", "s3://bucket/x.tif"),
    ("/vsizip//data/a.zip/x.tif", "/vsizip//data/a.zip/x.tif"),
    ("/vsizip/a.zip/x.tif", "/vsizip//job/a.zip/x.tif"),
    ("/vsizip/{a.zip}/x.tif", "/vsizip/{/job/a.zip}/x.tif"),
    ("/vsizip/vsizip/a.zip/b.zip/x.tif", "/vsizip//vsizip//job/a.zip/b.zip/x.tif"),
    ("/vsizip/vsicurl/https://host/a.zip/x.tif", "/vsizip/vsicurl/https://host/a.zip/x.tif"),
    ("/vsizip//vsizip/a.zip/b.zip/x.tif", "/vsizip//vsizip//job/a.zip/b.zip/x.tif"),
    ("/vsigzip/a.tif.gz", "/vsigzip//job/a.tif.gz"),
    ("/vsisubfile/10_20,a.tif", "/vsisubfile/10_20,/job/a.tif"),
    ("/vsizip//vsicurl/https://host/a.zip/x.tif", "/vsizip//vsicurl/https://host/a.zip/x.tif"),
    ("/vsis3/bucket/x.tif", "/vsis3/bucket/x.tif"),
    ("/vsimem/x.tif", "/vsimem/x.tif"),
    ("zip://a.zip!x.tif", "/vsizip//job/a.zip/x.tif"),
    ("NETCDF:a.nc:red", "NETCDF:/job/a.nc:red"),
    ('NETCDF:"a.nc":red', 'NETCDF:"/job/a.nc":red'),
    ("NETCDF:/data/a.nc:red", "NETCDF:/data/a.nc:red"),
    ("NETCDF:https://host:80/a.nc:red", "NETCDF:https://host:80/a.nc:red"),
    ("NETCDF:/vsicurl/https://host/a.nc:red", "NETCDF:/vsicurl/https://host/a.nc:red"),
    ("NETCDF:/vsizip/a.zip/a.nc:red", "NETCDF:/vsizip//job/a.zip/a.nc:red"),
    ('HDF5:"a.h5"://group/red', 'HDF5:"/job/a.h5"://group/red'),
    ('ZARR:"a.zarr":/red', 'ZARR:"/job/a.zarr":/red'),
    ("GTIFF_DIR:2:a.tif", "GTIFF_DIR:2:/job/a.tif"),
    ("GTIFF_DIR:off:408:a.tif", "GTIFF_DIR:off:408:/job/a.tif"),
    ("SENTINEL2_L2A:a/MTD.xml:10m:EPSG_32632", "SENTINEL2_L2A:/job/a/MTD.xml:10m:EPSG_32632"),
    ("DERIVED_SUBDATASET:AMPLITUDE:a.tif", "DERIVED_SUBDATASET:AMPLITUDE:/job/a.tif"),
    ("vrt://a.tif?bands=1", "vrt:///job/a.tif?bands=1"),
    ("WMS:http://host/", "WMS:http://host/"),
    ("<VRTDataset/>", "<VRTDataset/>"),
]


@pytest.mark.parametrize(("written", "meant"), ANCHORED)
def test_a_relative_path_is_relative_to_its_folder(written: str, meant: str) -> None:
    assert paths.anchored(written, "/job") == meant
    assert paths.anchored(meant, "/elsewhere") == meant


REFUSED = [
    ("s3:/bucket/x.tif", "lost a slash; write s3://bucket/x.tif"),
    ("https:/host/x.tif?sig=SECRET", r"lost a slash; write https://host/x.tif\?…"),
    ("file://server/x.tif", "machine server; give a path of this one"),
    ("file:x.tif", "no absolute path; write file:///"),
    ("~nobody-of-this-name/x.tif", "home folder of nobody-of-this-name"),
    ("a\0b", "zero byte"),
]


@pytest.mark.parametrize(("written", "message"), REFUSED)
def test_a_path_without_meaning_is_refused(written: str, message: str) -> None:
    for read in (paths.place, paths.source, paths.target):
        with pytest.raises(ValueError, match=message):
            read(written)


def test_what_nothing_reads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^cannot read sftp://…@host/x: nothing reads sftp://; give a file"):
        paths.source("sftp://me:SECRET@host/x")
    assert paths.source("s3://bucket/x.tif") == "s3://bucket/x.tif"


@pytest.mark.parametrize("name", ["NETCDF:a.nc", "file:a.tif", "GTIFF_DIR:1:a.tif"])
def test_a_file_that_is_there_is_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert paths.place(name) == paths.Place("file", name, inner=name)


def test_a_part_of_an_address_is_decoded_unless_the_file_is_called_so(tmp_path: Path) -> None:
    assert paths.decoded("my%20scene.tif") == "my scene.tif"
    (tmp_path / "my%20scene.tif").touch()
    assert paths.decoded("my%20scene.tif") == "my%20scene.tif"
    (tmp_path / "my scene.tif").touch()
    assert paths.decoded("my%20scene.tif") == "my scene.tif"


CONTAINERS = [
    ("scene.tif", "scene.tif"),
    ("https://host/x.tif", "https://host/x.tif"),
    ("/vsizip/HERE/x.tif", "HERE"),
    ("/vsizip/{HERE}/x.tif", "HERE"),
    ("/vsizip//vsizip/HERE/b.zip/x.tif", "HERE"),
    ("zip://HERE!x.tif", "HERE"),
    ("NETCDF:/vsizip/HERE/a.nc:red", "HERE"),
    ("GTIFF_DIR:2:HERE", "HERE"),
    ("vrt://HERE?bands=1", "HERE"),
    ("/vsisubfile/10_20,HERE", "HERE"),
    ("/vsicurl/https://host/x.tif", "https://host/x.tif"),
    ("/vsicurl_streaming/https://host/x.tif", "https://host/x.tif"),
    ("/vsicurl?use_head=no&url=https%3A%2F%2Fhost%2Fx.tif%3Fsig%3Da", "https://host/x.tif?sig=a"),
    ("/vsizip//vsicurl/https://host/a.zip/x.tif", "https://host/a.zip"),
    ("/vsizip/{/vsicurl/https://host/a.zip?sig=a}/x.tif", "https://host/a.zip?sig=a"),
    ("/vsis3/bucket/x.tif", "/vsis3/bucket/x.tif"),
]


@pytest.mark.parametrize(("written", "holds"), CONTAINERS)
def test_pixels_lie_in_a_container(tmp_path: Path, written: str, holds: str) -> None:
    archive = str(tmp_path / "a.zip")
    Path(archive).touch()
    assert paths.container(written.replace("HERE", archive)) == holds.replace("HERE", archive)


NAMES = [
    ("/data/my scene.tif", "my scene.tif"),
    ("/data/folder/", "folder"),
    ("https://u:pw@host/a/my%20scene.tif?sig=SECRET#x", "my scene.tif"),
    ("s3://bucket/a/x.tif", "x.tif"),
    ("/vsizip//data/a.zip/b/x.tif", "x.tif"),
    ("/vsizip/{/data/a.zip}/x.tif", "x.tif"),
    ("/vsicurl/https://host/x.tif?sig=SECRET", "x.tif"),
    ("/vsicurl?url=https%3A%2F%2Fhost%2Fx.tif%3Fsig%3DSECRET", "x.tif"),
    ("/vsis3/bucket/x.tif", "x.tif"),
    ('NETCDF:"/data/a.nc":red', "a.nc:red"),
    ("GTIFF_DIR:2:/data/a.tif", "a.tif:2"),
    ('HDF5:"/data/a.h5"://group/red', "a.h5:group:red"),
    ("vrt://https://host/a.tif?sig=SECRET", "a.tif"),
]


@pytest.mark.parametrize(("written", "name"), NAMES)
def test_a_name_has_no_folder_and_no_secret(written: str, name: str) -> None:
    assert paths.name_of(written) == name


@pytest.mark.parametrize(
    ("written", "remote"),
    [
        ("scene.tif", False),
        ("zip:///data/a.zip!x.tif", False),
        ('NETCDF:"a.nc":red', False),
        ("https://host/x.tif", True),
        ("s3://bucket/x.tif", True),
        ("sftp://host/x.tif", True),
        ("/vsis3/bucket/x.tif", True),
        ("zip+s3://bucket/a.zip!x.tif", True),
        ("vrt://https://host/a.tif", True),
        ("a\0", False),
    ],
)
def test_what_is_read_over_the_network_is_remote(written: str, remote: bool) -> None:
    assert paths.is_remote(written) == remote


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("/data/b/x.tif", ["data", "b", "x.tif"]),
        ("https://host/b/x.tif?sig=a/b", ["b", "x.tif"]),
        ("https://host", ["https://host"]),
    ],
)
def test_folders_are_those_of_a_path_or_address(written: str, parts: list[str]) -> None:
    assert paths.folders_of(written) == parts


UNSIGNED = [
    ("https://u:pw@host/x.tif", "https://host/x.tif"),
    ("https://host/x.tif?X-Amz-Signature=a&X-Amz-Expires=1", "https://host/x.tif"),
    ("https://host/x.tif?sv=2021&se=2026&sr=b&sig=a%3D", "https://host/x.tif"),
    ("https://host/x.tif?Expires=1&Signature=a&Key-Pair-Id=K", "https://host/x.tif"),
    ("https://host/x.tif?GoogleAccessId=a&Expires=1&Signature=s", "https://host/x.tif"),
    ("https://host/get?id=7&access_token=t", "https://host/get?id=7"),
    ("https://host/get?id=7&scene=b", "https://host/get?id=7&scene=b"),
    ("https://host/items.json?token=t#one", "https://host/items.json#one"),
    ("/vsicurl/https://host/x.tif?sig=a", "/vsicurl/https://host/x.tif"),
    ("/vsizip/{/vsicurl/https://host/a.zip?sig=a}/x.tif", "/vsizip/{/vsicurl/https://host/a.zip}/x.tif"),
    ("what?sig=a.tif", "what?sig=a.tif"),
]


@pytest.mark.parametrize(("written", "counts"), UNSIGNED)
def test_an_address_counts_without_its_signature(written: str, counts: str) -> None:
    assert paths.unsigned(written) == counts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/x.tif?sig=SECRET: HTTP 403", "https://host/x.tif?…: HTTP 403"),
        ("'/vsicurl/https://host/x.tif?sig=SECRET' not recognized", "'/vsicurl/https://host/x.tif?…' not recognized"),
        ("ftp://me:SECRET@host/x.tif is gone", "ftp://…@host/x.tif is gone"),
        ("/vsicurl?url=https%3A%2F%2Fhost%3Fsig%3DSECRET, twice", "/vsicurl?…, twice"),
        ("what? mail a@b.c", "what? mail a@b.c"),
    ],
)
def test_secrets_are_cut_from_what_people_read(text: str, shown: str) -> None:
    assert paths.without_secrets(text) == shown


def test_no_path_is_read_but_names_that_look_like_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> bool:
        raise AssertionError(f"looked at {path}")

    monkeypatch.setattr(os.path, "lexists", refuse)
    for written in ("scene.tif", "/data/x.tif", "https://host/x.tif", "/vsizip//a.zip/x.tif", "~/x.tif"):
        paths.place(written)
