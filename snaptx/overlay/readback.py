"""Read everything back that was written, and compare it with what was asked for.

::

    writer ──> rows, lot by lot ──> child: open, hash, compare      while more is written
    at the end, of each row:  the inode as the row has it?  ──no──>  open, hash, compare
                              a directory?                  ──yes─>  compare, for its times are set last

What changes a file in any way changes its ctime.  A row has inode and ctime as
they were once the file was written, so a file that still has both when nothing
is written any more is the one that the child compared.
"""

from __future__ import annotations

import marshal
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate, islice
from types import TracebackType
from typing import Any, Self

from snaptx import apart
from snaptx.errors import HostileError, NotFoundError, VerifyError
from snaptx.model import Kind, Row
from snaptx.overlay.base import same_inode
from snaptx.overlay.failure import shown
from snaptx.overlay.manifest import Manifest, to_row
from snaptx.overlay.record import Action, Record
from snaptx.overlay.resolve import Beneath
from snaptx.overlay.scan import index_row

_Made = tuple[Row, Action]

_LOT = 4096
"""Rows that are gone through at a time at the end: what of them is in memory at once."""

_WORTH_A_FORK = 256
"""Rows that take longer to read back than it takes to begin a process."""

_PER_PATH = 100_000
"""What opening a file costs beside reading it, in bytes read and hashed in that time."""


class Reader:
    """Has a second process read back what is written, once there is enough of it.

    Use it as a context manager: leaving it without `finish` ends the process.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._rows: list[tuple[Any, ...]] = []
        self._process = ExitStack()
        self._send: apart.Send | None = None

    @property
    def began(self) -> bool:
        """Return whether there was enough for a second process."""
        return self._send is not None

    def add(self, values: tuple[Any, ...]) -> None:
        """Have a row read back, given as `to_values` makes it of what is complete in the tree.

        Raises VerifyError for what was added before.
        """
        self._rows.append(values)
        if len(self._rows) == _WORTH_A_FORK:
            if self._send is None:
                serving = apart.serving(lambda frames: _read_back(self._root_fd, frames))
                self._send = self._process.enter_context(serving)
            self._hand_over(self._send)

    def _hand_over(self, send: apart.Send) -> None:
        send([marshal.dumps(self._rows)])
        self._rows.clear()

    def flush(self) -> None:
        """Have the rest read back as well; without a process there is no haste."""
        if self._send is not None:
            self._hand_over(self._send)

    def finish(self) -> None:
        """Wait until all has been read back.

        Raises VerifyError.
        """
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind or GeneratorExit, err or GeneratorExit(), trace)


def _read_back(root_fd: int, frames: Iterator[bytes]) -> None:
    beneath = Beneath(root_fd, lambda path: True)
    for frame in frames:
        for values in marshal.loads(frame):
            _verify(beneath, to_row(values), Action.ADDED)


def verify_written(root_fd: int, manifest: Manifest, *, began: bool = False) -> None:
    """Make sure that everything this transaction wrote is in the tree as it was asked for.

    Content, size, kind, mode, owner, attributes and mtime; then drop the
    transaction's record from the manifest.  ``began`` says that a `Reader` has
    been through all but the directories and hard links.  Where there is much to do a
    second process does a half.  To be called after ``Writer.finish`` and before the
    tree is sealed.  Raises VerifyError.
    """
    record = Record(manifest)
    made = record.made()
    while lot := list(islice(made, _LOT)):
        _verify_lot(root_fd, lot, began=began)
    record.drop()
    manifest.commit()


def _verify_lot(root_fd: int, lot: Sequence[_Made], *, began: bool) -> None:
    here, there = shared_out(lot) if len(lot) > _WORTH_A_FORK else (lot, [])
    if not there:
        _verify_all(root_fd, here, began=began)
        return
    with apart.working(lambda _: _verify_all(root_fd, there, began=began)) as frames:
        _verify_all(root_fd, here, began=began)
        deque(frames, maxlen=0)


def shared_out(lot: Sequence[_Made]) -> tuple[Sequence[_Made], Sequence[_Made]]:
    """Cut a list in two that take about as long to read back, in order: neighbours share directories."""
    costs = list(accumulate(_PER_PATH + row.size for row, _ in lot))
    cut = bisect_left(costs, costs[-1] / 2) + 1
    return lot[:cut], lot[cut:]


def _verify_all(root_fd: int, lot: Iterable[_Made], *, began: bool) -> None:
    beneath = Beneath(root_fd, lambda path: True)
    device = os.fstat(root_fd).st_dev
    try:
        for row, action in lot:
            if not (began and _is_as_read(root_fd, device, row)):
                _verify(beneath, row, action)
    finally:
        beneath.close()


def _is_as_read(root_fd: int, device: int, row: Row) -> bool:
    """Return whether a path is the very inode that was read back, and nothing happened to it since."""
    if row.kind is Kind.DIRECTORY:
        return False
    try:
        st = os.stat(row.path, dir_fd=root_fd, follow_symlinks=False)
    except OSError:
        return False
    return same_inode(st, row) and st.st_dev == device


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
