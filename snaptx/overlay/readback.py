"""Read everything back that was written, and compare it with what was asked for.

::

    rows that were written ──> lot ──> one half:   open, hash, compare   here
                                  └──> the other:  open, hash, compare   in a second process

This comes last, when nothing is written any more.  A third process that reads
beside the writer costs more than it hides: each file has to be looked at once
more at the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice

from snaptx import apart
from snaptx.errors import HostileError, NotFoundError, VerifyError
from snaptx.model import Kind, Row
from snaptx.overlay.failure import shown
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.record import Action, Record
from snaptx.overlay.resolve import Beneath
from snaptx.overlay.scan import index_row

_Made = tuple[Row, Action]

_LOT = 16_384
"""Rows that are read back at a time: 10 MiB of them are in memory at once, and each time takes a fork."""

_WORTH_A_FORK = 256
"""Rows that take longer to read back than it takes to begin a process."""

_PER_PATH = 100_000
"""What opening a file costs beside reading it, in bytes read and hashed in that time."""


def verify_written(root_fd: int, manifest: Manifest) -> None:
    """Make sure that everything this transaction wrote is in the tree as it was asked for.

    Content, size, kind, mode, owner, attributes and mtime; then drop the
    transaction's record from the manifest.  Where there is much of it a second
    process reads a half.  To be called after ``Writer.finish`` and before the
    tree is sealed.  Raises VerifyError.
    """
    record = Record(manifest)
    made = record.made()
    while lot := list(islice(made, _LOT)):
        _verify_lot(root_fd, lot)
    record.drop()
    manifest.commit()


def _verify_lot(root_fd: int, lot: Sequence[_Made]) -> None:
    here, there = shared_out(lot) if len(lot) > _WORTH_A_FORK else (lot, [])
    if not there:
        _verify_all(root_fd, here)
        return
    with apart.working(lambda _: _verify_all(root_fd, there)) as frames:
        _verify_all(root_fd, here)
        deque(frames, maxlen=0)


def shared_out(lot: Sequence[_Made]) -> tuple[Sequence[_Made], Sequence[_Made]]:
    """Cut a list in two that take about as long to read back, in order: neighbours share directories."""
    costs = list(accumulate(_PER_PATH + row.size for row, _ in lot))
    cut = bisect_left(costs, costs[-1] / 2) + 1
    return lot[:cut], lot[cut:]


def _verify_all(root_fd: int, lot: Iterable[_Made]) -> None:
    beneath = Beneath(root_fd, lambda path: True)
    try:
        for row, action in lot:
            _verify(beneath, row, action)
    finally:
        beneath.close()


def _verify(beneath: Beneath, asked: Row, action: Action) -> None:
    hint = "apply the payload again; if it happens twice, look for errors with: dmesg"
    try:
        parent, name = beneath.parent(asked.path)
        found = index_row(parent.fd, name, asked.path)
    except (FileNotFoundError, HostileError, NotFoundError) as err:
        raise VerifyError(f"{shown(asked.path)} was written and is not there", hint=hint) from err
    wrong = differences(asked, found)
    if action is Action.IMPLIED and "mtime" in wrong:
        wrong.remove("mtime")
    if wrong:
        raise VerifyError(f"{shown(asked.path)} is not what was written: {', '.join(wrong)}", hint=hint)


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
