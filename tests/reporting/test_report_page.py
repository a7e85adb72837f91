"""Laws of `report.html`. The oracle is lxml's parser, and for the seams of real masks the blending that made them."""

from __future__ import annotations

import base64
import csv
import json
import re
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import lxml.etree
import lxml.html
import numpy as np
import pytest
from fakes import job_data, spec_data, write_bundle, write_scene, write_spec
from small_runs import SmallRun

from tilesseg.cli.main import run as command
from tilesseg.cli.report_command import reported
from tilesseg.errors import SourceError
from tilesseg.events import Note, TileFailed
from tilesseg.formats.writing.preview import encode
from tilesseg.monitoring.html_templates import templates_of
from tilesseg.monitoring.humanize import duration
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.reporting.html.report_page import DETAILED, write_report
from tilesseg.reporting.html.report_scene import _labels
from tilesseg.reporting.html.seam_statistics import Seams, measure_seams
from tilesseg.reporting.html.svg_charts import CUTS, TileBar, TileOutcome, lay_out_map, lay_out_timeline
from tilesseg.reporting.results import report_of
from tilesseg.reporting.summary_csv import write_summary

CUT = {"core": 64, "patch": 64, "blend": "gaussian"}


def small_run(folder: Path, names: str, **changes: Any) -> SmallRun:
    """Scenes of 2 × 3 tiles of 64 × 64 pixels, of three classes."""
    for name in names:
        values = np.random.default_rng(ord(name)).integers(0, 3, (1, 128, 192), np.uint8)
        write_scene(folder / f"{name}.tif", values)
    data = job_data(str(folder / "*.tif"), write_bundle(folder / "model"), folder / "run", name="a <b>bold</b> job")
    return SmallRun({**data, "tiling": CUT, "input": {"check_range": False}, **changes})


@pytest.fixture
def mixed(tmp_path: Path) -> SmallRun:
    """A complete scene, one with failed tiles, a refused one, an unfinished one, and one that waits."""
    small = small_run(tmp_path, "abcde")
    (tmp_path / "c.tif").write_bytes(b"no image")
    small.plan_scenes("a", "b", "c", "d")
    small.segment("a", worker=lambda number: f"node{number % 2}:1")
    small.segment("b", fail=["r001-c002"])
    small.segment("d", limit=4, patches=lambda number: number % 2)
    small.finish("a")
    small.finish("b")
    return small


def page_of(small: SmallRun) -> Any:
    return lxml.html.parse(str(write_report(small.run, small.plan, seconds=61.0))).getroot()


def words(element: Any) -> str:
    return " ".join(element.text_content().split())


def test_the_page_says_where_the_time_went_and_what_went_on_beside(tmp_path: Path) -> None:
    small = small_run(tmp_path, "a")
    small.plan_scenes("a")
    small.segment("a", seconds={"predict": 3.0, "wait": 1.0, "read": 2.0}, batch=1)
    text = words(page_of(small))
    whole = small.records("a")
    assert (
        f"predict {duration(3.0 * len(whole))}, 75" in text
        and "At the same time, in threads of their own: read" in text
    )
    assert f"{len(whole)} tiles, because device memory was short" in text


def test_the_page_needs_nothing_but_itself(mixed: SmallRun) -> None:
    text = write_report(mixed.run, mixed.plan).read_text(encoding="utf-8")
    page = lxml.html.fromstring(text)
    assert not page.xpath("//script|//link|//iframe|//object|//embed")
    assert not re.search(r"@import|url\((?!#hatch)", text)
    links = [value for _, name, value, _ in page.iterlinks() if name in ("src", "href")]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    targets = {value[1:] for value in page.xpath("//a/@href")}
    assert targets == set(page.xpath("//article/@id"))


def test_the_page_says_what_happened_to_every_scene(mixed: SmallRun) -> None:
    page = page_of(mixed)
    rows = {words(row.xpath("./th")[0]): words(row) for row in page.xpath("//table[thead//th='state']/tbody/tr")}
    states = {"a": "complete", "b": "failed tiles", "c": "refused", "d": "unfinished", "e": "waiting"}
    assert rows.keys() == states.keys() and all(state in rows[name] for name, state in states.items())
    (lead,) = page.xpath("//p[@class='lead']")
    assert "5 scenes" in words(lead) and "1 tile failed, 1 scene refused" in words(lead)
    failed = words(page.xpath("//h2[.='What failed']/following-sibling::div[1]")[0])
    assert "ValueError: planted" in failed and "b r001-c002" in failed and "c.tif" in failed
    said = words(page)
    for word in (mixed.plan.model_sha256, "CC0-1.0", "Python", "tilesseg run", "1:01 min", "job.yaml"):
        assert word in said
    for name in "abd":
        plan = stored_scene_plan(mixed.run.scene(name))
        assert plan is not None and plan.fingerprint(mixed.plan) in said


