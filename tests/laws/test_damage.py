"""The laws of damage: one bad block costs the patches that see it, whatever the tiles, and never exit code 0."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray
from slide_files import halved, tile_place, tissue, write_leica, write_pyramid

from tilesseg.cluster.executors import Executor, ThreadExecutor
from tilesseg.formats.reading.edge_padding import reflect
from tilesseg.planning.job import parse_job
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.raster.tiling import Lattice
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

TILINGS: list[dict[str, Any]] = [
    {"patch": 64, "overlap": 24, "blend": "gaussian"},
    {"patch": 64, "overlap": 40, "blend": "hann"},
    {"patch": 64, "margin": 8, "blend": "crop"},
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional", bands=3, margin=8)


def segment(
    image: Path, bundle: Path, folder: Path, *, executor: Executor | None = None, **changes: Any
) -> tuple[Report, NDArray[np.uint8]]:
    """Results of a run of one scene without a tissue search, and its mask."""
    given = {"bands": [1, 2, 3], "tissue": "none", **changes.pop("input", {})}
    scenes = {"image": str(image), "name": "s"}
    report = run_job(
        parse_job(job_data(scenes, bundle, folder, input=given, **changes), where="test"), executor=executor
    )
    return report, mask_of(folder)


def mask_of(folder: Path) -> NDArray[np.uint8]:
    store = RunDirectory(folder).scene("s")
    return store.read(Window(0, 0, *store.shape))


def lattice_of(folder: Path) -> Lattice:
    plan = stored_scene_plan(RunDirectory(folder).scene("s"))
    assert plan is not None
    return plan.layout.lattice


def seeing(lattice: Lattice, shape: tuple[int, int], blocks: list[Window]) -> NDArray[np.bool_]:
    """Pixels in the supports of all patches that show a pixel of a block: by brute force, one patch after another."""
    bad = np.zeros(shape, np.bool_)
    for block in blocks:
        bad[block.slices()] = True
    lost = np.zeros(shape, np.bool_)
    for y in (lattice.origin(k) for k in range(lattice.cells(shape[0]))):
        for x in (lattice.origin(k) for k in range(lattice.cells(shape[1]))):
            rows, columns = (
                reflect(start, start + lattice.patch, size) for start, size in zip((y, x), shape, strict=True)
            )
            if bad[np.ix_(rows, columns)].any():
                support = Window(y, x, lattice.patch, lattice.patch).inset(lattice.before, lattice.after)
                lost[support.intersect(Window(0, 0, *shape)).slices()] = True
    return lost


def damage(path: Path, number: int) -> None:
    """Overwrite the first bytes of a tile, or of a chunk's file: no decoder accepts it."""
    with path.open("r+b") as file:
        file.seek(tile_place(path, number)[0] if path.suffix else 0)
        file.write(bytes(12))


def write_zarr(path: Path, values: NDArray[Any]) -> Path:
    array = zarr.create_array(
        str(path), shape=(3, 300, 410), chunks=(3, 64, 64), dtype="uint8", dimension_names=["band", "y", "x"]
    )
    array[:] = values.transpose(2, 0, 1)
    return path


