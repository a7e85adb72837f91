"""How long it takes to find, choose and list the scenes of a large job. Its files are made first, and removed.

python -m benchmarks.parts.many_scenes --scenes 100000 --items 10000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilesseg.errors import JobError
from tilesseg.formats.stac.stac_items import read_item
from tilesseg.planning.scene_list import choose_scenes, find_scenes, read_scene_list, write_scene_list

FOLDERS = 100


def timed(what: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = work()
    print(f"{what:60} {time.perf_counter() - start:8.3f} s")
    return result


def make_files(folder: Path, count: int) -> str:
    for number in range(count):
        place = folder / f"{number % FOLDERS:02}"
        if number < FOLDERS:
            place.mkdir(parents=True)
        (place / f"scene-{number:06}.tif").touch()
    return f"{folder}/**/*.tif"


def make_tables(folder: Path, count: int) -> tuple[str, str]:
    plain, full = folder / "plain.csv", folder / "full.csv"
    plain.write_text("image,name\n" + "".join(f"a/{k}.tif,scene-{k}\n" for k in range(count)))
    rows = (f"a/{k}.tif,scene-{k},0.{k % 7 + 1},{k % 3},red nir,0.0001\n" for k in range(count))
    full.write_text("image,name,mpp,priority,bands,scale\n" + "".join(rows))
    return str(plain), str(full)


def item(number: int) -> dict[str, Any]:
    """An item as large as those of Sentinel-2 are."""
    band = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "spatial_resolution": 10, "scale": 0.0001}
    assets = {
        f"b{k}": {
            "href": f"https://data.example/s2/{number}/B{k}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": "a band of a scene",
            "eo:bands": [{"name": f"b{k}", "common_name": "red", "center_wavelength": 0.665}],
            "gsd": 10,
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 399960, 0, -10, 4200000],
            "raster:bands": [{**band, "offset": -0.1}],
            "roles": ["data", "reflectance"],
        }
        for k in range(12)
    }
    return {"type": "Feature", "stac_version": "1.0.0", "id": f"S2B_{number:06}", "links": [], "assets": assets}


def make_collections(folder: Path, count: int) -> tuple[str, str]:
    saved, linked = folder / "items.json", folder / "collection.json"
    saved.write_text(json.dumps({"type": "FeatureCollection", "features": [item(k) for k in range(count)]}))
    links = [{"rel": "item", "href": f"./S2B_{k:06}.json"} for k in range(count)]
    linked.write_text(json.dumps({"type": "Collection", "id": "s2", "links": links}))
    for number in range(count):
        (folder / f"S2B_{number:06}.json").write_text(json.dumps(item(number)))
    return str(saved), str(linked)


def without_a_match(scenes: Any) -> None:
    try:
        choose_scenes(scenes, only=["scene_77777"])
    except JobError as error:
        print(error)


def main(scenes: int, items: int, folder: Path) -> None:
    pattern, (plain, full) = make_files(folder / "files", scenes), make_tables(folder, scenes)
    timed(f"glob of {scenes} files", lambda: find_scenes(pattern))
    timed(f"table of {scenes} rows", lambda: find_scenes(plain))
    found = timed(f"table of {scenes} rows with overrides", lambda: find_scenes(full))
    timed("write their list", lambda: write_scene_list(folder / "scenes.jsonl", found))
    timed("read their list", lambda: read_scene_list(folder / "scenes.jsonl"))
    timed("choose by a pattern, by priority", lambda: choose_scenes(found, only=["scene-*7"], limit=10))
    timed("name what is close to a wrong name", lambda: without_a_match(found))
    saved, linked = make_collections(folder, items)
    found = timed(f"item collection of {items}, {Path(saved).stat().st_size / 1e6:.0f} MB", lambda: find_scenes(saved))
    timed("open its first item", lambda: read_item(found[0].paths[0]))
    timed("open a thousand more", lambda: [read_item(scene.paths[0]) for scene in found[1:1001]])
    timed(f"collection of {items} linked items", lambda: find_scenes(linked))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        main(asked.scenes, asked.items, Path(place))
