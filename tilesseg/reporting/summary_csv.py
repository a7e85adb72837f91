"""`summary.csv`: a line for each scene of a run, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilesseg.reporting.results import Report, SceneReport
    from tilesseg.store.run_directory import RunDirectory


SUMMARY_FILE = "summary.csv"
_FIRST = ("scene", "state", "tiles", "done", "failed", "damaged", "skipped", "patches")
_LAST = ("not_looked_at_px", "seconds", "products", "doubts", "reason")


def write_summary(run: RunDirectory, report: Report) -> Path:
    """Write `summary.csv` of a run whole: a line for each scene, in the job's order.

    Columns: `scene`, `state`, numbers of tiles and patches, `damaged` being tiles done with damage; pixels by class
    (`water_px`), with `failed_px` and `nodata_px`; hectares on the ground by class (`water_ha`) where any scene has
    them, and square millimetres (`tumour_mm2`) where any is measured in micrometres; `not_looked_at_px`, pixels outside
    the region of interest (the name is older than the term); `seconds` of all tiles together; `products`, separated by
    semicolons; codes of its `doubts`; `reason` of refusals, failures and damage.

    Raises:
        StoreError: the file cannot be written.
    """
    classes = _names(scene.pixels for scene in report.scenes)
    areas = _names(scene.hectares for scene in report.scenes)
    sizes = _names(scene.square_mm for scene in report.scenes)
    by_class = [f"{name}_px" for name in classes] + [f"{name}_ha" for name in areas] + [f"{name}_mm2" for name in sizes]
    columns = [*_FIRST, *by_class, *_LAST]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(map(_row, report.scenes))
    run.write_text(SUMMARY_FILE, text.getvalue())
    return run.path / SUMMARY_FILE


def _names(tables: Iterable[Any]) -> list[str]:
    """Names of the classes in any of the tables, in their order, `failed` and `nodata` last."""
    names = dict.fromkeys(name for table in tables for name in table)
    return sorted(names, key=lambda name: ("failed", "nodata").index(name) if name in ("failed", "nodata") else -1)


def _row(scene: SceneReport) -> dict[str, Any]:
    failures = (f"{tile}: {why}" for tile, why in scene.failed.items())
    damaged = (f"{tile}: {what}" for tile, what in scene.damaged.items())
    reasons = [reason for reason in (scene.refused, scene.problem, *failures, *damaged) if reason]
    return {
        "scene": scene.scene,
        "state": scene.state,
        "tiles": scene.tiles,
        "done": scene.done,
        "failed": len(scene.failed),
        "damaged": len(scene.damaged),
        "skipped": scene.skipped,
        "patches": scene.patches,
        **{f"{name}_px": count for name, count in scene.pixels.items()},
        **{f"{name}_ha": area for name, area in scene.hectares.items()},
        **{f"{name}_mm2": area for name, area in scene.square_mm.items()},
        "not_looked_at_px": scene.outside,
        "seconds": round(sum(scene.seconds.values()), 3),
        "products": ";".join(scene.products),
        "doubts": ";".join(scene.doubts),
        "reason": " | ".join(reasons[:3]) + (f" | and {len(reasons) - 3} more" if len(reasons) > 3 else ""),
    }
