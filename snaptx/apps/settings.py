"""What the administrator says of an application: ``/etc/snaptx/apps/NAME.conf``, TOML.

The commands run inside the tree, the check in the machine, where the
application is to be reached.  Without a command and a unit nothing is started:
the tree is versioned, and that is all.
"""

from __future__ import annotations

import re
import signal
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from snaptx import config
from snaptx.errors import ConfigError, UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class CheckAt(StrEnum):
    """Where a check meets a new instance first: where everybody asks, or where nobody else does."""

    PUBLIC = "public"
    PRIVATE = "private"


class Settings(NamedTuple):
    """How an application is started, checked and stopped; times in seconds.

    ``listen`` are addresses (``HOST:PORT``, or a path for a Unix socket) handed
    to it as open sockets (sd_listen_fds(3)), in which accept(2) waits for nobody
    if they are ``nonblocking``; ``socket_mode`` are the rights to a path's.
    ``unit`` is a template of systemd such as ``web@``, whose instances are named
    by the generation.  ``wait`` is how long one attempt of ``check`` may take,
    ``timeout`` all of them.
    """

    start: tuple[str, ...] = ()
    unit: str = ""
    listen: tuple[str, ...] = ()
    nonblocking: bool = False
    socket_mode: int = 0o666
    check: tuple[str, ...] = ()
    check_at: CheckAt = CheckAt.PUBLIC
    stop: str = "TERM"
    timeout: int = 30
    wait: int = 2
    drain: int = 30


def is_name(name: str) -> bool:
    """Return whether an application may be called so."""
    return bool(_NAME.fullmatch(name))


def require_name(name: str) -> str:
    """Return ``name`` if an application may be called so.

    Raises:
        UsageError: it may not.
    """
    if not is_name(name):
        hint = "small letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
        raise UsageError(f"{name!r} is no name for an application", hint=hint)
    return name


def load(sysroot: Path, name: str) -> Settings:
    """Return the settings of an application, the defaults if it has no file.

    Raises:
        ConfigError: the file can't be read, or says something impossible.
    """
    path = sysroot / "etc/snaptx/apps" / f"{name}.conf"
    if not config.is_there(path):
        return Settings()
    found: Settings = config.merge_section(Settings(), config.parse(path), str(path))
    if found.start and found.unit:
        raise ConfigError(f"{path}: start and unit contradict each other", hint="leave one of them out")
    if found.unit and not found.unit.endswith("@"):
        raise ConfigError(f"{path}: {found.unit!r} is no template", hint="as in: unit = 'web@'")
    if found.check_at is CheckAt.PRIVATE and not (found.start and found.listen):
        hint = "a private address takes the place of those in listen"
        raise ConfigError(f"{path}: check_at = 'private' needs start and listen", hint=hint)
    if found.socket_mode > 0o777:
        raise ConfigError(f"{path}: socket_mode is no file mode", hint="as in: socket_mode = 0o660")
    if found.stop not in _signals():
        raise ConfigError(f"{path}: {found.stop!r} is no signal", hint="as in: stop = 'QUIT'")
    return found


def _signals() -> set[str]:
    return {number.name.removeprefix("SIG") for number in signal.Signals}
