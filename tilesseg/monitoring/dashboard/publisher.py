"""Driver → scheduler: a listener that tells what happens in batches, from threads of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.events import Event, ScenePlanned
from tilesseg.store.ledger import Ledger
from tilesseg.version import __version__

if TYPE_CHECKING:
    from distributed import Client

    from tilesseg.monitoring.dashboard.boards import Message


INTERVAL, BATCH, HERE = 0.5, 500, 5.0
"""Seconds between two batches; messages after which one goes at once; seconds after which an empty one says: here."""
LARGEST = 20_000
"""Messages that may wait for a scheduler that does not answer; then we give up, and the run goes on."""
PATIENCE = 5.0
"""Seconds that the last batch has."""
PICTURES = 100
"""Scenes of a run that get a picture: the first ones."""


def connect(client: Client, *, run: Path, quick_look: bool) -> Publisher | str:
    """See `tilesseg.monitoring.dashboard.open_publisher`."""
    from tilesseg.monitoring.dashboard.plugin import Dashboard, answer

    try:
        version = client.run_on_scheduler(answer)["version"]
        if version != __version__:
            return f"no page /tilesseg: the scheduler has tilesseg {version} and this is {__version__}"
        client.register_plugin(Dashboard())
        problems = client.run_on_scheduler(answer)["problems"] or {}
    except ModuleNotFoundError as error:
        return f"no page /tilesseg: the scheduler has no {error.name or 'tilesseg'}; install tilesseg there"
    except Exception as error:
        # ^ of any kind: a page is not worth a run
        return f"no page /tilesseg: the scheduler does not take it ({type(error).__name__}: {error})"
    if "page" in problems and "json" in problems:
        return f"no page /tilesseg: the scheduler does not take it ({problems['page']})"
    link = (client.dashboard_link or "").removesuffix("/status")
    return Publisher(client, run=run, quick_look=quick_look, problems=problems, link=link)


class Publisher:
    """Takes every event of a run and sends them on, some at a time. Close it at the end."""

    def __init__(
        self, client: Client, *, run: Path, quick_look: bool = True, problems: dict[str, str] | None = None, link: str
    ) -> None:
        self.trouble: str | None = None
        """Why nothing is sent any more, or None."""
        problems = problems or {}
        self.link = link + ("/tilesseg/status.json" if "page" in problems else "/tilesseg")
        """Where to look."""
        self.note = None
        """What to say of it once, or None."""
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
        self._tell("event", event)
        if isinstance(event, ScenePlanned) and event.done:
            self._tell("found", (event.scene, None))
        if isinstance(event, ScenePlanned) and self._left:
            self._left -= 1
            self._planned.append(event.scene)
            self._drawing.set()

    def close(self) -> None:
        """Send the rest, within a few seconds."""
        if self._closing:
            return
        self._tell("left", None)
        self._closing = True
        for sleeper in (self._wake, self._drawing, self._leaving):
            sleeper.set()
        self._sender.join(PATIENCE)
        if self._painter.is_alive():
            self._painter.join(PATIENCE)

    def _tell(self, kind: str, what: Any) -> None:
        self._waiting.append((kind, time.time(), what))
        if len(self._waiting) >= BATCH:
            self._wake.set()
        if len(self._waiting) > LARGEST:
            self.trouble = f"the scheduler does not take what is told it: {LARGEST} events wait"
            self._waiting.clear()

    def _send_all(self) -> None:
        """The sending thread."""
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
            batch = [self._with_tiles(message) if message[0] == "found" else message for message in batch]
            deliver(self._client, str(self._run), batch or [("here", time.time(), None)])
        except Exception as error:
            # ^ of any kind: a page is not worth a run
            self.trouble = f"the page /tilesseg is told no more ({type(error).__name__}: {error})"
            self._waiting.clear()

    def _with_tiles(self, message: Message) -> Message:
        """Look up which tiles of a scene an earlier run has stored."""
        kind, when, (scene, _) = message
        try:
            return kind, when, (scene, Ledger(self._run / "scenes" / scene).done_names())
        except OSError:
            return kind, when, (scene, [])

    def _paint_all(self) -> None:
        """The painting thread: one scene after the other, never more than two a second."""
        from tilesseg.monitoring.dashboard.scene_picture import picture_of

        while not self.trouble and not self._closing:
            self._drawing.wait()
            self._drawing.clear()
            while self._planned and not self._closing:
                scene = self._planned.popleft()
                url = picture_of(self._run / "scenes" / scene)
                if url is not None:
                    self._tell("picture", (scene, url))
                self._leaving.wait(INTERVAL)
