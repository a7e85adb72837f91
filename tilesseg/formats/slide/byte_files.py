"""Bytes of files from any thread: few handles, each opened in the process that reads through it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import BinaryIO

OPEN = 8
"""Handles kept, for sets of many files."""


class ByteFiles:
    """Reads pieces of files. Handles are closed when this object goes, and those used least when there are too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._pid = os.getpid()
        weakref.finalize(self, _close, self._files)

    def read(self, path: str, offset: int, count: int) -> bytes:
        """Exactly these bytes.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        with self._lock:
            file = self._open(path)
            file.seek(offset)
            data = file.read(count)
        if len(data) != count:
            raise OSError(f"the file ends {count - len(data)} bytes before the tile does")
        return data

    def _open(self, path: str) -> BinaryIO:
        if self._pid != os.getpid():  # a forked child must not share the parent's positions
            self._pid = os.getpid()
            _close(self._files)
        if path not in self._files:
            while len(self._files) >= OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[path] = open(path, "rb")  # noqa: SIM115 - kept open
        self._files.move_to_end(path)
        return self._files[path]


def _close(files: OrderedDict[str, BinaryIO]) -> None:
    while files:
        files.popitem()[1].close()
