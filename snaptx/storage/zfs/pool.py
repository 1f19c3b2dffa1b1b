"""What only the commands ``zpool`` and ``zfs`` can do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from snaptx.errors import CommandError, LayoutError, NoSpaceError, ReadOnlyError, SnaptxError, StorageError
from snaptx.run import run
from snaptx.storage.zfs import features
from snaptx.storage.zfs.library import MODULE_HINT

_DEVICE = Path("/dev/zfs")
_PROPERTIES = ("guid", "health", "readonly", "bootfs")

SET_APART = frozenset({
    "canmount", "encryption", "keyformat", "keylocation", "mountpoint", "pbkdf2iters", "refreservation",
    "reservation", "volsize",
})  # fmt: skip
"""Properties a clone gets otherwise, inherits from its origin, or must not take a second time."""


class Pool(NamedTuple):
    """What a pool says of itself."""

    name: str
    guid: int
    health: str
    read_only: bool


def _command(*argv: str, output: BinaryIO | None = None) -> str:
    try:
        return run(argv, output=output).stdout
    except CommandError as error:
        raise _failure(error) from error
    except StorageError:
        raise
    except SnaptxError as error:
        raise LayoutError(error.message, hint="install the package zfsutils-linux") from error


def _failure(error: CommandError) -> StorageError:
    """Return the storage's error for what a command said: its status is 1 for everything."""
    text = error.message.lower()
    if "out of space" in text or "quota exceeded" in text:
        return NoSpaceError(error.message, hint="free space or raise the quota; 'snaptx prune' helps")
    if "read-only" in text or "readonly" in text:
        return ReadOnlyError(error.message, hint="import the pool without readonly=on")
    if "modules" in text:
        return LayoutError(error.message, hint=MODULE_HINT)
    return StorageError(error.message, hint=error.hint)


def look(name: str) -> Pool:
    """Return what the pool says of itself.

    Raises:
        LayoutError: the kernel has no ZFS, or does not show it here.
        StorageError: it is not imported.
    """
    if not _DEVICE.exists():  # the command would wait for it for ten seconds
        raise LayoutError(f"there is no {_DEVICE}: no module, or a container without it", hint=MODULE_HINT)
    values = dict(_rows("zpool", "get", "-H", "-p", "-o", "property,value", ",".join(_PROPERTIES), name))
    return Pool(name, int(values["guid"]), values["health"], values["readonly"] == "on")


def _rows(*argv: str) -> Iterator[tuple[str, str]]:
    for line in _command(*argv).splitlines():
        key, _, value = line.partition("\t")
        yield key, value


def unreadable_by_grub(name: str) -> features.Unreadable:
    """Return the features of a pool that GRUB does not know, none if OpenZFS does not say what it knows."""
    files = [path for path in features.PLACES if path.is_file()]
    if not files:
        return features.Unreadable()
    properties = dict(_rows("zpool", "get", "-H", "-p", "-o", "property,value", "all", name))
    return features.unreadable(properties, features.parse_set(files[0].read_text(encoding="utf-8")))


def require_sound(pool: Pool) -> None:
    """Refuse a pool that can't be relied upon to take an update.

    Raises:
        ReadOnlyError: it is imported read-only.
        StorageError: it has lost too many devices.
    """
    if pool.read_only:
        raise ReadOnlyError(
            f"the pool {pool.name} is imported read-only", hint="import it without readonly=on"
        )
    if pool.health in ("FAULTED", "SUSPENDED", "UNAVAIL", "REMOVED", "OFFLINE"):
        hint = f"mend its devices, then: zpool clear {pool.name}"
        raise StorageError(f"the pool {pool.name} is {pool.health.lower()}", hint=hint)


def bootfs(name: str) -> str:
    """Return the dataset that boots by default as the pool says, "" if it names none."""
    value = _command("zpool", "get", "-H", "-p", "-o", "value", "bootfs", name).strip()
    return "" if value == "-" else value


def free_percent(*datasets: str) -> float:
    """Return how much is free of what each dataset has and may have, of the scarcest.

    statvfs(2) can't tell: to it a dataset that holds little is an empty filesystem.
    """
    rows = _rows("zfs", "get", "-H", "-p", "-o", "property,value", "used,available", *datasets)
    sizes = [int(value) for _, value in rows]
    return min(100 * free / max(used + free, 1) for used, free in zip(sizes[::2], sizes[1::2], strict=True))


def set_bootfs(name: str, dataset: str) -> None:
    """Set what ``bootfs`` returns; durable on return."""
    _command("zpool", "set", f"bootfs={dataset}", name)


def own_properties(dataset: str) -> dict[str, str]:
    """Return the properties set on a dataset itself that a copy of it needs, too."""
    command = ("zfs", "get", "-H", "-p", "-s", "local,received", "-o", "property,value", "all", dataset)
    rows = _rows(*command)
    return {key: value for key, value in rows if key not in SET_APART and not key.startswith("org.snaptx:")}


def set_properties(dataset: str, properties: Mapping[str, str]) -> None:
    """Set properties of a dataset, all or none."""
    if properties:
        _command("zfs", "set", *(f"{key}={value}" for key, value in properties.items()), dataset)


def difference(old: str, new: str) -> bytes:
    """Return what ``zfs diff`` writes of two snapshots."""
    with tempfile.TemporaryFile() as output:
        _command("zfs", "diff", "-H", old, new, output=output)
        output.seek(0)
        return output.read()
