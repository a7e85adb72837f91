"""A headless Chromium, driven by its own DevTools protocol: no driver program, no library but tornado."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_WITHIN, ANSWER_WITHIN = 60, 60
SEEN = """
(() => {
  const walk = (node) => node.nodeType === 3 ? node.data
    : ["STYLE", "SCRIPT"].includes(node.nodeName) ? ""
    : [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(walk).join(" ");
  return !document.body ? "" : walk(document.body).replace(/\\s+/g, " ");
})()
"""
"""All text of the page, that in shadow roots too: Bokeh puts everything there."""


class Page:
    """A tab of the browser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.errors: list[str] = []
        self._ask("Runtime.enable")
        self._ask("Page.enable")

    def open(self, url: str, *, width: int = 1440, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        return self.run(SEEN) or ""

    def wait_for(self, *words: str, seconds: float = 30) -> str:
        """The page's text, as soon as all words are in it."""
        until, text = time.monotonic() + seconds, ""
        while time.monotonic() < until:
            text = self.text
            if all(word in text for word in words):
                return text
            time.sleep(0.25)
        raise AssertionError(f"{[word for word in words if word not in text]} not in the page: {text[:3000]}")

    def move(self, x: float, y: float) -> None:
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **params: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(self._converse(method, params), ANSWER_WITHIN))

    async def _converse(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = await self._socket.read_message()
            assert message is not None, "the browser has gone"
            said = json.loads(message)
            if said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"].get("exception", {}).get("description")))
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a browser that keeps what it writes in `folder`, and ends with the context."""
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run", "about:blank"]
    process = subprocess.Popen([CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        socket = loop.run_until_complete(_connect(_address(folder, process)))
        try:
            yield Page(loop, socket)
        finally:
            socket.close()
            loop.run_until_complete(asyncio.sleep(0.1))
    finally:
        process.terminate()
        process.wait(20)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _connect(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=1 << 28)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Where DevTools listens for the first tab."""
    written, until = folder / "DevToolsActivePort", time.monotonic() + START_WITHIN
    while time.monotonic() < until and process.poll() is None:
        if written.exists() and len(lines := written.read_text().split()) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                pages = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError("chromium does not start")
