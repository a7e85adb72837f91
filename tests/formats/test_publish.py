"""A target that cannot be written is refused before the first tile, each cause in its own sentence."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tilesseg.errors import FormatError
from tilesseg.formats.ome_zarr import check_ome_zarr
from tilesseg.formats.writer import Mask
from tilesseg.formats.writing.publish import check_target, growing, publish
from tilesseg.raster.grid import Grid
from tilesseg.run.copy_to_zarr import stage_image

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Work as somebody whom permissions bind; root becomes root again afterwards."""
    if os.getuid():
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that everybody can read and nobody can write."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o555)
    yield folder
    shutil.rmtree(folder)


def refusal(path: Path, *, folder: bool = False) -> str:
    with pytest.raises(FormatError) as refused:
        check_target(path, folder=folder)
    return str(refused.value)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("missing", ["", "new/folders/"])
def test_no_permission_is_said_with_the_folder_that_lacks_it(missing: str, folder: bool, read_only: Path) -> None:
    path = read_only / f"{missing}mask"
    with without_privileges():
        assert refusal(path, folder=folder) == (
            f"cannot write {path}: no write permission in {read_only}; choose another path"
        )


def test_a_read_only_file_system_is_said(tmp_path: Path) -> None:
    places = (Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines())
    mounted = [place for place in places if os.path.isdir(place) and os.statvfs(place).f_flag & os.ST_RDONLY]
    if not mounted:
        pytest.skip("no read-only file system is mounted here")
    assert refusal(mounted[0] / "mask.tif") == (
        f"cannot write {mounted[0]}/mask.tif: {mounted[0]} lies on a read-only file system; choose another path"
    )


def test_a_folder_at_the_path_of_a_file_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"cannot write {tmp_path}: a folder lies there; choose another path"
    check_target(tmp_path, folder=True)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("below", ["mask", "deep/mask"])
def test_a_file_in_the_place_of_a_folder_is_said(below: str, folder: bool, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a file")
    path = tmp_path / "notes" / below
    assert refusal(path, folder=folder) == (
        f"cannot write {path}: {tmp_path / 'notes'} is a file, a folder needed; choose another path"
    )


@pytest.mark.parametrize("what", ["a file", "a folder"])
def test_what_tilesseg_did_not_write_is_said(what: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.zarr"
    path.mkdir() if what == "a folder" else path.write_text("")
    with pytest.raises(FormatError) as refused:
        check_ome_zarr(Mask(Grid(9, 9), lambda _: None, (), {}), path)  # type: ignore[arg-type,return-value]
    assert str(refused.value) == (
        f"cannot write {path}: {what} that tilesseg did not write lies there; choose another path"
    )


def test_an_image_is_copied_into_existing_folders_only(tmp_path: Path) -> None:
    path = tmp_path / "none" / "copy.zarr"
    with pytest.raises(FormatError, match=rf"{path.parent} does not exist; make that folder first"):
        stage_image("scene.tif", path)


def test_targets_that_can_be_written_are_not_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.tif").write_text("of an earlier run")
    for path in (tmp_path / "mask.tif", tmp_path / "new" / "folders" / "mask.tif"):
        check_target(path)


def test_stale_sidecars_go_with_the_file_that_is_replaced(tmp_path: Path) -> None:
    for name in ("a.gpkg", "a.gpkg-wal", "a.tif", "a.tif.aux.xml", "a.tif.ovr", "other.tif.ovr"):
        (tmp_path / name).write_text("old")
    for name in ("a.gpkg", "a.tif"):
        with growing(tmp_path / name, tmp_path / "a.qml") as folder:
            for new in (name, "a.qml", "a.tif.aux.xml"):
                (folder / new).write_text("new")
            written = publish(folder, tmp_path / name, tmp_path / "a.qml")
    assert [path.name for path in written] == ["a.tif", "a.qml", "a.tif.aux.xml"]
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"other.tif.ovr": "old", **dict.fromkeys(("a.gpkg", "a.tif", "a.qml", "a.tif.aux.xml"), "new")}
