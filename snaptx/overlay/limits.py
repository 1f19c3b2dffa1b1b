"""How much a payload may ask for: the guard against bombs, and against devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from snaptx.config import LimitsConfig
from snaptx.errors import HostileError, LimitError
from snaptx.model import Kind, Member
from snaptx.overlay.names import show

RATIO_FLOOR = 64 << 20
"""Bytes that may be unpacked before ``max_ratio`` counts: small zeros compress beyond any ratio."""

_USUAL = LimitsConfig()


class Limits(NamedTuple):
    """What a payload may hold; every size in bytes.

    ``max_bytes`` bounds the sum of the file sizes (holes count) and the
    unpacked stream with its headers; ``max_files`` the members;
    ``max_file_bytes`` one file; ``max_ratio`` the unpacked against the packed
    stream, from the first 64 MiB on.  ``allow_devices`` lets device nodes in.
    """

    max_bytes: int = _USUAL.max_bytes
    max_files: int = _USUAL.max_files
    max_file_bytes: int = _USUAL.max_file_bytes
    max_ratio: int = _USUAL.max_ratio
    allow_devices: bool = False


def exceeded(what: str, limit: int, name: str, where: str = "") -> LimitError:
    """Return the error for a payload beyond ``limit``, the setting ``name`` of the configuration."""
    message = f"the payload exceeds a limit: {what} (at most {limit})"
    return LimitError(
        message + (f": {where}" if where else ""),
        hint=f"if you trust the payload, raise {name} in snaptx.conf",
    )


def checked(members: Iterator[Member], limits: Limits) -> Iterator[Member]:
    """Yield ``members`` as long as they keep to ``limits``.

    Raises:
        LimitError: too many, or too large.
        HostileError: a device node, unless devices are allowed.
    """
    total = 0
    forbidden = () if limits.allow_devices else (Kind.CHAR, Kind.BLOCK)
    most_files, most_bytes, largest = limits.max_files, limits.max_bytes, limits.max_file_bytes
    for count, member in enumerate(members, 1):
        size = member.size
        total += size
        if count > most_files:
            raise exceeded("number of files", most_files, "max_files")
        if size > largest:
            raise exceeded("size of a file", largest, "max_file_bytes", show(member.path))
        if total > most_bytes:
            raise exceeded("bytes unpacked", most_bytes, "max_bytes", show(member.path))
        if member.kind in forbidden:
            raise HostileError(
                f"device node in the payload: {show(member.path)}",
                hint="if you trust the payload, say --allow-devices",
            )
        yield member
