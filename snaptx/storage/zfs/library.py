"""The door to ``libzfs_core``: text instead of bytes, errors of the tree instead of its own.

What the library can't do is done by channel programs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from snaptx.errors import BusyError, LayoutError, StorageError, storage_error
from snaptx.storage.zfs import programs
from snaptx.storage.zfs.names import Dataset, Listing, Snapshot

NEEDED = ("lzc_channel_program", "lzc_channel_program_nosync", "lzc_sync", "lzc_rename")
PACKAGE_HINT = (
    "install the distribution's binding (Debian: apt install python3-pyzfs) and run snaptx with the "
    "distribution's Python; not 'pip install pyzfs', which is too old and aborts the process"
)
MODULE_HINT = "load the kernel module: modprobe zfs"

CANMOUNT_OFF = 0
CANMOUNT_NOAUTO = 2
"""zfs_canmount_type_t, sys/fs/zfs.h: the library takes numbers where the commands take words."""


@cache
def load() -> ModuleType:
    """Return the binding.

    Raises:
        LayoutError: there is none, or one that is too old to be called.
    """
    try:
        import libzfs_core
    except ImportError as error:
        raise LayoutError(f"ZFS needs libzfs_core for Python: {error}", hint=PACKAGE_HINT) from error
    missing = [name for name in NEEDED if not hasattr(libzfs_core, name)]
    if missing:
        place = getattr(libzfs_core, "__file__", "of unknown origin")
        raise LayoutError(f"the libzfs_core {place} lacks {missing[0]}", hint=PACKAGE_HINT)
    return libzfs_core  # type: ignore[no-any-return]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the library raises into errors of the tree, with what was being done."""
    exceptions = load().exceptions
    try:
        yield
    except exceptions.ZFSInitializationFailed as error:
        raise LayoutError(f"{doing}: the kernel has no ZFS ({error.errno})", hint=MODULE_HINT) from error
    except exceptions.ZFSError as error:
        raise _error(error, doing) from error
    except OSError as error:  # no shared library
        raise storage_error(error, doing) from error


def _error(error: Any, doing: str) -> StorageError:
    """Return the error of the tree; of several, the first tells."""
    first = error.errors[0] if getattr(error, "errors", None) else error
    return _failure(first.errno or errno.EIO, doing, _said(first))


def _failure(number: int, doing: str, cause: str) -> StorageError:
    said = f"{doing}: {cause}"
    match number:
        case errno.EEXIST | errno.ENOTEMPTY:
            return BusyError(said, hint="'zfs list -t all' shows what is in the way")
        case errno.EACCES:
            return StorageError(said, hint="load the key: zfs load-key")
        case errno.EPERM:
            return StorageError(said, hint="run it as root: what 'zfs allow' gives is not enough")
        case errno.EAGAIN:
            return StorageError(f"{doing}: the pool is suspended", hint="mend its devices, then: zpool clear")
    return storage_error(OSError(number, cause), doing)


def _said(error: Any) -> str:
    text = str(getattr(error, "message", "") or type(error).__name__)
    about = (getattr(error, name, "") or "" for name in ("name", "details"))
    return " ".join(filter(None, (text, *map(_text, about))))


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def pool_of(name: str) -> str:
    """Return the pool of a dataset or snapshot."""
    return name.partition("/")[0].partition("@")[0]


def listing(tops: Iterable[str]) -> Listing:
    """Return the datasets at and below ``tops``, parents first; a top that does not exist is left out.

    Raises:
        StorageError: the pool can't be asked.
    """
    names = [name.encode() for name in tops]
    pool = pool_of(names[0].decode()).encode()
    with translated("cannot list the datasets"):
        found = load().lzc_channel_program_nosync(pool, programs.LIST.encode(), params=names)
    return Listing({name.decode(): _dataset(name.decode(), one) for name, one in sorted(found.items())})


