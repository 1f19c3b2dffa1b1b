"""Which mount namespaces show another tree than this one: they did not follow a live switch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from snaptx.running import proc
from snaptx.running.proc import Owner


def apart(sysroot: str, targets: Sequence[str]) -> tuple[Owner, ...]:
    """Return who lives in a mount namespace that shows something else at one of ``targets``.

    Namespaces with another root than ``sysroot``, as containers have, are no concern.
    """
    return tuple(sorted(set(_apart(sysroot, targets))))


def _apart(sysroot: str, targets: Sequence[str]) -> Iterator[Owner]:
    here = [_identity(path) for path in (sysroot, *targets)]
    seen: dict[str, bool] = {os.readlink("/proc/self/ns/mnt"): False}
    for process in sorted(Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            namespace = os.readlink(process / "ns/mnt")
            if namespace not in seen:
                there = [_identity(f"{process}/root{path}") for path in (sysroot, *targets)]
                seen[namespace] = there[0] == here[0] and there != here
            if seen[namespace]:
                yield proc.parse_cgroup((process / "cgroup").read_text(errors="surrogateescape"))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
