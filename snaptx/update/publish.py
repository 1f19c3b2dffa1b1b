"""Make the index of a directory of overlays, as machines that follow it want it.

Overlays that are new get the next numbers, in the order of their names.  What
an index has named once stays as it is: machines that have it do not take it
again.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from snaptx import durable
from snaptx.errors import FetchError, SourceError, UsageError, storage_error
from snaptx.system import DIRECTORY, descriptor
from snaptx.update import index, signature
from snaptx.update.index import Entry, Index
from snaptx.update.transport import DirectoryTransport

DAY = 86400.0
"""Seconds."""

MOST_DAYS = 36_500
"""How long an index may be true: a hundred years, whose end every date can name."""

_OVERLAY = re.compile(r".*\.(tar|tgz|tbz2|txz|tzst|tar\.(gz|bz2|xz|zst))")
PUBLIC = 0o644
PIECE = 1 << 20


def publish(
    directory: Path, *, name: str | None, message: str, days: int, now: float, key: bytes | None
) -> tuple[Index, tuple[Entry, ...]]:
    """Write ``index.json`` in ``directory``, signed if there is a ``key``; return it and what is new in it.

    ``name`` is needed for a first index; ``message`` is for what is new, ``days`` is how long it
    is true, ``now`` in seconds since the epoch.  Without a key the old signature is removed.
    Another who publishes there is waited for.

    Raises:
        UsageError: the key is none, or the name, the message or ``days`` can't be one.
        SourceError: an overlay was changed, or is gone, after it was published.
    """
    if not 1 <= days <= MOST_DAYS:
        raise UsageError(f"an index can't be true for {days} days", hint=f"--days takes 1 to {MOST_DAYS}")
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory", hint="name the directory of the overlays")
    with _alone(directory):
        return _publish(directory, name, message, now + days * DAY, key)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait for another who publishes there: two would give one version to two indexes.

    Where the filesystem has no such locks, as NFS for a directory, nobody is waited for.
    """
    with descriptor(directory, DIRECTORY) as fd:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _publish(
    directory: Path, name: str | None, message: str, expires: float, key: bytes | None
) -> tuple[Index, tuple[Entry, ...]]:
    before = _before(directory)
    if before and name not in (None, before.name):
        raise UsageError(f"the index there is called '{before.name}'", hint="leave --name out")
    fresh = tuple(_fresh(directory, before.entries if before else (), message))
    if not before and not fresh:
        hint = "an overlay is a tar, plain or packed, whose name says so"
        raise UsageError(f"there is no overlay in {directory}", hint=hint)
    entries = (*(before.entries if before else ()), *fresh)
    made = Index(
        before.name if before else name or directory.resolve().name,
        before.version + 1 if before else 1,
        expires,
        entries,
    )
    data = _dumped(made)
    _write(directory, data, signature.sign(data, key) if key else None)
    return replace(made, digest=sha256(data).hexdigest()), fresh


def _dumped(made: Index) -> bytes:
    try:
        data = index.dump(made)
        index.parse(data)
    except UnicodeEncodeError as error:
        raise UsageError(
            "that would be no index: it is not UTF-8", hint="see --name and --message"
        ) from error
    except SourceError as error:
        raise UsageError(f"that would be no index: {error.message}", hint="try another name") from error
    return data


def _before(directory: Path) -> Index | None:
    if not (directory / index.NAME).exists():
        return None
    return index.parse(DirectoryTransport(directory).document(index.NAME, index.MAX_BYTES))


def _fresh(directory: Path, known: tuple[Entry, ...], message: str) -> Iterator[Entry]:
    """Yield the overlays that are new, after the others were compared with what is known of them."""
    for entry in known:
        if _measure(directory, entry.file) != (entry.size, entry.sha256):
            hint = "put it back as it was, and publish what is new under another name"
            raise SourceError(f"{entry.file} is not what was published", hint=hint)
    number = known[-1].number if known else 0
    names = {entry.file for entry in known}
    for path in sorted(directory.iterdir()):
        if path.name not in names and _OVERLAY.fullmatch(path.name):
            number += 1
            yield Entry(number, path.name, *_measure(directory, path.name), message)


def _measure(directory: Path, name: str) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file."""
    digest, size = sha256(), 0
    try:
        with DirectoryTransport(directory).stream(name, 0, 0) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                size += len(piece)
    except FetchError as error:
        raise SourceError(error.message, hint="an overlay that was published has to stay") from error
    return size, digest.hexdigest()


def _write(directory: Path, data: bytes, signed: bytes | None) -> None:
    """Put both in place; who reads between the two finds a signature that does not fit, and comes again."""
    try:
        if signed:
            durable.replace(directory / index.SIGNATURE, signed, PUBLIC, exact=True)
        else:
            (directory / index.SIGNATURE).unlink(missing_ok=True)
        durable.replace(directory / index.NAME, data, PUBLIC, exact=True)
    except OSError as error:
        raise storage_error(error, f"cannot write the index in {directory}") from error
