"""Pieces of files, from any thread."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tilesseg.formats.slide import tiff_level as byte_files
from tilesseg.formats.slide.tiff_level import OPEN, ByteFiles


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def write(folder: Path, number: int) -> list[Path]:
    paths = [folder / f"{k}.bin" for k in range(number)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 1000 + b"end")
    return paths


def test_a_piece_is_what_lies_there(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    assert ByteFiles().read(str(path), 998, 5) == b"\0\0end"


def test_a_file_that_ends_before_is_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    with pytest.raises(OSError, match="ends 7 bytes before"):
        ByteFiles().read(str(path), 1000, 10)
    with pytest.raises(FileNotFoundError):
        ByteFiles().read(str(tmp_path / "none"), 0, 1)


def test_a_read_that_gives_less_than_it_was_asked_for_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(tmp_path, 1)
    whole = os.pread
    monkeypatch.setattr(byte_files.os, "pread", lambda file, count, offset: whole(file, min(count, 2), offset))
    assert ByteFiles().read(str(path), 998, 5) == b"\0\0end"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
def test_few_files_are_open_and_none_is_left(tmp_path: Path) -> None:
    before, files = opened(), ByteFiles()
    for path in write(tmp_path, 3 * OPEN):
        files.read(str(path), 0, 1)
    assert opened() == before + OPEN
    del files
    assert opened() == before


def test_threads_that_read_more_files_than_are_kept_open_get_what_is_theirs(tmp_path: Path) -> None:
    files, paths = ByteFiles(), write(tmp_path, 3 * OPEN)

    def read(k: int) -> bool:
        return files.read(str(paths[k % len(paths)]), k % 900, 100) == bytes([k % len(paths)]) * 100

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(5000)))
