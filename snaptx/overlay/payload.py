"""The door for payloads: a tar, packed or not, standard input, or a directory.

    raw bytes ──> hash, count ──> unpack ──> ratio, size ──> tar ──> limits ──> members

Everything streams; nothing is kept but hard links of a directory.  The digest
of a tar is that of its bytes as given, to the end of the input, so it is known
only after the last member: who uses the members has to be able to throw away
what they led to until ``finish`` has returned.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from typing import BinaryIO

from snaptx.errors import DigestError, SourceError, UsageError
from snaptx.model import Member, Payload, Readable
from snaptx.overlay import tree
from snaptx.overlay.compression import open_stream
from snaptx.overlay.limits import RATIO_FLOOR, Limits, exceeded
from snaptx.overlay.names import show
from snaptx.overlay.tar import read_tar

__all__ = ["Limits", "OpenPayload", "open_payload"]

STDIN = "-"
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY


class OpenPayload(ABC):
    """A payload that is being read; ``total`` is its raw size in bytes, None if nobody knows."""

    members: Iterator[Member]
    total: int | None = None

    def __init__(self, source: str, expected: str | None) -> None:
        self.source = source
        self._expected = expected
        self._exhausted = False

    def _until_end(self, members: Iterator[Member]) -> Iterator[Member]:
        yield from members
        self._exhausted = True

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """Return how many raw bytes have been read, for a progress bar."""

    @abstractmethod
    def _hexdigest(self) -> str: ...

    def finish(self) -> Payload:
        """Return what the payload was, once all members have been taken.

        Raises:
            DigestError: it is not the one that was announced.
        """
        if not self._exhausted:
            raise RuntimeError("the members have to be read before the payload is finished")
        found = self._hexdigest()
        if self._expected is not None and found != self._expected:
            raise DigestError(
                f"the payload has the SHA-256 {found}, expected was {self._expected}",
                hint="fetch it again, and compare the digest with the one its maker gives",
            )
        return Payload(self.source, found, self.bytes_read)


class _Raw:
    """The bytes of the payload as given, counted and hashed."""

    def __init__(self, stream: Readable, source: str) -> None:
        self._read = stream.read
        self._source = source
        self.count = 0
        self.state = sha256()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        try:
            part = self._read(size)
        except OSError as error:
            raise _unreadable(self._source, error) from None
        self.count += len(part)
        self.state.update(part)
        return part


class _Descriptor:
    """A file by its descriptor, without another buffer in between."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        return os.read(self._fd, size)


class _Unpacked:
    """The unpacked stream, held against the limits before anything is made of it."""

    def __init__(self, raw: _Raw, limits: Limits) -> None:
        self._raw, self._limits = raw, limits
        self._stream: Readable | None = None
        self._count = 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        if self._stream is None:
            self._stream = open_stream(self._raw)
        part = self._stream.read(size)
        self._count += len(part)
        limits = self._limits
        if self._count > limits.max_bytes:
            raise exceeded("bytes unpacked", limits.max_bytes, "max_bytes")
        if self._count > RATIO_FLOOR and self._count > limits.max_ratio * self._raw.count:
            raise exceeded("bytes unpacked for each packed one", limits.max_ratio, "max_ratio")
        return part


class _Tar(OpenPayload):
    def __init__(self, stream: Readable, source: str, limits: Limits, expected: str | None) -> None:
        super().__init__(source, expected)
        self._raw = _Raw(stream, source)
        self.members = self._until_end(read_tar(_Unpacked(self._raw, limits), limits))

    @property
    def bytes_read(self) -> int:
        return self._raw.count

    def _hexdigest(self) -> str:
        return self._raw.state.hexdigest()


class _Directory(OpenPayload):
    def __init__(self, fd: int, source: str, limits: Limits, expected: str | None) -> None:
        super().__init__(source, expected)
        self._digest = tree.Digest()
        self.members = self._until_end(tree.read_tree(fd, limits, self._digest))

    @property
    def bytes_read(self) -> int:
        return self._digest.bytes_read

    def _hexdigest(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def open_payload(
    source: str,
    *,
    limits: Limits | None = None,
    expected_sha256: str | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[OpenPayload]:
    """Open the directory or tar at ``source``, or standard input for ``-``.

    Iterate over ``members`` to the end, then call ``finish``.  The digest of a
    directory is that of its members (``tree.Digest``), of anything else
    that of its bytes.

    Raises (also while iterating):
        UsageError: ``expected_sha256`` is no digest, or standard input a terminal.
        SourceError: it can't be read, is damaged, or changes on the way.
        HostileError: it holds what no honest payload does.
        LimitError: it goes beyond ``limits``.
    """
    expected = _digest(expected_sha256)
    limits = limits or Limits()
    if source == STDIN:
        yield _Tar(_standard_input(stdin), source, limits, expected)
        return
    fd = _open(source)
    try:
        st = os.fstat(fd)
        if stat.S_ISDIR(st.st_mode):
            payload: OpenPayload = _Directory(fd, source, limits, expected)
        else:
            payload = _Tar(_Descriptor(fd), source, limits, expected)
            payload.total = st.st_size if stat.S_ISREG(st.st_mode) else None
        with closing(payload.members):  # type: ignore[type-var]
            yield payload
    finally:
        os.close(fd)


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise UsageError(f"no SHA-256: {show(text.encode()[:100])}", hint="give 64 hexadecimal digits")
    return text.lower()


def _standard_input(stdin: BinaryIO | None) -> BinaryIO:
    stream = stdin or (sys.stdin.buffer if sys.stdin else None)
    if stream is None or stream.isatty():
        raise UsageError("no payload comes in on standard input", hint="snaptx apply - < FILE")
    return stream


def _open(source: str) -> int:
    """Open ``source`` only after its type is known: opening a device can do something."""
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISFIFO(mode):
            return os.open(source, _OPEN)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    raise SourceError(
        f"the payload is neither a file nor a directory: {show(os.fsencode(source))}",
        hint="give a directory, a tar, or - for standard input",
    )


def _unreadable(source: str, error: OSError | ValueError) -> SourceError:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return SourceError(
        f"can't read the payload {show(os.fsencode(source))}: {reason}",
        hint="give a directory, a tar that root can read, or - for standard input",
    )
