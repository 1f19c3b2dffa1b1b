"""The door between the kernel's errno and snaptx's error tree, for work on a generation's tree."""

from __future__ import annotations

import errno
import os

from snaptx.errors import (
    HostileError,
    NoSpaceError,
    ReadOnlyError,
    SnaptxError,
    SourceError,
    StorageError,
    cure_of,
)
from snaptx.overlay.names import show


class RefusedError(OSError):
    """What the kernel says of an attribute that nothing of this kind can have; ``filename`` is its name."""


def shown(path: bytes) -> str:
    """Return ``path`` as text for a message: safe on a terminal, and never empty."""
    return show(path) if path else "the root directory"


def from_root(path: bytes) -> str:
    """Return ``path``, which is relative to a root, as it is typed there: from / on, safe on a terminal."""
    return f"/{show(path)}" if path else "/"


def translate(err: OSError, path: bytes) -> SnaptxError:
    """Return the error of the tree that says what ``err`` means for the work on ``path``."""
    name = shown(path)
    if isinstance(err, RefusedError):
        message = f"{name}: the attribute {err.filename!r} can't be set: {err.strerror}"
        return SourceError(message, hint="remove the attribute from the payload")
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the quota" if err.errno == errno.EDQUOT else "the filesystem"
        return NoSpaceError(f"{name}: {what} is full", hint="free space, or run: snaptx prune")
    if err.errno == errno.EROFS:
        return ReadOnlyError(f"{name}: the filesystem is read-only", hint="look for its errors with: dmesg")
    if err.errno == errno.ENAMETOOLONG:
        return HostileError(f"{name}: the name is too long", hint="names end at 255 bytes, paths at 4095")
    if err.errno == errno.EPERM:
        hint = "an immutable or append-only file? 'chattr -i -a' lets it be changed"
        return StorageError(f"{name}: {os.strerror(err.errno)}", hint=hint)
    return StorageError(f"{name}: {os.strerror(err.errno or 0)}", hint=cure_of(err.errno))


def impossible(err: Exception, path: bytes) -> HostileError:
    """Return the error for a number that Python or the kernel can't take."""
    message = f"{shown(path)}: a value no filesystem can hold: {err}"
    return HostileError(message, hint="do not trust this payload")
