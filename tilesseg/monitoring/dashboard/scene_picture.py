"""A small picture of a scene for the page, drawn in the driver: the scheduler may not see the files."""

from __future__ import annotations

import base64
import json
from pathlib import Path

SIZE, LARGEST = 640, 200_000
"""Long side of the first try, in pixels; size of a picture in bytes, at most."""


def picture_of(folder: Path) -> str | None:
    """Image of a planned scene as a data URL of at most 200 kB, or None where it cannot be drawn.

    Args:
        folder: folder of the scene in the run directory.
    """
    from tilesseg.formats.writing.preview import SLOW, small_picture
    from tilesseg.planning.plan import PLAN_FILE
    from tilesseg.planning.scene_plan import parse_scene_plan

    try:
        stored = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        source, size = parse_scene_plan(stored["scene"], where=folder).open(), SIZE
        if source.grid.window.area > SLOW and not source.levels:
            return None  # all of it would be read
        data = small_picture(source, size)
        while len(data) > LARGEST:
            size = size * 3 // 4
            data = small_picture(source, size)
    except Exception:
        # ^ of any kind: then there is no picture; the tiles will say what is wrong with the image
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
