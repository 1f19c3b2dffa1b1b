"""One application tree, opened: a machine of its own, below the machine's state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from snaptx import initialise, lock, repair, system, transaction
from snaptx.apps import logs, settings
from snaptx.apps.settings import Settings
from snaptx.bootloader.pointer import Pointer
from snaptx.errors import BusyError, LayoutError, NotFoundError, StorageError, storage_error
from snaptx.machine import Machine
from snaptx.overlay.failure import shown
from snaptx.storage import apptree
from snaptx.storage.base import APPS
from snaptx.transaction import Request

if TYPE_CHECKING:
    from snaptx.storage.btrfs import AppStorage

PATIENCE = 30.0
"""Seconds that the making of another application is waited for."""


@dataclass(frozen=True)
class App:
    """An application: ``machine`` is what the verbs of a root work on, ``place`` its directory in /run.

    The settings are read when they are asked for: without them it can still be
    stopped, verified, repaired and removed.
    """

    name: str
    machine: Machine
    read_settings: Callable[[], Settings]
    place: Path

    @property
    def settings(self) -> Settings:
        """What the administrator says of it.

        Raises:
            ConfigError: its file can't be read, or says something impossible.
        """
        return self.read_settings()


def names(host: Machine) -> list[str]:
    """Return the names of the application trees, sorted."""
    return [path.name for path in _entries(host, ours=True) if not path.name.startswith(".")]


def strays(host: Machine) -> list[Path]:
    """Return what lies among the application trees and is none, sorted."""
    return list(_entries(host, ours=False))


def _entries(host: Machine, *, ours: bool) -> Iterator[Path]:
    for path in _listed(host):
        with suppress(FileNotFoundError):  # removed or renamed just then: it is neither
            if _is_ours(path) is ours:
                yield path


def _is_ours(path: Path) -> bool:
    if not settings.is_name(path.name.removeprefix(".")):
        return False
    try:
        return apptree.is_one(path)
    except FileNotFoundError:
        raise
    except OSError:  # a disk that has failed does not give it back; it is no stray for that
        return True


def _listed(host: Machine) -> list[Path]:
    return sorted((host.storage.state / APPS).glob("*"))


def open_app(host: Machine, name: str) -> App:
    """Open an application tree of a machine.

    Raises:
        NotFoundError: there is none of that name.
    """
    opened = look(host, settings.require_name(name))
    if not is_there(opened):
        known = ", ".join(names(host)) or "none"
        raise NotFoundError(f"there is no application {name}", hint=f"there are: {known}")
    return opened


def set_aside(host: Machine, request: Request, stray: Path) -> bool:
    """Move what is no application out of the way of those that are; return False if it is one by now.

    Raises:
        LockError: another snaptx makes one, and takes long.
    """
    name = shown(os.fsencode(stray.name))
    with making(host):
        if stray not in strays(host):
            return False
        repair.set_aside(host, stray, f"stray-{name}"[:80])
        transaction.note(host, request, stray=name, result="set aside")
    return True


def look(host: Machine, name: str) -> App:
    """Open an application tree as far as there is one (see ``is_there``)."""
    return _app(host, name, _storage(host, name))


def is_there(app: App) -> bool:
    """Return whether it was made: from its first pointer on recovery completes it."""
    machine = app.machine
    try:
        if initialise.is_complete(machine):
            return True
    except StorageError:  # a filesystem that has just failed does not give its journal back
        return True
    return machine.storage.state.is_dir() and machine.boot.read() is not None


def _storage(host: Machine, name: str) -> AppStorage:
    mount = system.mount_at(host.sysroot)
    if mount is None or mount.fstype != "btrfs":
        raise LayoutError("application trees need a root on Btrfs", hint="on ZFS there are none yet")
    # Late, as machine does: 'repair' works where its library is not installed.
    from snaptx.storage.btrfs import AppStorage

    return AppStorage(mount, name, lambda home: Pointer(home).chosen())


def _app(host: Machine, name: str, storage: AppStorage) -> App:
    place = host.sysroot / logs.RUN / name
    machine = Machine(place / "root", host.config, storage, Pointer(storage.home))
    return App(name, machine, cache(partial(settings.load, host.sysroot, name)), place)


def fresh(host: Machine, name: str) -> tuple[App, AppStorage]:
    """Return an application tree that is to be made, and what makes it.

    Raises:
        UsageError: none may be called so.
        BusyError: there is one of that name, or something that is none.
        LayoutError: the root is not on Btrfs.
    """
    storage = _storage(host, settings.require_name(name))
    apptree.require(storage.state)
    made = _app(host, name, storage)
    if is_there(made):
        raise BusyError(f"there is an application {name}", hint=f"see: snaptx app list {name}")
    return made, storage


def create(host: Machine, request: Request, name: str) -> App:
    """Make an empty application tree.

    Raises:
        UsageError: none may be called so.
        BusyError: there is one of that name, or something that is none.
        LockError: another one is being made, and takes long.
    """
    fresh(host, name)
    with making(host):
        made, storage = fresh(host, name)
        storage.create()
        initialise.initialise(made.machine, request, about="empty")
    return made


def making(host: Machine) -> AbstractContextManager[None]:
    """Be the only one that makes applications, or judges which are half made: theirs can't be locked yet.

    Raises:
        LockError: another snaptx does, and takes long.
        StorageError: the filesystem refuses the directory that they lie in.
    """
    directory = host.storage.state / APPS
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"cannot make @snaptx/{APPS}") from error
    return lock.held(directory, PATIENCE)


def require_unpinned(app: App) -> None:
    """Refuse an application of which a generation is pinned.

    Raises:
        BusyError: one is.
    """
    for generation in app.machine.generations.recorded():
        if generation.pinned:
            raise BusyError(f"generation {generation.number} is pinned", hint="unpin what is to go")


def remove(host: Machine, app: App, request: Request) -> None:
    """Remove an application tree with all its generations and its trail; the caller has ended what ran.

    That it is gone is in the machine's own trail.

    Raises:
        BusyError: something of it is mounted, or a generation is pinned.
    """
    require_unpinned(app)
    transaction.note(host, request, application=app.name, result="begun")
    app.machine.storage.forsake("")
    logs.forget(app.place)
    transaction.note(host, request, application=app.name, result="done")


def reopen(host: Machine, app: App) -> App:
    """Open it once more: what a machine has looked up once it keeps."""
    return open_app(host, app.name)


def subtree(app: App, number: int) -> Path:
    """Return where the generation's root is mounted while an instance runs in it."""
    return Path(os.path.normpath(app.place)) / str(number)


def described(host: Machine) -> Iterator[App]:
    """Yield every application tree, opened; one that is half made is none."""
    for name in names(host):
        app = look(host, name)
        if is_there(app):
            yield app


def half_made(host: Machine) -> list[str]:
    """Return the names of those whose making was begun and is not over."""
    return [name for name in names(host) if not is_there(look(host, name))]


def removed(host: Machine) -> list[str]:
    """Return the names of those whose removal was begun and is not over."""
    return [path.name[1:] for path in _entries(host, ours=True) if path.name.startswith(".")]


def sweep(host: Machine, name: str, verb: str) -> None:
    """Remove what an interrupted removal left.

    Raises:
        LockError: it is not interrupted, but at work.
    """
    storage = _storage(host, name)
    with lock.exclusive(storage.gone / "lock", verb):
        storage.sweep()
