"""How the files of a source are read: from a directory, or by HTTP (``http``).

Two calls are all there is to it, and both are bounded: a small document as a
whole, or a large file as a stream from some byte on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from snaptx.errors import FetchError, LimitError, SourceError


class BrokenOffError(Exception):
    """The connection failed in a way that may pass: it is worth another try."""


class NoSuchPartError(BrokenOffError):
    """The file of the source does not reach to where the part that was kept ends."""


class Stream(Protocol):
    """The bytes of a file from ``offset`` on, which is 0 where the source can't begin elsewhere."""

    offset: int

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        ...


class Transport(Protocol):
    """A source of files by name."""

    def document(self, name: str, limit: int) -> bytes:
        """Return a whole file.

        Raises:
            LimitError: it has more than ``limit`` bytes.
            FetchError: it can't be had.
            BrokenOffError: not this time.
        """
        ...

    def stream(self, name: str, offset: int, size: int) -> AbstractContextManager[Stream]:
        """Open a file of ``size`` bytes at ``offset``.

        Raises:
            DigestError: it has another size.
            FetchError: it can't be had.
            BrokenOffError: not this time; also while it is read.
        """
        ...


def too_long(name: str, limit: int) -> LimitError:
    """Return the error for a document that does not end."""
    return LimitError(f"{name} has more than {limit} bytes", hint="its maker has to shorten it")


class DirectoryTransport:
    """Files in a directory of this machine: a share, a stick, something that another tool fills."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def document(self, name: str, limit: int) -> bytes:
        """Return a whole file."""
        with self._open(name, 0) as file:
            data = b""
            while part := file.read(limit + 1 - len(data)):
                data += part
                if len(data) > limit:
                    raise too_long(name, limit)
            return data

    @contextmanager
    def stream(self, name: str, offset: int, size: int) -> Iterator[Stream]:
        """Open a file at ``offset``; its size is found when it has been read."""
        with self._open(name, offset) as file:
            yield file

    @contextmanager
    def _open(self, name: str, offset: int) -> Iterator[_File]:
        file = _File(self._directory / name, offset)
        try:
            yield file
        finally:
            file.close()


class _File:
    """A regular file; a link or a device in its place is none."""

    FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

    def __init__(self, path: Path, offset: int) -> None:
        self.offset = offset
        self._path = path
        with _readable(path):
            self._fd = os.open(path, self.FLAGS)
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.lseek(self._fd, offset, os.SEEK_SET)
                return
        self.close()
        raise SourceError(f"{path} is no file", hint="its maker has to mend it")

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        with _readable(self._path):
            return os.read(self._fd, size)

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "is the source complete, and mounted?"
        raise FetchError(f"can't read {path}: {error.strerror}", hint=hint) from error