def test_the_numbers_of_the_class_tables_are_those_of_the_ledger(mixed: SmallRun) -> None:
    (scene,) = (one for one in report_of(mixed.run, mixed.plan, names=["b"]).scenes)
    (article,) = page_of(mixed).xpath("//article[.//h3='b']")
    rows = article.xpath(".//table[thead//th='class']/tbody/tr")
    found = {words(row[0]): int(words(row[1]).replace(",", "")) for row in rows}
    assert found == dict(scene.pixels) and found["failed"] == 64 * 64


def test_a_map_has_a_cell_for_each_tile_with_what_became_of_it(mixed: SmallRun) -> None:
    page = page_of(mixed)
    kinds = {
        name: [cell.get("class") for cell in page.xpath(f"//article[.//h3='{name}']//svg[@class='map']/g/rect")]
        for name in "abd"
    }
    assert all(len(cells) == 6 for cells in kinds.values())
    assert all(re.fullmatch(r"t\d", one) for one in kinds["a"])
    assert kinds["b"].count("failed") == 1
    assert kinds["d"].count("skipped") == 2 and kinds["d"].count("left") == 2
    titles = page.xpath("//article[.//h3='b']//svg[@class='map']/g/title/text()")
    assert "r001-c002 failed: ValueError: planted" in titles
    workers = [words(one) for one in page.xpath("//div[@class='lanes']/ul/li")]
    assert {"node0:1", "node1:1"} <= set(workers)


def test_the_page_is_well_formed_and_can_be_read_without_seeing_it(mixed: SmallRun) -> None:
    text = write_report(mixed.run, mixed.plan).read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    parser = lxml.etree.HTMLParser(recover=False)
    with suppress(lxml.etree.XMLSyntaxError):
        lxml.etree.fromstring(text, parser)
    # libxml2 knows HTML 4: what it does not know is named, anything else is a mistake
    mistakes = [one for one in parser.error_log if "invalid" not in one.message or "Tag" not in one.message]
    assert [one.message for one in mistakes] == []
    page = lxml.html.fromstring(text)
    assert page.get("lang") == "en" and len(page.xpath("//h1")) == 1
    assert all(image.get("alt") for image in page.xpath("//img"))
    assert all(chart.get("aria-label") or chart.get("aria-hidden") for chart in page.xpath("//svg"))
    assert all(table.xpath("./caption") and table.xpath(".//th[@scope='col']") for table in page.xpath("//table"))


HOSTILE = """<script>alert(1)<script>"'&"""
"""A name as bad as can be that a folder may still have."""


def run_named(folder: Path, name: str) -> SmallRun:
    """A run in which all that people name is called `name`: job, scenes, classes, model, workers, reasons, notes."""
    folder.mkdir()
    scenes = [{"image": str(folder / f"{k}{name}.tif"), "name": f"{k}{name}"} for k in range(3)]
    for scene in scenes[:2]:
        values = np.random.default_rng(1).integers(0, 3, (1, 128, 192), np.uint8)
        write_scene(Path(scene["image"]), values)
    Path(scenes[2]["image"]).write_bytes(b"no image")
    classes = [{"name": f"{k}{name}", "colour": "#0000ff"} for k in range(3)]
    about = {"name": name, "description": f"about {name}", "licence": name, "classes": classes, "bands": [name]}
    data = job_data(scenes, write_spec(folder / "model", {**spec_data(), **about}), folder / "run")
    small = SmallRun({**data, "tiling": CUT, "input": {"check_range": False}})
    small.plan_scenes()
    for scene in small.names[:2]:
        small.segment(scene, fail=["r001-c002"], worker=name)
    store = small.run.scene(small.names[0])
    store.mark_failed(TileFailed(store.scene, "r001-c002", 1, f"ValueError: {name}", name))
    store.write_json("plan.json", with_notes(store.read_json("plan.json"), [name]))
    small.finish(small.names[0])
    (small.run.scene(small.names[1]).folder / "mask.zarr" / "zarr.json").write_text(name)
    small.run.scene(small.names[2]).write_json("refused.json", {"reason": f"refused: {name}"})
    small.run.write_text("job.yaml", json.dumps({"name": name, "cluster": {"kind": name, name: [name]}}))
    return small


