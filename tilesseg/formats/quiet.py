"""One lock for all that hide a library's warnings: `warnings.catch_warnings` is not safe between threads."""

from __future__ import annotations

import threading

QUIET = threading.RLock()
"""Held while warnings are caught, and while a library catches its own."""
