"""The well-known places, as tables: of data that no rollback may take back, and of the system itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """A place and what is kept there; ``blocks`` is whether its loss could not be made good."""

    path: str
    reason: str
    blocks: bool


_KNOWN = {
    "users' files": ("/home", "/root"),
    "data of services": ("/srv", "/var/www"),
    "mail": ("/var/mail", "/var/spool/mail", "/var/vmail"),
    "database": (
        "/var/lib/mysql",
        "/var/lib/postgresql",
        "/var/lib/pgsql",
        "/var/lib/mongodb",
        "/var/lib/redis",
        "/var/lib/ldap",
        "/var/lib/influxdb",
    ),
    "containers and machines": (
        "/var/lib/docker",
        "/var/lib/containerd",
        "/var/lib/containers",
        "/var/lib/lxc",
        "/var/lib/lxd",
        "/var/lib/incus",
        "/var/lib/machines",
        "/var/lib/libvirt/images",
    ),
    "logs": ("/var/log",),
    "caches": ("/var/cache",),
    "temporary files": ("/var/tmp",),
    "queues": ("/var/spool",),
}
_HARMLESS = {"logs", "caches", "temporary files", "queues"}

RULES = {
    path: Rule(path, reason, reason not in _HARMLESS) for reason, paths in _KNOWN.items() for path in paths
}
"""The well-known places."""

PATHS = tuple(RULES)

SYSTEM = (
    *("/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/share", "/etc"),
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
)
"""What has to lie in the root: of what lies elsewhere no generation has its own."""

MOVABLE = ("/home", "/root", "/srv", "/opt", "/usr/local", "/var")
"""What may lie elsewhere, and what is below it."""


def is_below(path: str, others: Iterable[str]) -> bool:
    """Return whether ``path`` is one of ``others`` or lies below one."""
    return any(path == other or path.startswith(other.rstrip("/") + "/") for other in others)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those of the paths, sorted, that lie below no other one."""
    found: list[str] = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not is_below(path, found[-1:]):
            found.append(path)
    return tuple(found)
