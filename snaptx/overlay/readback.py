"""Read everything back that was written, and compare it with what was asked for.

::

    rows that were written ──> lot ──> files:        open, hash, compare   in a second process
                                  └──> all the rest: open, hash, compare   here

This comes last, when no file is written any more.  What is left to be done by
then, the manifest and the times of directories, is done here while the second
process reads already.  A third one that reads beside the writer costs more than
it hides: each file has to be looked at once more at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

from snaptx import apart
from snaptx.errors import HostileError, NotFoundError, VerifyError
from snaptx.model import Kind, Row
from snaptx.overlay.content import Meter, Progress
from snaptx.overlay.failure import shown
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.record import Action, Record
from snaptx.overlay.resolve import Beneath
from snaptx.overlay.scan import file_row, index_row

_Made = tuple[Row, Action]

_LOT = 16_384
"""Rows that are read back at a time: 10 to 20 MiB of them are in memory, and each time takes a fork."""

_WORTH_A_FORK = 256
"""Rows that take longer to read back than it takes to begin a process."""

_PER_PATH = 30_000
"""What opening a file costs beside reading it, in bytes read and hashed in that time."""

_SETTLING = 9_000
"""What it costs to put a path into the manifest, in the same bytes."""


@contextmanager
def reading_back(root_fd: int, manifest: Manifest, progress: Progress | None = None) -> Iterator[None]:
    """Make sure that everything this transaction wrote is in the tree as it was asked for.

    Content, size, kind, mode, owner, attributes and mtime; then drop the
    transaction's record from the manifest.  Begin it when all files are written,
    call ``Writer.finish`` in the with block: where there is much to be read, a
    second process begins meanwhile.  ``progress`` gets the rows so far, at most
    every 100 ms.  Raises VerifyError at the end of the block.
    """
    record, meter = Record(manifest), Meter(progress)
    made = record.made()
    here, there = _lot(made, _SETTLING)
    with _beside(root_fd, there):
        yield
        _verify_all(root_fd, here, meter)
    while here or there:
        meter.tick(len(there))
        here, there = [], []  # only one lot is in memory at a time
        here, there = _lot(made)
        with _beside(root_fd, there):
            _verify_all(root_fd, here, meter)
    record.drop()
    manifest.commit()


def _lot(made: Iterator[_Made], more: int = 0) -> tuple[list[_Made], list[_Made]]:
    """Return the next rows to read back, shared out; ``more`` is what each of them costs besides."""
    lot = list(islice(made, _LOT))
    return shared_out(lot, more * len(lot))


def shared_out(lot: Sequence[_Made], more: int = 0) -> tuple[list[_Made], list[_Made]]:
    """Cut a list in two: the second half holds no directory, and both take about as long.

    ``more`` is what else the first one has to do, counted as `_PER_PATH` is.
    Each is in order, for neighbours share directories.
    """
    if len(lot) <= _WORTH_A_FORK:
        return list(lot), []
    there: list[_Made] = []
    here: list[_Made] = []
    left = (more + sum(_PER_PATH + row.size for row, _ in lot)) / 2
    for made in lot:
        row = made[0]
        if left > 0 and row.kind is not Kind.DIRECTORY:
            left -= _PER_PATH + row.size
            there.append(made)
        else:
            here.append(made)
    return here, there


@contextmanager
def _beside(root_fd: int, lot: Sequence[_Made]) -> Iterator[None]:
    """Verify a list in a second process, which has to be done at the end of the with block."""
    if not lot:
        yield
        return
    with apart.working(lambda _: _verify_all(root_fd, lot, Meter(None))) as frames:
        yield
        deque(frames, maxlen=0)


def _verify_all(root_fd: int, lot: Iterable[_Made], meter: Meter) -> None:
    beneath = Beneath(root_fd, lambda path: True)
    try:
        for row, action in lot:
            _verify(beneath, row, action)
            meter.tick()
    finally:
        beneath.close()


def _verify(beneath: Beneath, asked: Row, action: Action) -> None:
    hint = "apply the payload again; if it happens twice, look for errors with: dmesg"
    try:
        parent, name = beneath.parent(asked.path)
        found = _found(parent.fd, name, asked)
    except (FileNotFoundError, HostileError, NotFoundError) as err:
        raise VerifyError(f"{shown(asked.path)} was written and is not there", hint=hint) from err
    wrong = differences(asked, found)
    if action is Action.IMPLIED and "mtime" in wrong:
        wrong.remove("mtime")
    if wrong:
        raise VerifyError(f"{shown(asked.path)} is not what was written: {', '.join(wrong)}", hint=hint)


def _found(dirfd: int, name: bytes, asked: Row) -> Row:
    """Return what is there; most is a file, as it should be, and each call counts."""
    if asked.kind is Kind.FILE:
        with suppress(OSError):
            return file_row(dirfd, name, asked.path)
    return index_row(dirfd, name, asked.path)


def differences(asked: Row, found: Row) -> list[str]:
    """Return in what two rows differ, as words; inode and ctime do not count."""
    if asked[:-2] == found[:-2]:
        return []
    pairs = {
        "kind": asked.kind is found.kind,
        "content": asked.sha256 == found.sha256,
        "size": asked.size == found.size or asked.kind is Kind.DIRECTORY,
        "mode": asked.mode == found.mode,
        "owner": (asked.uid, asked.gid) == (found.uid, found.gid),
        "device": asked.device == found.device,
        "attributes": asked.xattrs == found.xattrs,
        "mtime": asked.mtime_ns == found.mtime_ns,
    }
    return [name for name, equal in pairs.items() if not equal]