def write_vrt(path: Path, member: Path) -> Path:
    """A VRT without a block of its member's: GDAL's blocks of a VRT have 128 px."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{member.name}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = "<SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 5600000, 0, -10</GeoTransform>"
    path.write_text(f'<VRTDataset rasterXSize="410" rasterYSize="300">{place}{bands}</VRTDataset>')
    return path


def slide(path: Path, *, shape: tuple[int, int] = (300, 410), levels: int = 2, **options: Any) -> Path:
    return write_pyramid(path, halved(tissue(shape), levels), **{"compression": "jpeg", **options})


def write_tiff(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "interleave": "pixel"}
    return write_scene(path, values.transpose(2, 0, 1), **{**options, **profile})


KINDS = ["jpeg slide", "deflate slide", "geotiff", "jpeg geotiff", "strips", "zarr", "openslide", "vrt"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_block_costs_exactly_the_patches_that_see_it(tmp_path: Path, bundle: Path, kind: str) -> None:
    picture, tiling = tissue((300, 410)), TILINGS[0]
    block, number = Window(128, 192, 64, 64), 2 * 7 + 3
    match kind:
        case "jpeg slide":
            image = slide(tmp_path / "s.tif")
        case "deflate slide":
            image = slide(tmp_path / "s.tif", compression="deflate")
        case "geotiff":
            image = write_tiff(tmp_path / "s.tif", picture)
        case "jpeg geotiff":
            image = write_tiff(tmp_path / "s.tif", picture, compress="jpeg", photometric="ycbcr")
        case "strips":
            image = write_tiff(tmp_path / "s.tif", picture, tiled=False, blockysize=16)
            block, number = Window(128, 0, 16, 410), 8
        case "zarr":
            image = write_zarr(tmp_path / "s.zarr", picture)
        case "openslide":
            image = write_leica(tmp_path / "s.scn", [picture], canvas=(640, 1280), corner=(128, 64))
        case _:
            image, block = (
                write_vrt(tmp_path / "s.vrt", write_tiff(tmp_path / "s.tif", picture)),
                Window(128, 128, 128, 128),
            )
    _, sound = segment(image, bundle, tmp_path / "sound", tiling=tiling)
    damage({"vrt": tmp_path / "s.tif", "zarr": image / "c/0/2/3"}.get(kind, image), number)
    report, mask = segment(image, bundle, tmp_path / "run", tiling=tiling)
    lost = seeing(lattice_of(tmp_path / "run"), mask.shape, [block])
    assert 0 < lost.sum() < lost.size
    assert ((mask == 254) == lost).all()
    assert (mask[~lost] == sound[~lost]).all()
    (scene,) = report.scenes
    assert report.exit_code == 3 and scene.state == "damaged" and not scene.failed
    assert scene.damaged_pixels == scene.pixels["failed"] == lost.sum()
    (record,) = [one for one in RunDirectory(tmp_path / "run").scene("s").done().values() if one.damage]
    assert [Window(*window) for window in record.damaged] == [block]


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: tiling["blend"])
def test_damage_does_not_depend_on_tiles_or_stage_or_resume(
    tmp_path: Path, bundle: Path, tiling: dict[str, Any]
) -> None:
    image = slide(tmp_path / "s.tif")
    for number in (0, 9, 10, 34):
        damage(image, number)
    _, whole = segment(image, bundle, tmp_path / "whole", tiling=tiling)
    blocks = [Window(y, x, 64, 64) for y, x in ((0, 0), (64, 128), (64, 192), (256, 384))]
    assert ((whole == 254) == seeing(lattice_of(tmp_path / "whole"), whole.shape, blocks)).all()
    core = {"crop": 48}.get(tiling["blend"], 64)
    ways: dict[str, dict[str, Any]] = {
        "tiles": {},
        "threads": {"executor": ThreadExecutor(3)},
        "staged": {"input": {"stage": "always"}},
    }
    for name, more in ways.items():
        report, mask = segment(image, bundle, tmp_path / name, tiling={**tiling, "core": core}, **more)
        assert report.exit_code == 3 and len(report.scenes[0].damaged) > 1
        assert (mask == whole).all(), name
    done = tmp_path / "tiles" / "scenes" / "s" / "done"
    for record in sorted(done.iterdir())[::2]:
        record.unlink()
    again, mask = segment(image, bundle, tmp_path / "tiles", tiling={**tiling, "core": core})
    assert again.exit_code == 3 and (mask == whole).all()


def test_a_resampled_image_loses_the_pixels_that_are_computed_from_the_block(tmp_path: Path, bundle: Path) -> None:
    image = write_tiff(tmp_path / "s.tif", tissue((300, 410)))
    masks = []
    damage(image, 17)
    for name, core in (("a", 64), ("b", 256)):
        tiling = {**TILINGS[0], "core": core}
        report, mask = segment(image, bundle, tmp_path / name, tiling=tiling, input={"resolution": 13.0})
        assert report.exit_code == 3
        masks.append(mask)
    seen = Window.from_bounds(128 * 10 // 13, 192 * 10 // 13, -(-192 * 10 // 13), -(-256 * 10 // 13))
    lost = seeing(lattice_of(tmp_path / "a"), mask.shape, [seen])
    assert (masks[0] == masks[1]).all() and ((mask == 254) == lost).all()


def test_damage_in_nodata_and_outside_the_region_costs_nothing_and_is_not_reported(
    tmp_path: Path, bundle: Path
) -> None:
    picture = tissue((300, 410))
    picture[:, 200:] = 0
    image = write_tiff(tmp_path / "s.tif", picture, nodata=0)
    region = np.zeros((1, 300, 410), np.uint8)
    region[:, :, :100] = 1
    damage(image, 17)
    given = {"tissue": str(write_scene(tmp_path / "region.tif", region))}
    report, mask = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0], input=given)
    assert report.exit_code == 0 and not (mask == 254).any()


def test_damaged_pixels_can_be_read_from_a_coarser_level_and_the_exit_code_says_so(
    tmp_path: Path, bundle: Path
) -> None:
    image = slide(tmp_path / "s.tif", levels=3)
    damage(image, 17)
    report, mask = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0], input={"damaged": "coarser"})
    (scene,) = report.scenes
    assert not (mask == 254).any() and report.exit_code == 3 and scene.state == "damaged"
    assert "read from a coarser level" in next(iter(scene.damaged.values()))
    _, marked = segment(image, bundle, tmp_path / "marked", tiling=TILINGS[0])
    assert (mask[marked != 254] == marked[marked != 254]).all()


def test_stored_scores_are_254_where_labels_are(tmp_path: Path) -> None:
    image, bundle = slide(tmp_path / "s.tif"), write_bundle(tmp_path / "model", "Constant", bands=3)
    damage(image, 17)
    output = {"dir": str(tmp_path / "run"), "products": [], "scores": ["class 1"]}
    report, mask = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0], output=output)
    scores = RunDirectory(tmp_path / "run").scene("s").read_scores(0, Window(0, 0, *mask.shape))
    assert report.exit_code == 3 and (mask == 254).any()
    assert ((mask == 254) == (scores == 254)).all() and (scores[mask != 254] == 175).all()


def test_damaged_pixels_are_left_out_of_statistics_with_a_note(tmp_path: Path) -> None:
    normalise = {"kind": "scene_percentiles", "low": 1, "high": 99}
    bundle = write_bundle(tmp_path / "model", "Constant", bands=3, normalise=normalise)
    image = slide(tmp_path / "s.tif")
    damage(image, 17)
    report, _ = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0])
    (note,) = [note for note in report.scenes[0].notes if "sampled for statistics" in note]
    assert note.startswith("4,096 px") and note.endswith("[damaged-pixels]")


@pytest.mark.slow
def test_a_damaged_block_of_a_large_slide_costs_the_patches_that_see_it(tmp_path: Path) -> None:
    image = slide(tmp_path / "s.tif", shape=(4096, 4096), tile=256)
    bundle = write_bundle(tmp_path / "model", "Constant", bands=3)
    damage(image, 7 * 16 + 9)
    report, mask = segment(image, bundle, tmp_path / "run")
    lost = seeing(lattice_of(tmp_path / "run"), mask.shape, [Window(7 * 256, 9 * 256, 256, 256)])
    assert ((mask == 254) == lost).all() and report.scenes[0].damaged_pixels == lost.sum()
    assert lost.sum() <= (2 * lattice_of(tmp_path / "run").patch) ** 2 < lost.size / 10


def test_a_damaged_tile_is_done_and_is_redone_on_request_only(tmp_path: Path, bundle: Path) -> None:
    image = slide(tmp_path / "s.tif")
    sound = image.read_bytes()
    damage(image, 17)
    changed, tiling = image.stat(), {**TILINGS[0], "core": 128}
    _, before = segment(image, bundle, tmp_path / "run", tiling=tiling)
    state = json.loads((tmp_path / "run" / "summary.json").read_text())["scenes"][0]
    assert state["state"] == "damaged" and any(note.endswith("[damaged-pixels]") for note in state["notes"])
    records = tmp_path / "run" / "scenes" / "s" / "done"
    times = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    again, mask = segment(image, bundle, tmp_path / "run", tiling=tiling)
    assert again.exit_code == 3 and (mask == before).all()
    assert {path.name: path.stat().st_mtime_ns for path in records.iterdir()} == times
    image.write_bytes(sound)  # the disk gives the right bytes again, and the file counts as the same
    os.utime(image, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    scenes = {"image": str(image), "name": "s"}
    job = job_data(scenes, bundle, tmp_path / "run", input={"bands": [1, 2, 3], "tissue": "none"}, tiling=tiling)
    report = run_job(parse_job(job, where="test"), retry_damaged=True)
    assert report.exit_code == 0 and report.scenes[0].state == "complete"
    assert not (mask_of(tmp_path / "run") == 254).any()
    kept = {name for name, time in times.items() if (records / name).stat().st_mtime_ns == time}
    assert 0 < len(kept) < len(times)


def test_a_file_out_of_reach_is_no_damage(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilesseg.formats.slide.tiff_level import ByteFiles

    image = slide(tmp_path / "s.tif")
    read = ByteFiles.read
    offset, _ = tile_place(image, 17)

    def refused(self: ByteFiles, path: str, at: int, count: int) -> bytes:
        if at == offset:
            raise PermissionError(13, "Permission denied")
        return read(self, path, at, count)

    monkeypatch.setattr(ByteFiles, "read", refused)
    report, mask = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0])
    (scene,) = report.scenes
    assert report.exit_code == 3 and scene.failed and not scene.damaged and (mask == 254).all()


def test_bytes_behind_the_end_of_a_jpeg_are_no_damage(tmp_path: Path, bundle: Path) -> None:
    import tifffile

    image = slide(tmp_path / "s.tif", shape=(128, 128), tile=128)
    _, sound = segment(image, bundle, tmp_path / "sound", tiling=TILINGS[0])
    offset, count = tile_place(image, 0)
    data = image.read_bytes()
    padded = data + data[offset : offset + count] + bytes(range(256)) * 2
    image.write_bytes(padded)
    with tifffile.TiffFile(image, mode="r+") as file:
        file.pages[0].tags["TileOffsets"].overwrite([len(data)])
        file.pages[0].tags["TileByteCounts"].overwrite([count + 512])
    report, mask = segment(image, bundle, tmp_path / "run", tiling=TILINGS[0])
    assert report.exit_code == 0 and (mask == sound).all()
