"""Which mount namespaces do not show what this one does since a live switch.

A tree that a service had mounted on itself, read-only say, stays over the new
one.  Where only its root is read-only, the new tree is seen, and can be
written to.  Both are put right by a restart of the service.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from snaptx.running import proc
from snaptx.running.proc import Owner


def apart(sysroot: str, targets: Sequence[str]) -> tuple[Owner, ...]:
    """Return who lives in a mount namespace that shows one of ``targets`` otherwise.

    Namespaces with another root than ``sysroot``, as containers have, are no concern.
    """
    return tuple(sorted(set(_apart(sysroot, targets))))


def _apart(sysroot: str, targets: Sequence[str]) -> Iterator[Owner]:
    own = os.readlink("/proc/self/ns/mnt")
    judged = {own: False}
    for process in sorted(Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            namespace = os.readlink(process / "ns/mnt")
            if namespace not in judged:
                judged[namespace] = _differs(f"{process}/root", sysroot, targets)
            if judged[namespace]:
                yield proc.parse_cgroup(os.fsdecode((process / "cgroup").read_bytes()))


def _differs(reach: str, sysroot: str, targets: Sequence[str]) -> bool:
    """Return whether a view of the same root, behind ``reach``, has another tree or lost its protection."""
    if _identity(reach + sysroot) != _identity(sysroot):
        return False
    if any(_identity(reach + target) != _identity(target) for target in targets):
        return True
    return _is_read_only(reach + sysroot) and not all(_is_read_only(reach + target) for target in targets)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
