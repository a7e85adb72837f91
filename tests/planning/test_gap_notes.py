"""Pixels that are nodata in some of the bands only are said, with their share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, spec_data, write_scene, write_spec
from rasterio.enums import ColorInterp

from tilesseg.doubts import code_of
from tilesseg.formats.open import open_source
from tilesseg.planning.gap_notes import gap_notes
from tilesseg.planning.job import parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import plan_job
from tilesseg.planning.scene_list import find_scenes
from tilesseg.planning.scene_plan import complete_draft, draft_scene

NAMES = ["red", "green", "nir"]


def values(dtype: str = "uint16", nodata: Any = 0) -> Any:
    pixels = np.random.default_rng(3).integers(1, 200, (3, 50, 40)).astype(dtype)
    pixels[:, :, :20] = nodata
    pixels[0, :10] = nodata  # 200 of 1000 valid pixels
    pixels[2, :5] = nodata
    return pixels


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("float32", -9999), ("int16", -32768), ("float32", 0.1)])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_share_of_gaps_is_noted_for_one_file_and_for_several(
    tmp_path: Path, dtype: str, nodata: Any, several: bool, scaled: bool
) -> None:
    pixels = values(dtype, nodata)
    parts = [pixels[k : k + 1] for k in range(3)] if several else [pixels]
    names = [[name] for name in NAMES] if several else [NAMES]
    paths = [
        write_scene(tmp_path / f"{k}.tif", part, names=name, nodata=nodata)
        for k, (part, name) in enumerate(zip(parts, names, strict=True))
    ]
    if scaled:
        for path in paths:
            with rasterio.open(path, "r+") as file:
                file.scales, file.offsets = (1e-4,) * file.count, (-0.1,) * file.count
    source = open_source([str(path) for path in paths])
    (note,) = gap_notes(source.sample(), source)
    assert note == (
        "20 % of the valid pixels are nodata in some of the bands (red 20 %, nir 10 %), and are segmented "
        "[nodata-in-some-bands]"
    )
    one = source.select([1])
    assert gap_notes(one.sample(), one) == []


def test_a_plan_holds_the_note(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", values(), names=NAMES, nodata=0)
    model = write_spec(tmp_path / "model", {**spec_data(bands=3), "bands": NAMES})
    job = parse_job(job_data(path, model, tmp_path / "run"), where="test")
    plan = plan_job(job, Machine("cpu", 1, 2))
    (scene,) = find_scenes(job.scenes)
    planned = complete_draft(draft_scene(scene, job=job, plan=plan), plan=plan)
    assert "nodata-in-some-bands" in [code_of(note) for note in planned.notes]


def test_nodata_that_alpha_overrules_is_noted_with_its_share(tmp_path: Path) -> None:
    pixels = np.concatenate([values("uint8"), np.full((1, 50, 40), 255, np.uint8)])
    pixels[3, :, :10] = 0
    path = write_scene(tmp_path / "a.tif", np.zeros_like(pixels), nodata=0)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        file.write(pixels)
    source = open_source(str(path))
    (note,) = gap_notes(source.sample(), source)
    assert note.startswith("33 % of the pixels that alpha calls valid have the nodata value in every band")
    assert code_of(note) == "nodata-beside-alpha"
