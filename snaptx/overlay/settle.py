"""The end of writing: complete the manifest, set the directories' times."""

from __future__ import annotations

import os
import stat

from snaptx.errors import HostileError
from snaptx.overlay.record import Record
from snaptx.overlay.resolve import Beneath


def settle(root_fd: int, record: Record, beneath: Beneath) -> None:
    """Put what was written into the manifest and set the times that writing disturbed."""
    record.settle()
    for path, mtime_ns in record.directories():
        _settle_directory(root_fd, record, beneath, path, mtime_ns)
    for path in record.relinked():
        _refresh(record, beneath, path)


def _settle_directory(
    root_fd: int, record: Record, beneath: Beneath, path: bytes, mtime_ns: int | None
) -> None:
    if not path:
        st = os.fstat(root_fd)
        record.refresh(path, st.st_ino, st.st_ctime_ns, st.st_mtime_ns)
        return
    try:
        parent, name = beneath.parent(path)
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except (FileNotFoundError, HostileError):
        return  # touched, then removed
    if not stat.S_ISDIR(st.st_mode):
        return
    if mtime_ns is not None and st.st_mtime_ns != mtime_ns:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    record.refresh(path, st.st_ino, st.st_ctime_ns, st.st_mtime_ns)


def _refresh(record: Record, beneath: Beneath, path: bytes) -> None:
    try:
        parent, name = beneath.parent(path)
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except (FileNotFoundError, HostileError):
        return
    record.refresh(path, st.st_ino, st.st_ctime_ns, st.st_mtime_ns)
