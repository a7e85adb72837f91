"""Driver → scheduler: a listener that reports events in batches, from threads of its own."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import reason_of
from tilesseg.events import Event, ScenePlanned
from tilesseg.store.ledger import Ledger
from tilesseg.version import __version__

if TYPE_CHECKING:
    from distributed import Client

    from tilesseg.monitoring.dashboard.boards import Message


INTERVAL, BATCH, HERE = 0.5, 500, 5.0
"""Seconds between two batches; number of messages that are sent at once; seconds until the driver says it is there."""
LARGEST = 20_000
"""Number of messages that may wait for a scheduler that does not answer; then the page is given up, not the run."""
PATIENCE = 5.0
"""Seconds for the last batch."""
PICTURES = 100
"""Number of scenes of a run that get a picture: the first ones."""
PICTURE_SIDE, PICTURE_BYTES = 640, 200_000
"""Long side of the first try, in pixels; size of a picture in bytes, at most."""


def open_publisher(client: Client, *, run: Path, quick_look: bool = True) -> Publisher | str:
    """Listener that shows a run in the dashboard of its scheduler. It never fails a run, and never holds it up.

    Args:
        client: connected to the scheduler.
        run: the run directory.
        quick_look: whether to draw a small picture of each scene; the driver reads it.

    Returns:
        The listener, to be closed at the end; or the one sentence why there is no page.
    """
    from tilesseg.monitoring.dashboard.plugin import Dashboard, answer

    try:
        version = client.run_on_scheduler(answer)["version"]
        if version != __version__:
            versions = f"the scheduler has tilesseg {version} and the driver {__version__}"
            return f"no page /tilesseg: {versions}; install {__version__} there"
        client.register_plugin(Dashboard())
        problems = client.run_on_scheduler(answer)["problems"] or {}
    except ModuleNotFoundError as error:
        return f"no page /tilesseg: the scheduler has no {error.name or 'tilesseg'}; install tilesseg there"
    except Exception as error:
        # ^ of any kind: a page is not worth a run
        return f"no page /tilesseg: the scheduler refuses it ({reason_of(error)}); see its log"
    if "page" in problems and "json" in problems:
        return f"no page /tilesseg: the scheduler refuses it ({problems['page']}); see its log"
    link = (client.dashboard_link or "").removesuffix("/status")
    return Publisher(client, run=run, quick_look=quick_look, problems=problems, link=link)


class Publisher:
    """Listener that sends every event of a run on, some at a time. Close it at the end."""

    def __init__(
        self, client: Client, *, run: Path, quick_look: bool = True, problems: dict[str, str] | None = None, link: str
    ) -> None:
        self.trouble: str | None = None
        """Reason why nothing is sent any more, or None."""
        problems = problems or {}
        self.link = link + ("/tilesseg/status.json" if "page" in problems else "/tilesseg")
        """Address of the page, or of its JSON."""
        self.note = None
        """Sentence about the page that the driver prints once, or None."""
        if "page" in problems:
            self.note = f"no page /tilesseg, but its figures at {self.link}: {problems['page']}"
        self._client, self._run = client, Path(run).absolute()
        self._waiting: deque[Message] = deque()
        self._wake, self._closing = threading.Event(), False
        self._planned: deque[str] = deque(maxlen=PICTURES)
        self._drawing, self._leaving = threading.Event(), threading.Event()
        self._left = PICTURES if quick_look and "page" not in problems else 0
        self._sender = threading.Thread(target=self._send_all, name="tilesseg-publisher", daemon=True)
        self._painter = threading.Thread(target=self._paint_all, name="tilesseg-pictures", daemon=True)
        self._sender.start()
        if self._left:
            self._painter.start()

    def __call__(self, event: Event) -> None:
        """Take an event; returns at once."""
        if self.trouble or self._closing:
            return
        self._send_later("event", event)
        if isinstance(event, ScenePlanned) and event.done:
            self._send_later("done before", (event.scene, None))
        if isinstance(event, ScenePlanned) and self._left:
            self._left -= 1
            self._planned.append(event.scene)
            self._drawing.set()

    def close(self) -> None:
        """Send the rest, within a few seconds."""
        if self._closing:
            return
        self._send_later("left", None)
        self._closing = True
        for sleeper in (self._wake, self._drawing, self._leaving):
            sleeper.set()
        self._sender.join(PATIENCE)
        if self._painter.is_alive():
            self._painter.join(PATIENCE)

    def _send_later(self, kind: str, content: Any) -> None:
        self._waiting.append((kind, time.time(), content))
        if len(self._waiting) >= BATCH:
            self._wake.set()
        if len(self._waiting) > LARGEST:
            self.trouble = f"the page /tilesseg has stopped: {LARGEST} events wait for a scheduler that does not answer"
            self._waiting.clear()

    def _send_all(self) -> None:
        """Thread that sends the batches."""
        sent = time.monotonic()
        while not self.trouble:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            last = self._closing
            if self._waiting or time.monotonic() - sent > HERE:
                self._send()
                sent = time.monotonic()
            if last and not self._waiting:
                return

    def _send(self) -> None:
        from tilesseg.monitoring.dashboard.plugin import deliver

        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), 2 * BATCH))]
        try:
            batch = [self._with_tiles(message) if message[0] == "done before" else message for message in batch]
            deliver(self._client, str(self._run), batch or [("here", time.time(), None)])
        except Exception as error:
            # ^ of any kind: a page is not worth a run
            self.trouble = f"the page /tilesseg has stopped: {reason_of(error)}"
            self._waiting.clear()

    def _with_tiles(self, message: Message) -> Message:
        """Message with the names of the tiles that an earlier run has stored of its scene."""
        kind, when, (scene, _) = message
        try:
            return kind, when, (scene, Ledger(self._run / "scenes" / scene).done_names())
        except OSError:
            return kind, when, (scene, [])

    def _paint_all(self) -> None:
        """Thread that draws the pictures of scenes, never more than two a second."""
        while not self.trouble and not self._closing:
            self._drawing.wait()
            self._drawing.clear()
            while self._planned and not self._closing:
                scene = self._planned.popleft()
                url = picture_of(self._run / "scenes" / scene)
                if url is not None:
                    self._send_later("picture", (scene, url))
                self._leaving.wait(INTERVAL)


def picture_of(folder: Path) -> str | None:
    """Image of a planned scene as a data URL of at most 200 kB, or None where it cannot be drawn.

    Drawn in the driver: the scheduler may not see the files.

    Args:
        folder: folder of the scene in the run directory.
    """
    from tilesseg.formats.writing.preview import SLOW, small_picture
    from tilesseg.planning.plan import PLAN_FILE
    from tilesseg.planning.scene_plan import parse_scene_plan

    try:
        stored = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        source, size = parse_scene_plan(stored["scene"], where=folder).open(), PICTURE_SIDE
        if source.grid.window.area > SLOW and not source.levels:
            return None  # all of it would be read
        data = small_picture(source, size)
        while len(data) > PICTURE_BYTES:
            size = size * 3 // 4
            data = small_picture(source, size)
    except Exception:
        # ^ of any kind: then there is no picture; the tiles will say what is wrong with the image
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