def with_notes(plan: Any, notes: list[str]) -> Any:
    return {**plan, "scene": {**plan["scene"], "notes": notes}}


def structure(page: Any) -> list[tuple[str, list[str]]]:
    """Elements of a page with the names of their attributes."""
    return [(element.tag, sorted(element.keys())) for element in page.iter() if isinstance(element.tag, str)]


def test_whatever_people_name_things_the_page_has_the_same_elements(tmp_path: Path) -> None:
    tame, wild = (page_of(run_named(tmp_path / f"run{k}", name)) for k, name in enumerate(("tame", HOSTILE)))
    assert structure(wild) == structure(tame) and not wild.xpath("//script")
    for at in (
        "//title",
        "//h1",
        "//h3",
        "//caption/..//th",
        "//a",
        "//dd",
        "//div[@class='lanes']//li",
        "//svg//title",
    ):
        shown = [
            sum("tame" in words(each) for each in tame.xpath(at)),
            sum(HOSTILE in words(each) for each in wild.xpath(at)),
        ]
        assert shown[0] == shown[1] > 0, at
    assert words(wild).count(HOSTILE) == words(tame).count("tame")
    for name in ("title", "alt", "aria-label"):
        assert any(HOSTILE in text for text in wild.xpath(f"//@{name}")), name


def test_secrets_of_a_cluster_stay_at_home(mixed: SmallRun) -> None:
    secrets = {
        "kind": "slurm",
        "environment": {"TOKEN": "hush"},
        "setup": ["export KEY=hush"],
        "options": {"a": "hush"},
        "driver": {"cores": 2, "directives": ["--comment=hush"]},
        "address": "https://me:hush@gateway",
    }
    mixed.run.write_text("job.yaml", json.dumps({"name": "n", "cluster": secrets}))
    text = write_report(mixed.run, mixed.plan).read_text(encoding="utf-8")
    assert "kind slurm" in text and "https://…@gateway" in text and "hush" not in text