def _dataset(name: str, raw: Mapping[bytes, Any]) -> Dataset:
    snapshots = [
        Snapshot(each.decode(), int(facts[b"txg"]), _words(facts[b"clones"]), _words(facts[b"holds"]))
        for each, facts in raw[b"snapshots"].items()
    ]
    text = {key.decode(): value.decode() for key, value in raw.items() if isinstance(value, bytes)}
    return Dataset(
        name=name,
        tree=text["tree"],
        mountpoint=text.get("mountpoint", "none"),
        canmount=text.get("canmount", "on"),
        read_only=text.get("readonly") == "on",
        menu="menu" in text,
        automatic="automatic" in text,
        origin=text["origin"],
        snapshots=tuple(sorted(snapshots, key=lambda one: one.txg)),
    )


def _words(names: Mapping[bytes, Any]) -> tuple[str, ...]:
    return tuple(sorted(name.decode() for name in names))


def together(doing: str, *steps: tuple[str, ...]) -> None:
    """Make all steps in one transaction group.

    A step is ("promote", clone), ("destroy", name), ("rename", dataset, old, new) for a snapshot,
    ("set", dataset, property, value) for a user property, ("inherit", dataset, property).

    Raises:
        StorageError: one of them is not possible.
    """
    lines = ["\t".join(step).encode() for step in steps]
    if lines:
        pool = pool_of(steps[0][1]).encode()
        with translated(doing):
            failed = load().lzc_channel_program(pool, programs.STEPS.encode(), params=lines)
        if failed:
            number, step = int(failed[b"status"]), _text(failed[b"step"]).expandtabs(1)
            raise _failure(number, doing, f"{os.strerror(number)} ({step})")


def create(name: str, properties: Mapping[str, str | int]) -> None:
    """Make a filesystem.

    Raises:
        BusyError: the name is taken.
    """
    with translated(f"cannot make {name}"):
        load().lzc_create(name.encode(), props=_encoded(properties))


def clone(name: str, origin: str, properties: Mapping[str, str | int]) -> None:
    """Make a clone of a snapshot; its properties come in a later transaction group than itself.

    Raises:
        BusyError: the name is taken.
    """
    with translated(f"cannot clone {origin} as {name}"):
        load().lzc_clone(name.encode(), origin.encode(), props=_encoded(properties))


def _encoded(properties: Mapping[str, str | int]) -> dict[bytes, Any]:
    return {
        key.encode(): value.encode() if isinstance(value, str) else value for key, value in properties.items()
    }


def snapshot(names: Iterable[str]) -> None:
    """Take snapshots, all of one instant.

    Raises:
        BusyError: a name is taken; nothing was made.
    """
    wanted = [name.encode() for name in names]
    with translated(f"cannot snapshot {wanted[0].decode()}"):
        load().lzc_snapshot(wanted)


def destroy_snapshots(names: Iterable[str], *, defer: bool = False) -> None:
    """Destroy snapshots, all or none; ``defer`` those that have clones until these are gone."""
    wanted = [name.encode() for name in names]
    if wanted:
        with translated(f"cannot destroy {wanted[0].decode()}"):
            load().lzc_destroy_snaps(wanted, defer)


def hold(names: Iterable[str], tag: str) -> None:
    """Let snapshots not be destroyed, by anybody, until ``release``.

    Raises:
        BusyError: one is held by that tag already; none was changed.
    """
    wanted = {name.encode(): tag.encode() for name in names}
    if wanted:
        with translated(f"cannot hold {next(iter(wanted)).decode()}"):
            load().lzc_hold(wanted)


def release(names: Iterable[str], tag: str) -> None:
    """Take ``hold`` back."""
    wanted = {name.encode(): [tag.encode()] for name in names}
    if wanted:
        with translated(f"cannot release {next(iter(wanted)).decode()}"):
            load().lzc_release(wanted)


def rename(old: str, new: str) -> None:
    """Rename a filesystem with what is below it.

    Raises:
        BusyError: the new name is taken.
    """
    with translated(f"cannot rename {old} to {new}"):
        load().lzc_rename(old.encode(), new.encode())


def sync(pool: str) -> None:
    """Return when everything written to the pool so far is on its devices."""
    with translated(f"the pool {pool} could not be made durable"):
        load().lzc_sync(pool.encode())
