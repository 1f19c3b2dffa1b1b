"""The digest of a file's content, as manifests keep it: of a large file without its zeros.

It is the SHA-256; of a file of ``LARGE`` bytes or more that of its blocks in
which there is something, each behind its number.  A terabyte of nothing must not
be hashed with every update, and is common: /var/log/lastlog has a place for
every number that a user may have.  The content alone decides, and not what of it
is a hole.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

LARGE = 1 << 30
"""Bytes; below, the zeros are hashed in a moment, and the digest is what sha256sum(1) prints."""

BLOCK = 1 << 16
_ZEROS = bytes(1 << 20)


class State(Protocol):
    """What has been read of a file so far."""

    def update(self, data: bytes, /) -> None:
        """Take in the bytes that come next."""

    def digest(self) -> bytes:
        """Return the digest, 32 bytes."""


def begin(size: int) -> State:
    """Return the state for a file of ``size`` bytes of which nothing is read yet."""
    return sha256() if size < LARGE else _Blocks()


def skip(state: State, count: int) -> None:
    """Take in ``count`` zeros, as of a hole."""
    if isinstance(state, _Blocks):
        state.skip(count)
    else:
        for done in range(0, count, len(_ZEROS)):
            state.update(_ZEROS[: count - done])


class _Blocks:
    """The state for a large file."""

    def __init__(self) -> None:
        self._state = sha256()
        self._number = 0
        self._begun = b""

    def update(self, data: bytes, /) -> None:
        if self._begun:
            data = self._begun + data
        whole = len(data) - len(data) % BLOCK
        for start in range(0, whole, BLOCK):
            self._take(data[start : start + BLOCK])
        self._begun = data[whole:]

    def skip(self, count: int) -> None:
        """Take in zeros, whole blocks of them at once."""
        missing = min(count, -len(self._begun) % BLOCK)
        self.update(_ZEROS[:missing])
        self._number += (count - missing) // BLOCK
        self.update(_ZEROS[: (count - missing) % BLOCK])

    def _take(self, block: bytes) -> None:
        if block != _ZEROS[: len(block)]:
            self._state.update(b"%d:" % self._number)
            self._state.update(block)
        self._number += 1

    def digest(self) -> bytes:
        if self._begun:  # nothing comes after the end
            self._take(self._begun)
            self._begun = b""
        return self._state.digest()
