"""How much a payload may ask for: the guard against bombs, and against devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snaptx.errors import HostileError, LimitError
from snaptx.model import Kind, Member
from snaptx.overlay.names import show

RATIO_FLOOR = 64 << 20
"""Bytes that may be unpacked before ``max_ratio`` counts: small zeros compress beyond any ratio."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a payload may hold; every size in bytes.

    ``max_bytes`` bounds the sum of the file sizes (holes count) and the
    unpacked stream with its headers; ``max_files`` the members;
    ``max_file_bytes`` one file; ``max_ratio`` the unpacked against the packed
    stream, from the first 64 MiB on.  ``allow_devices`` lets device nodes in.
    """

    max_bytes: int = 64 << 30
    max_files: int = 5_000_000
    max_file_bytes: int = 16 << 30
    max_ratio: int = 200
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
    for count, member in enumerate(members, 1):
        total += member.size
        if count > limits.max_files:
            raise exceeded("number of files", limits.max_files, "max_files")
        if member.size > limits.max_file_bytes:
            raise exceeded("size of a file", limits.max_file_bytes, "max_file_bytes", show(member.path))
        if total > limits.max_bytes:
            raise exceeded("bytes unpacked", limits.max_bytes, "max_bytes", show(member.path))
        if member.kind in forbidden:
            raise HostileError(
                f"device node in the payload: {show(member.path)}",
                hint="if you trust the payload, say --allow-devices",
            )
        yield member
