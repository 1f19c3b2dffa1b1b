"""What the files of /proc say, line by line: pure parsers (proc_pid_maps(5), cgroups(7))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

DELETED = b" (deleted)"
"""What the kernel adds to a name that is gone; a name may also end so by itself."""


class Mapping(NamedTuple):
    """A piece of a file in a process's memory, from ``start`` up to ``end``.

    ``device`` is the filesystem's, as "major:minor" in hexadecimal, which for
    Btrfs is not what stat(2) says; ``path`` may end with `DELETED`.
    """

    start: int
    end: int
    executable: bool
    device: bytes
    inode: int
    path: bytes


def parse_maps(lines: Iterable[bytes]) -> Iterator[Mapping]:
    """Yield the mappings of files from the lines of /proc/PID/maps; memory without a file is left out."""
    for line in lines:
        fields = line.removesuffix(b"\n").split(None, 5)
        if len(fields) == 6 and fields[4] != b"0" and fields[5].startswith(b"/"):
            start, _, end = fields[0].partition(b"-")
            path = fields[5].replace(b"\\012", b"\n")
            yield Mapping(int(start, 16), int(end, 16), b"x" in fields[1], fields[3], int(fields[4]), path)


def distinct(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Return one mapping for each file, executable if any of them is."""
    found: dict[tuple[bytes, int, bytes], Mapping] = {}
    for mapping in mappings:
        key = (mapping.device, mapping.inode, mapping.path)
        if key not in found or (mapping.executable and not found[key].executable):
            found[key] = mapping
    return list(found.values())


class Kind(StrEnum):
    """What answers for a process."""

    UNIT = "unit"
    SESSION = "session"
    CONTAINER = "container"
    OTHER = "other"


class Owner(NamedTuple):
    """Who answers for a process: a unit of systemd, a session or unit of a user, a container."""

    kind: Kind
    name: str


_CONTAINERS = re.compile(
    r"(?:(?:docker|libpod|crio|cri-containerd|nerdctl)-(?P<id>[0-9a-f]{12,64})\.scope"
    r"|systemd-nspawn@(?P<nspawn>.+)\.service"
    r"|machine-(?P<machine>.+)\.scope"
    r"|lxc\.payload\.(?P<lxc>.+))"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_PARENTS = ("docker", "lxc", "kubepods", "libpod_parent", "garden")


def parse_cgroup(text: str) -> Owner:
    """Return who answers for a process, from its /proc/PID/cgroup."""
    path = _path_of(text)
    parts = [part for part in path.split("/") if part]
    name = _container(parts)
    if name:
        return Owner(Kind.CONTAINER, name)
    user = next((found[1] for part in parts if (found := re.fullmatch(r"user-(\d+)\.slice", part))), "")
    units = [part for part in parts if part.endswith((".service", ".scope"))]
    if user and units:
        return Owner(Kind.SESSION, f"user {user}: {units[-1]}")
    return Owner(Kind.UNIT, units[0]) if units else Owner(Kind.OTHER, path or "/")


def _path_of(text: str) -> str:
    """Return the group in the hierarchy of version 2, else in systemd's own of version 1."""
    lines = text.split("\n")  # a group's name may hold all else that ends a line elsewhere
    groups = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines if line.count(":") >= 2}
    return next((groups[name] for name in ("", "name=systemd") if groups.get(name, "/") != "/"), "")


def _container(parts: list[str]) -> str:
    for above, part in zip(["", *parts], parts, strict=False):
        if found := _CONTAINERS.fullmatch(part):
            name = next(value for value in found.groupdict().values() if value)
            return _unescape(name)[:12] if found["id"] else _unescape(name)
        if _HEX.fullmatch(part) or above in _PARENTS:
            return part[:12] if _HEX.fullmatch(part) else part
    return ""


def _unescape(name: str) -> str:
    """Undo the escapes of a unit's name (systemd-escape(1))."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)
