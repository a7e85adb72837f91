"""The page as a browser shows it: the tab, the scenes, the map under the pointer, and that it moves by itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Page, browser
from pretended import done, failed, planned, refused, tiles_of

from tilesseg.events import RunFinished, RunStarted, SceneFinished
from tilesseg.formats.writing.preview import encode
from tilesseg.monitoring.dashboard.publisher import Publisher, open_publisher

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    # Bokeh leaves what it wants to send unsent where a browser leaves the page meanwhile.
    pytest.mark.filterwarnings("ignore:coroutine 'WSHandler.send_message' was never awaited:RuntimeWarning"),
]


@dataclass
class Watched:
    """A run that is told event by event, and a browser that looks at it."""

    publisher: Publisher
    page: Page


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    from distributed import Client, LocalCluster

    here = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **here)
    with cluster, Client(cluster, set_as_default=False) as client:
        publisher = open_publisher(client, run=tmp_path_factory.mktemp("run"), quick_look=False)
        assert isinstance(publisher, Publisher), publisher
        with browser(tmp_path_factory.mktemp("browser")) as page:
            yield Watched(publisher, page)
        publisher.close()


def rectangle(page: Page, script: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of an element on the screen."""
    found: Any = page.run(
        f"(() => {{ const r = ({script}).getBoundingClientRect(); return [r.x, r.y, r.width, r.height] }})()"
    )
    return tuple(found)


FIND = """
const find = (node, test) => {
  if (node.nodeType === 1 && test(node)) return node
  for (const child of [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes]) {
    const found = find(child, test)
    if (found) return found
  }
}
"""


def found_by(root: str, test: str) -> str:
    """A script for the first element below `root` that passes a test of `n`."""
    return f"(() => {{ {FIND}; return find({root}, n => {test}) }})()"


def test_the_page_tells_a_run_from_its_first_event_to_its_last(watched: Watched, tmp_path: Path) -> None:
    tell, page = watched.publisher, watched.page
    page.open(tell.link)
    page.wait_for("no run has begun")

    first, second = planned("harbour", 4, 6), planned("marsh <b>", 3, 3)
    tell(RunStarted(4, job="autumn & floods", directory="run"))
    tell(first)
    tell(refused("broken"))
    for tile in tiles_of(first)[:10]:
        tell(done("harbour", tile))
    page.wait_for("10 / 24", "10 / 24 tiles", "autumn & floods", "running", "harbour", "Mpx/s")
    page.wait_for("scene refused", "say which with input.bands")  # each part of the page comes in its own time

    tell(second)
    tell(failed("harbour", "r001-c004", "unlucky <pixel>"))
    page.wait_for("11 / 24", "0 / 9", "unlucky <pixel>", "failed 1", "marsh <b>")

    for tile in tiles_of(first)[11:]:
        tell(done("harbour", tile, attempts=2))
    tell(SceneFinished("harbour", "failed tiles"))
    page.wait_for("marsh <b> running", "24 / 24")  # it goes on to what runs, by itself

    for tile in tiles_of(second):
        tell(done("marsh <b>", tile, patches=0))
    tell(SceneFinished("marsh <b>", "complete"))
    tell(RunFinished(32, 1, 1, 3.0))
    page.wait_for("finished with failures", "9 / 9", "skipped 9", "2 failures", "node1:17")
    assert page.errors == []


def test_the_navigation_of_every_page_has_the_tab(watched: Watched) -> None:
    page = watched.page
    page.open(watched.publisher.link.replace("/tilesseg", "/status"))
    page.wait_for("Task Stream", "Tilesseg")
    assert page.run("document.querySelector('.navbar a[href=\"tilesseg\"]').innerText") == "Tilesseg"
    page.run("document.querySelector('.navbar a[href=\"tilesseg\"]').click()")
    page.wait_for("work factor", "harbour")


def test_a_scene_is_chosen_by_a_click_and_its_tiles_tell_of_themselves_under_the_pointer(watched: Watched) -> None:
    page = watched.page
    page.open(watched.publisher.link + "?scene=marsh%20%3Cb%3E")
    page.wait_for("marsh <b> complete")
    page.open(watched.publisher.link + "?scene=harbour")
    page.wait_for("harbour failed tiles")
    page.open(watched.publisher.link)
    page.wait_for("harbour", "marsh <b>")
    line = found_by("document.body", "n.className === 'slick-cell l0 r0' && n.textContent.includes('harbour')")
    x, y, width, height = rectangle(page, line)
    page.click(x + width / 2, y + height / 2)
    page.wait_for("harbour failed tiles", "retried 13", "failed 1")

    plot = found_by("document.querySelector('#ts-map .grow')", "n.nodeName === 'CANVAS'")
    x, y, width, height = rectangle(page, plot)
    seen = ""
    for down in np.linspace(0.15, 0.85, 7):
        for right in np.linspace(0.1, 0.9, 13):
            page.move(x + right * width, y + down * height)
            seen += page.text
    assert "r001-c004 · failed" in seen
    assert "9 patches" in seen
    assert page.errors == []


def test_the_picture_of_a_scene_is_under_its_tiles(watched: Watched, tmp_path: Path) -> None:
    tell, page = watched.publisher, watched.page
    picture = np.zeros((3, 40, 60), np.uint8)
    picture[0, :, :30], picture[2, :, 30:] = 255, 255
    url = "data:image/jpeg;base64," + base64.b64encode(encode(picture, "JPEG", QUALITY=90)).decode()
    tell(RunStarted(1, job="colours", directory="run"))
    tell(planned("bright", 4, 6))
    tell._send_later("picture", ("bright", url))
    page.open(tell.link)
    page.wait_for("bright running", "waiting 24")
    page.run("new Promise(done => setTimeout(done, 2500))")
    page.screenshot(tmp_path / "seen.png")
    left, right = colours_at(tmp_path / "seen.png", page)
    assert left[0] > left[2] + 60, (left, right)
    assert right[2] > right[0] + 60, (left, right)


def colours_at(path: Path, page: Page) -> tuple[Any, Any]:
    """What the screen shows left and right of the middle of the map."""
    import imagecodecs

    plot = found_by("document.querySelector('#ts-map .grow')", "n.nodeName === 'CANVAS'")
    x, y, width, height = rectangle(page, plot)
    seen = imagecodecs.png_decode(path.read_bytes())[..., :3].astype(int)
    row, middle = int(y + height * 0.6), x + width / 2
    return (seen[row, int(middle - width * 0.15)], seen[row, int(middle + width * 0.15)])