def test_tokens_of_addresses_stay_at_home(mixed: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://me:hush@host/a.tif?sv=1&sig=hush%2B"

    def unreadable(*args: Any) -> None:
        raise SourceError(f"{address}: HTTP 404")

    monkeypatch.setattr(ScenePlan, "open_for_tiles", unreadable)
    mixed.run.scene("c").folder.joinpath("refused.json").write_text(json.dumps({"reason": f"{address}: HTTP 403"}))
    mixed.run.scene("d").mark_failed(TileFailed("d", "r001-c001", 1, f"cannot read '/vsicurl/{address}'", "node1:7"))
    plan = mixed.run.path / "scenes" / "a" / "plan.json"
    data = json.loads(plan.read_text())
    data["scene"]["paths"] = [address]
    plan.write_text(json.dumps(data))
    text = write_report(mixed.run, mixed.plan).read_text(encoding="utf-8")
    assert "https://…@host/a.tif?…: HTTP 403" in text and "https://…@host/a.tif?…: HTTP 404" in text
    assert "a.tif?…&#39;" in text
    assert "hush" not in text


def test_whatever_goes_wrong_with_a_report_does_not_hide_how_the_run_ended(
    mixed: SmallRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("tilesseg.reporting.html.report_page.write_report", broken)
    with reported(mixed.run.path):
        mixed.run.log(Note("one more"), 2e9)
    remedy = f"try tilesseg report {mixed.run.path}"
    assert capsys.readouterr().err == f"cannot write the report: ZeroDivisionError: oh; {remedy}\n"


def test_pictures_are_as_large_as_they_may_be_and_failed_cores_are_magenta(mixed: SmallRun, tmp_path: Path) -> None:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    for name in "bd":  # from the quick look, and drawn
        (article,) = page_of(mixed).xpath(f"//article[.//h3='{name}']")
        image, mask = (base64.b64decode(one.split(",")[1]) for one in article.xpath(".//img/@src"))
        for number, data in enumerate((image, mask)):
            (tmp_path / f"{number}.png").write_bytes(data)
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "1.png") as file:
            assert file.shape == (128, 192)
            assert file.read()[:, 100, 180].tolist() == [255, 0, 255, 255]


def test_an_image_that_is_gone_costs_its_picture_and_nothing_else(mixed: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "d.tif").unlink()
    (article,) = page_of(mixed).xpath("//article[.//h3='d']")
    assert len(article.xpath(".//img")) == 1  # the mask
    assert "no picture of the image" in words(article) and "d.tif" in words(article)


def test_damaged_quick_looks_and_plans_are_said(mixed: SmallRun) -> None:
    looks = list(mixed.run.path.rglob("b.png"))
    looks[0].write_bytes(encode(np.zeros((4, 5, 1), np.uint8), "PNG"))
    (mixed.run.path / "scenes" / "a" / "mask.zarr" / "zarr.json").write_text("{")
    page = page_of(mixed)
    assert "no picture" in words(page.xpath("//article[.//h3='b']")[0])
    assert "Not measured" in words(page.xpath("//article[.//h3='a']")[0])


def test_of_many_scenes_some_are_shown_those_with_problems_among_them(tmp_path: Path) -> None:
    small = small_run(tmp_path, "a")
    small.plan_scenes()
    small.segment("a", fail=["r000-c000"])
    lines = [json.dumps({"name": f"s{k:05d}", "paths": ["x"]}) + "\n" for k in range(3000)]
    lines.insert(1500, json.dumps({"name": "a", "paths": ["a.tif"]}) + "\n")
    small.run.write_text("scenes.jsonl", "".join(lines))
    done = report_of(small.run, small.plan, names=["a"]).scenes[0]
    for k in range(0, 3000, 10):
        record = {
            "scene": f"s{k:05d}",
            "state": "complete",
            "tiles": 1,
            "done": 1,
            "failed": {},
            "pixels": {"class 0": 9},
        }
        record |= {"hectares": {}, "seconds": {"read": 1.0}, "products": []}
        store = small.run.scene(f"s{k:05d}")
        store.write_json("finished.json", {"report": record})
        (store.folder / "done").mkdir()
        (store.folder / "done" / "r000-c000.json").write_text(
            '{"event": "tile_done", "scene": "s", "tile": "r000-c000", '
            '"pixels": 9, "patches": 1, "skipped": 0, "counts": {}, "areas": {}}'
        )
    assert done.failed
    page = page_of(small)
    names = [words(one) for one in page.xpath("//article//h3")]
    assert len(names) <= DETAILED and "a" in names
    (table,) = page.xpath("//table[thead//th='state']")
    assert len(table.xpath("./tbody/tr")) == 400
    assert "300 complete, 1 with failed tiles, 2,700 waiting" in words(page.xpath("//p[@class='lead']")[0])
    assert "of 3,001 scenes are listed" in words(table.xpath("./caption")[0])
    assert words(table.xpath("./tbody/tr[1]/th")[0]) == "a"


def drawn(macro: str, chart: Any) -> Any:
    charts = templates_of("tilesseg.reporting.html").get_template("charts.html.j2").module
    return lxml.html.fragment_fromstring(getattr(charts, macro)(chart), create_parent=True)


def test_maps_of_many_tiles_are_drawn_in_squares_that_show_every_failure() -> None:
    cells = {(y, x): TileOutcome("done", 1.0 + y, f"{y} {x}") for y in range(200) for x in range(150)}
    cells[77, 33] = TileOutcome("failed", 0.0, "why")
    svg = drawn("tile_map", lay_out_map((200, 150), cells, shape=(2000, 1500), most=1000))
    rects = svg.xpath(".//g/rect/@class")
    assert 500 < len(rects) <= 1000 and rects.count("failed") == 1
    assert "29999 done, 1 failed" in svg.xpath(".//svg/@aria-label")[0]


def test_lanes_never_overlap_and_long_pauses_are_cut() -> None:
    bars = [TileBar("w:1", 10.0 * k, 10.0 * k + 14, 0, "t") for k in range(20)]
    bars += [TileBar("w:1", 90_000.0 + 10 * k, 90_000.0 + 10 * k + 9, 0, "t") for k in range(20)]
    svg = drawn("timeline", lay_out_timeline(bars, colours=1))
    boxes = [tuple(float(one.get(key)) for key in ("x", "y", "width")) for one in svg.xpath(".//rect[@class='s0']")]
    assert len(boxes) == 40 and len(svg.xpath(".//path[@class='cut']")) == 1
    for y in {box[1] for box in boxes}:
        row = sorted((x, x + width) for x, at, width in boxes if at == y)
        assert all(a[1] <= b[0] + 0.01 for a, b in pairwise(row))
    assert max(x + width for x, _, width in boxes) <= 1000.01


def test_a_worker_that_is_always_busy_looks_busy_however_many_tiles_it_has() -> None:
    bars = [TileBar(f"w:{w}", 1.0 * k, 1.0 * k + 0.99, 0, "t") for k in range(3000) for w in range(20)]
    svg = drawn("timeline", lay_out_timeline(bars, colours=1, most=2000))
    widths = [float(one.get("width")) for one in svg.xpath(".//rect[@class='s0']")]
    assert len(widths) <= 2000 and sum(widths) > 0.9 * 20 * 1000


def test_lanes_of_a_run_that_was_taken_up_many_times_go_from_left_to_right() -> None:
    bars = [TileBar("w:1", 1000.0 * k, 1000.0 * k + 9, 0, "t") for k in range(300)]
    svg = drawn("timeline", lay_out_timeline(bars, colours=1))
    lefts = [float(one.get("x")) for one in svg.xpath(".//rect[@class='s0']")]
    assert len(svg.xpath(".//path[@class='cut']")) <= CUTS
    assert lefts == sorted(lefts) and lefts[0] == 0 and 900 < lefts[-1] <= 1000


def test_the_command_writes_where_it_is_told(
    mixed: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["report", str(mixed.run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(mixed.run.path / "report.html")
    assert command(["report", str(mixed.run.path), "--out", str(tmp_path / "mine.html")]) == 0
    assert (tmp_path / "mine.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert command(["report", str(tmp_path)]) == 1
    assert "no run directory" in capsys.readouterr().err


def test_the_summary_has_a_line_for_each_scene_with_its_classes(mixed: SmallRun) -> None:
    report = report_of(mixed.run, mixed.plan, names=mixed.names)
    path = write_summary(mixed.run, report)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scene"] for row in rows] == mixed.names and path.name == "summary.csv"
    for row, scene in zip(rows, report.scenes, strict=True):
        assert row["state"] == scene.state and int(row["tiles"]) == scene.tiles
        assert {name: int(row[f"{name}_px"]) for name in scene.pixels} == dict(scene.pixels)
        assert {name: float(row[f"{name}_ha"]) for name in scene.hectares} == dict(scene.hectares)
        assert not any(name.endswith("_mm2") for name in row)
    assert rows[1]["reason"] == "r001-c002: ValueError: planted" and "c.tif" in rows[2]["reason"]
    assert rows[0]["products"].split(";") == list(report.scenes[0].products)


def measured(folder: Path, **tiling: Any) -> Seams:
    """The seams of a mask made by a network whose scores depend on the place in the patch."""
    rng = np.random.default_rng(1)
    write_scene(folder / "a.tif", rng.integers(0, 200, (1, 640, 704), np.uint8))
    bundle = write_bundle(folder / "model", "Positional", margin=16)
    data = job_data(str(folder / "a.tif"), bundle, folder / "run", tiling=tiling, input={"check_range": False})
    small = SmallRun(data)
    small.plan_scenes()
    small.segment("a")
    plan = stored_scene_plan(small.run.scene("a"))
    assert plan is not None
    return measure_seams(plan.tiling, _labels(small.run.scene("a"), plan))


def test_blending_scores_better_than_cutting_where_scores_depend_on_the_patch(tmp_path: Path) -> None:
    for name in ("crop", "blended"):
        (tmp_path / name).mkdir()
    crop = measured(tmp_path / "crop", patch=128, blend="crop", margin=16).patches
    blended = measured(tmp_path / "blended", patch=128, blend="gaussian", overlap=64, core=256).patches
    assert crop.ratio is not None and blended.ratio is not None
    assert crop.ratio - 2 * crop.error > 1
    assert blended.ratio < crop.ratio


@pytest.mark.slow
def test_the_demo_mask_has_no_seams(tmp_path: Path) -> None:
    assert command(["demo", "--dir", str(tmp_path), "--size", "1024"]) == 0
    (run,) = tmp_path.glob("run-*")
    text = words(lxml.html.parse(str(run / "report.html")).getroot()) if (run / "report.html").exists() else ""
    assert command(["report", str(run)]) == 0
    text = words(lxml.html.parse(str(run / "report.html")).getroot())
    assert "steps along the borders" not in text and "mask in the colours" in text.lower()
