"""Sum of a shard: the number of its bytes and their CRC-32C, as the record of its tile holds them.

CRC-32C finds every error of up to 32 neighbouring bits, and any other with a probability of 1 - 2⁻³² (RFC 3720,
section 12.1). It tells accidents of disks and of backups, not the work of somebody who wants to deceive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import google_crc32c

ABSENT = "absent"


class ShardSum(NamedTuple):
    """Number of bytes of a shard's file and their CRC-32C; 0 bytes: no file, because nothing needs to be stored."""

    size: int
    crc: int

    @classmethod
    def of(cls, data: bytes) -> ShardSum:
        return cls(len(data), google_crc32c.value(data) if data else 0)

    def compare_size(self, path: Path) -> None:
        """Compare the size of a file with the sum.

        Raises:
            ValueError: with both sizes.
        """
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size == self.size:
            return
        if not self.size:
            raise ValueError("the record of its tile knows of no such shard")
        wrong = f"it has {size:,} bytes" if size else "it is missing"
        raise ValueError(f"{wrong}, and the record of its tile says {self.size:,}")

    def compare(self, path: Path) -> None:
        """Compare the bytes of a file with the sum; a file is read once, as long as nothing is written to it.

        Raises:
            ValueError: with what differs.
        """
        self.compare_size(path)
        if self.size:
            status = path.stat()
            crc = _crc_of(path, status.st_ino, status.st_mtime_ns, status.st_size)
            if crc != self.crc:
                raise ValueError(
                    f"its bytes have the checksum {crc:08x}, and the record of its tile says {self.crc:08x}"
                )

    def __str__(self) -> str:
        return f"{self.size}:{self.crc:08x}" if self.size else ABSENT


Sums = Mapping[tuple[int, ...], ShardSum]
"""Sums of an array's shards, by their indices."""


def text_of(sums: Iterable[ShardSum]) -> str:
    """Sums as they stand in a record: `5120:0a1b2c3d absent …`."""
    return " ".join(map(str, sums))


def parse_sums(text: str) -> list[ShardSum]:
    """Sums of a text of `text_of`.

    Raises:
        ValueError: it is none.
    """
    return [_parsed(word) for word in text.split()]


def _parsed(word: str) -> ShardSum:
    size, _, crc = word.partition(":")
    return ShardSum(0, 0) if word == ABSENT else ShardSum(int(size), int(crc, 16))


@lru_cache(maxsize=1 << 14)
def _crc_of(path: Path, inode: int, modified: int, size: int) -> int:
    """CRC-32C of a file in this state."""
    file = os.open(path, os.O_RDONLY)
    try:
        return int(google_crc32c.value(os.pread(file, size, 0)))
    finally:
        os.close(file)
