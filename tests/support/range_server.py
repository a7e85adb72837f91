"""Serves ranges of the files of a folder, as object storage does: `python range_server.py FOLDER` prints its port.

The folder `private` wants a signature, `?sig=valid…`; the folder `plain` says nothing of the versions of its files.

A process of its own, because rasterio holds the interpreter while GDAL waits for an answer.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Ranges(SimpleHTTPRequestHandler):
    def do_HEAD(self) -> None:
        """Refuse requests for headers alone in `private`, as object storage does whose addresses are signed for GET."""
        if self.path.startswith("/private/"):
            self._refuse()
        else:
            super().do_HEAD()

    def do_GET(self) -> None:
        if self.path.startswith("/private/") and "sig=valid" not in self.path:
            return self._refuse()
        file = Path(self.translate_path(self.path))
        data = file.read_bytes() if file.is_file() else b""
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(data) - 1)) if asked else (0, len(data) - 1)
        part = data[first : last + 1]
        self.send_response(404 if not data else 206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        if data and not self.path.startswith("/plain/"):
            self.send_header("ETag", f'"{file.stat().st_mtime_ns:x}"')
            self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def _refuse(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=sys.argv[1])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
