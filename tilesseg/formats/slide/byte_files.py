"""Bytes of files from any thread: few files are open, and reads do not wait for one another."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

OPEN = 8
"""Files kept open, for sets of many."""


class ByteFiles:
    """Reads pieces of files; those used least are let go when there are too many, and all when this object goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def read(self, path: str, offset: int, count: int) -> bytes:
        """Exactly these bytes.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        file = self._file(path)
        data = os.pread(file.number, count, offset)
        while len(data) < count and (more := os.pread(file.number, count - len(data), offset + len(data))):
            data += more  # a single read gives 2 GiB at most
        if len(data) != count:
            raise OSError(f"the file ends {count - len(data)} bytes before the tile does")
        return data

    def _file(self, path: str) -> _File:
        with self._lock:
            file = self._files.pop(path, None) or _File(path)
            self._files[path] = file
            while len(self._files) > OPEN:
                self._files.popitem(last=False)
            return file


class _File:
    """An open file. It is closed when nobody holds it: not while a thread reads. A forked child may read it too."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
