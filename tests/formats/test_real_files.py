"""What becomes of every real file: a mask that agrees with rasterio's own reading of the file, or one line of refusal.

The outcomes are a page of the documentation; `TILESSEG_WRITE_TABLES=1` writes it anew. Each file goes the whole way
of a job with a model that costs nothing; real networks and tilings run over some of them in `test_real_scenes`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_bundle
from rasterio.errors import CRSError
from test_real_scenes import files_of, nodata_of, opened

from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.errors import TilessegError
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "real-files.md"
FOLDERS = ("satellite", "hostile/georef", "hostile/dtype", "hostile/mask_nodata", "hostile/vrt")
SCENE = "satellite/landsat8_iceland_greenland"
"""A folder that is one image."""
STORAGE = ("stored in strips", "one strip")
"""Notes on how a file is stored belong to other pages."""
HEAD = """\
# Real files

What becomes of each of the real and hostile files that the project is tried against, from satellite scenes to files
made to break readers. Each goes the whole way of a job. *Mask* means: the mask has the size, CRS, transform and ground
control points that rasterio reads from the file, and is nodata exactly where rasterio finds nothing: no band's mask is
set, or a value is NaN or infinite. Everything else is refused in one line, before the first tile.

A test writes this page (`tests/formats/test_real_files.py`) and fails where it is no longer true.

| file | what it is | outcome | nodata % | notes |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Outcome:
    """A row of the table, and where the mask and rasterio disagree."""

    file: str
    what: str
    outcome: str
    nodata: str = ""
    notes: str = ""
    problems: tuple[str, ...] = ()

    @property
    def row(self) -> str:
        cells = (f"`{self.file}`", self.what, self.outcome, self.nodata, self.notes)
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def crs_of(file: Any) -> Any:
    try:
        return file.crs
    except CRSError:  # rasterio cannot say it either
        return None


def what_it_is(path: Path) -> str:
    """Bands × rows × columns, type and CRS, as rasterio says."""
    if path.is_dir():
        return f"folder of {len(files_of(path))} files: {what_it_is(files_of(path)[0])}"
    try:
        with opened(path) as file:
            crs = crs_of(file)
            code = f"EPSG:{crs.to_epsg()}" if crs and crs.to_epsg() else "CRS without a code" if crs else "no CRS"
            return f"{file.count} × {file.height} × {file.width} {file.dtypes[0]}, {code}"
    except rasterio.RasterioIOError:
        return "not an image" if path.suffix in (".npz", ".csv", ".geojson") else "cannot be opened"


def outcome_of(path: Path, name: str, folder: Path, root: Path) -> Outcome:
    """Take one file the whole way."""
    what = what_it_is(path)

    def plain(text: str) -> str:
        return text.replace(f"{path.parent}/", "").replace(f"{root}/", "")

    try:
        source = open_source(str(path))
        bundle = write_bundle(folder / "model", "Constant", bands=len(source.bands))
        job = job_data(path, bundle, folder / "run", input={"check_range": False})
        report = run_job(parse_job(job, where="test"), executor=ThreadExecutor(2))
    except TilessegError as error:
        assert "\n" not in str(error)
        return Outcome(name, what, f"refused: {plain(str(error))}")
    told = (note for note in source.describe()["notes"] if not note.startswith(STORAGE))
    notes = plain("; ".join(told))
    if report.exit_code != 0:
        reasons = sorted(set(report.scenes[0].failed.values()))
        return Outcome(name, what, f"no mask: {plain(reasons[0])}", notes=notes)
    nothing = nodata_of(path, {})
    problems = tuple(compare(path, Path(report.products[0]), nothing))
    return Outcome(name, what, "mask", f"{100 * nothing.mean():.2f}", notes, problems)


def compare(image: Path, product: Path, nothing: Any) -> Iterator[str]:
    """Where the mask and rasterio's own reading of the image disagree."""
    with opened(files_of(image)[0]) as source, opened(product) as mask:
        if mask.shape != source.shape:
            yield f"shape {mask.shape}, not {source.shape}"
        if crs_of(mask) != crs_of(source):
            yield f"CRS {crs_of(mask)}, not {crs_of(source)}"
        if not np.allclose(mask.transform, source.transform, rtol=1e-12, atol=1e-12):
            yield f"transform {mask.transform}, not {source.transform}"
        points, their = ([(p.row, p.col, p.x, p.y, p.z) for p in file.gcps[0]] for file in (mask, source))
        if points != their or mask.gcps[1] != source.gcps[1]:
            yield f"{len(points)} ground control points, not the {len(their)} of the image"
        labels = mask.read(1)
        if not np.array_equal(labels == 255, nothing) or not np.array_equal(mask.dataset_mask() == 0, nothing):
            yield f"{(labels == 255).sum()} pixels of nodata, not {nothing.sum()}"
        if (labels[~nothing] != 1).any():
            yield "a label that the model does not give"


@pytest.fixture(scope="module")
def outcomes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    files = [path for name in FOLDERS for path in sorted((shared_data / name).rglob("*")) if path.is_file()]
    files.append(shared_data / SCENE)
    folder = tmp_path_factory.mktemp("outcomes")
    return [
        outcome_of(path, str(path.relative_to(shared_data)), folder / str(number), shared_data)
        for number, path in enumerate(files)
    ]


@pytest.mark.slow
def test_each_file_gives_a_mask_that_agrees_with_rasterio_or_is_refused(outcomes: list[Outcome]) -> None:
    assert len(outcomes) > 60
    assert {one.file: one.problems for one in outcomes if one.problems} == {}


@pytest.mark.slow
def test_the_page_of_outcomes_is_true(outcomes: list[Outcome]) -> None:
    page = HEAD + "\n".join(one.row for one in outcomes) + "\n"
    if os.environ.get("TILESSEG_WRITE_TABLES") == "1":
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8").splitlines() == page.splitlines()
