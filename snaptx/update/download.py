"""Bring the files of an update into the cache: whole, or in parts that later calls complete.

A file is called by its SHA-256 once that was found to be right, and
``SHA256.part`` before.  It is read in pieces, so memory does not grow with it.
Not more is kept than one update needs.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from snaptx import log, system
from snaptx.errors import DigestError, FetchError, LimitError, NoSpaceError, storage_error
from snaptx.update.index import Entry
from snaptx.update.source import Progress
from snaptx.update.timing import FIRST_PAUSE, backoff
from snaptx.update.transport import BrokenOffError, NoSuchPartError, Transport

T = TypeVar("T")

TRIES = 4
LONGEST_PAUSE = 60.0
"""Seconds."""

PIECE = 1 << 18
PART = ".part"
ROOM = 64 << 20
"""Bytes of the filesystem that a download leaves free."""


def patiently(call: Callable[[], T], what: str) -> T:
    """Return what ``call`` returns, trying again what breaks off.

    Raises:
        FetchError: it broke off each time.
    """
    failures = 0
    while True:
        try:
            return call()
        except BrokenOffError as error:
            failures += 1
            log.info("broke off", what=what, reason=str(error), tries=f"{failures} of {TRIES}")
            if failures == TRIES:
                hint = "is the network there? what has arrived is kept, the next run goes on from it"
                raise FetchError(f"{what} can't be had: {error}", hint=hint) from error
        time.sleep(backoff(failures, random.random(), first=FIRST_PAUSE, most=LONGEST_PAUSE))


def clean(cache: Path, entries: Sequence[Entry]) -> None:
    """Remove from the cache what does not belong to ``entries``, and what is no file."""
    wanted = {name for entry in entries for name in (entry.sha256, entry.sha256 + PART)}
    for path in cache.iterdir():
        if path.name not in wanted or not stat.S_ISREG(path.lstat().st_mode):
            remove(path)


def remove(path: Path) -> None:
    """Remove what lies in a cache, whatever it is: a directory with all in it, of a link the link."""
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise storage_error(error, f"cannot remove {path.name} from the cache") from error


def require_room(cache: Path, entries: Sequence[Entry], limit: int) -> None:
    """Refuse what is too much for the configuration or the filesystem.

    Raises:
        LimitError: all entries together have more than ``limit`` bytes.
        NoSpaceError: there is no room for what is missing.
    """
    whole = sum(entry.size for entry in entries)
    if whole > limit:
        raise LimitError(f"the update has {whole} bytes", hint=f"[update] max_download allows {limit}")
    missing = whole - sum(path.stat().st_size for path in cache.iterdir())
    space = os.statvfs(cache)
    if missing > 0 and missing + ROOM > space.f_bavail * space.f_frsize:
        raise NoSpaceError(f"no room to download {missing} bytes", hint="'snaptx prune' removes generations")


def fetch(transport: Transport, entry: Entry, cache: Path, progress: Progress | None = None) -> Path:
    """Return where in the cache an entry's file is, after bringing it there if it is not.

    Raises:
        FetchError: the source can't be reached, or breaks off each time; the part that came is kept.
        DigestError: what came is not what was announced; nothing of it is kept.
        NoSpaceError: the disk is full; nothing of it is kept.
    """
    whole = cache / entry.sha256
    if whole.is_file() and _digest(whole) == entry.sha256:
        return whole
    part = whole.with_name(whole.name + PART)
    try:
        patiently(lambda: _attempt(transport, entry, part, progress), entry.file)
        part.replace(whole)
    except DigestError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(error, f"can't keep {entry.file}") from error
    return whole


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _attempt(transport: Transport, entry: Entry, part: Path, progress: Progress | None) -> None:
    try:
        _once(transport, entry, part, progress)
    except NoSuchPartError:
        part.unlink()  # of another file, or nobody can tell: only from the beginning is it had
        raise


def _once(transport: Transport, entry: Entry, part: Path, progress: Progress | None) -> None:
    """Go on with a part, to its end."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with system.descriptor(part, flags) as fd:
        begun = _sound(fd, entry)
        if begun < entry.size:
            with transport.stream(entry.file, begun, entry.size) as stream:
                os.lseek(fd, stream.offset, os.SEEK_SET)
                _copy(stream.read, fd, entry, stream.offset, progress)
        os.fsync(fd)
    if _digest(part) == entry.sha256:
        return
    part.unlink()
    if begun:  # it may have been begun with another file of this name
        raise BrokenOffError(f"{entry.file} is begun anew: the part of it that was kept does not fit")
    hint = "its maker has to publish it anew; or somebody has changed it on the way"
    raise DigestError(f"{entry.file} has another SHA-256 than the index says", hint=hint)


def _sound(fd: int, entry: Entry) -> int:
    """Return how many bytes of a part can be used."""
    size = os.fstat(fd).st_size
    if size > entry.size:
        os.ftruncate(fd, 0)
        return 0
    return size


def _copy(
    read: Callable[[int], bytes], fd: int, entry: Entry, offset: int, progress: Progress | None
) -> None:
    """Copy the rest of a file.

    Raises:
        DigestError: there is more of it than was announced.
        BrokenOffError: there is less.
    """
    count = offset
    while piece := read(min(PIECE, entry.size + 1 - count)):
        count += len(piece)
        if count > entry.size:
            hint = "its maker has to publish it anew"
            raise DigestError(f"{entry.file} has more than the {entry.size} bytes announced", hint=hint)
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
        if progress:
            progress(0, count, entry.size)
    if count < entry.size:
        raise BrokenOffError(f"{entry.file} broke off after {count} of {entry.size} bytes")
