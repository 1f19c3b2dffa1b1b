"""What package managers have fetched: a tree of its own beside the state, which no generation holds.

It goes with the state directory, and has one user at a time: a lock of its own
keeps others out, for fetching can take long and need not keep out the rest of
snaptx.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from snaptx import lock
from snaptx.errors import NotFoundError
from snaptx.machine import Machine
from snaptx.packages.base import Manager
from snaptx.storage.base import CACHE, MountSpec

KEPT = "kept"
"""The directory of the cache that no package manager knows."""

LOCK = "cache.lock"


def sole_user(machine: Machine, verb: str) -> AbstractContextManager[None]:
    """Keep other users of the cache out for the length of a with block.

    Raises:
        LockError: somebody else uses it.
    """
    return lock.exclusive(machine.storage.state / LOCK, verb)


def ready(machine: Machine, manager: Manager) -> MountSpec:
    """Return how to mount the cache, which has everything the manager needs to find there."""
    if machine.storage.shared(CACHE) is None:
        machine.storage.begin_shared(CACHE)
        machine.storage.keep_shared(CACHE)
    info = machine.storage.shared(CACHE)
    if info is None:
        raise NotFoundError("the package cache is gone", hint="somebody deletes it meanwhile; try again")
    place = machine.storage.shared_path(CACHE)
    for directory in manager.directories:
        (place / directory).mkdir(parents=True, exist_ok=True)
    for link, target in manager.links.items():
        with suppress(FileExistsError):
            (place / link).symlink_to(target)
    for path in [path for pattern in manager.stale for path in place.glob(pattern)]:
        path.unlink()
    return info.mount


def keep(machine: Machine, manager: Manager, *, packages: bool) -> None:
    """Keep what was fetched from a manager that deletes what it has installed: the upgrade may fail later.

    Without ``packages`` to install nothing is kept.
    """
    if manager.emptied:
        place = machine.storage.shared_path(CACHE)
        shutil.rmtree(place / KEPT / manager.emptied, ignore_errors=True)
        if packages:
            _link(place / manager.emptied, place / KEPT / manager.emptied)


def bring_back(machine: Machine, manager: Manager) -> None:
    """Let the manager find again what it has deleted."""
    if manager.emptied:
        place = machine.storage.shared_path(CACHE)
        _link(place / KEPT / manager.emptied, place / manager.emptied)


def _link(source: Path, target: Path) -> None:
    """Give all files of a tree a second name in another."""
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink():
            other = target / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                other.hardlink_to(path)
