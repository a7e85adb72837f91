"""Retrying: troubles that pass by themselves are tried again a few times; everything else is reported at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

TRANSIENT = (ConnectionError, TimeoutError, InterruptedError)
TRANSIENT_WORDS = ("curl error", "http error code: 5", "timed out", "connection reset", "temporarily unavailable")
ATTEMPTS, BACK_OFF = 3, 1.0

T = TypeVar("T")


def retried(attempt: Callable[[int], T]) -> T:
    """Result of an attempt, which gets its number; repeated where a passing trouble stopped it."""
    for number in range(1, ATTEMPTS):
        try:
            return attempt(number)
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(BACK_OFF * 2**number)
    return attempt(ATTEMPTS)


def is_transient(error: BaseException | None) -> bool:
    """Whether trying again may help: a dropped connection or a busy server, anywhere in the chain of causes."""
    while error is not None:
        if isinstance(error, TRANSIENT) or any(word in str(error).lower() for word in TRANSIENT_WORDS):
            return True
        error = error.__cause__
    return False
