"""Look what lives inside the root and should not be rolled back with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snaptx import fstab, places, system
from snaptx.machine import Machine
from snaptx.places import Rule
from snaptx.sharing import rules
from snaptx.sharing.rules import Finding, Seen, State

ENOUGH = 10_000
"""Files after which counting stops: it is an estimate for people."""


def look(machine: Machine, *, enough: int = ENOUGH) -> tuple[Finding, ...]:
    """Return what there is at the places that belong to no generation; absent ones are left out.

    Counting stops at ``enough`` files.
    """
    awaited = fstab.targets(fstab.read(machine.sysroot))
    config = machine.config.shared
    found: dict[str, Finding] = {}
    with system.descriptor(machine.sysroot, system.DIRECTORY) as root_fd:
        for rule in rules.of(config.paths, config.ignore):
            for finding in _find(machine.sysroot, root_fd, rule, awaited, enough):
                if not places.is_below(finding.path, config.ignore):
                    found.setdefault(finding.path, finding)
    return tuple(found.values())


def endangered(machine: Machine) -> tuple[str, ...]:
    """Return the paths whose data a rollback would take back; quick, for a warning."""
    return tuple(finding.path for finding in look(machine, enough=0) if finding.blocks)


def _find(sysroot: Path, root_fd: int, rule: Rule, awaited: set[str], enough: int) -> Iterator[Finding]:
    try:
        fd = system.openat2(root_fd, os.fsencode(rule.path), system.DIRECTORY, system.AS_ROOT)
    except OSError:
        return  # nothing is there, or no directory
    try:
        path = path_of(sysroot, fd)
        device, root_device = os.fstat(fd).st_dev, os.fstat(root_fd).st_dev
        seen = Seen(mounted=_covering(sysroot, path) != str(sysroot.resolve()))
        if not seen.mounted and device != root_device:
            seen = Seen(nested=True)
        elif not seen.mounted:
            count, complete = _count(fd, device, enough)
            waits = places.is_below(path, awaited - {"/"})
            seen = Seen(False, False, waits, count, complete, frozenset(os.listdir(fd)))
        yield rules.judge(rule, path, seen)
    finally:
        os.close(fd)


def path_of(sysroot: Path, fd: int) -> str:
    """Return the path of a descriptor from the system root, links resolved."""
    return below(sysroot, os.readlink(f"/proc/self/fd/{fd}"))


def below(sysroot: Path, place: str) -> str:
    """Return the path that a place of this machine has below the system root."""
    return "/" + os.path.relpath(place, sysroot.resolve()).removeprefix(".")


def _covering(sysroot: Path, path: str) -> str:
    """Return the mount point that ``path`` of the system lies on."""
    place = str(sysroot.resolve() / path.lstrip("/"))
    return max((m.target for m in system.mounts() if places.is_below(place, [m.target])), key=len)


def _count(fd: int, device: int, enough: int) -> tuple[int, bool]:
    """Count what is no directory on one filesystem, to at most one more than ``enough``."""
    count = 0
    for _, directories, names, here in os.fwalk(".", dir_fd=fd):
        if os.fstat(here).st_dev != device:
            directories.clear()
            continue
        count += len(names)
        if count > enough:
            return count, False
    return count, True


def inside(findings: tuple[Finding, ...]) -> list[Finding]:
    """Return those that lie inside the root."""
    return [finding for finding in findings if finding.state is State.INSIDE]
