"""Who is behind root: the user that sudo, run0, doas or pkexec was started by.

They say so in the environment, which is believed of root alone, and only ever
takes rights away.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import NamedTuple

from snaptx.errors import UsageError

_TRACES = ("DOAS_USER", "PKEXEC_UID")

_NOBODYS = (1 << 32) - 1
"""What the kernel takes for "leave it as it is", where a user's or a group's number is expected."""


class Caller(NamedTuple):
    """A user with everything that makes a process theirs."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def behind(environment: Mapping[str, str]) -> Caller | None:
    """Return who became root to start this, None where root itself did.

    sudo(8) and run0(1) set SUDO_UID and SUDO_GID, pkexec(1) PKEXEC_UID, doas(1) DOAS_USER.

    Raises:
        UsageError: they name a number that nobody can have, or a user that does not exist.
    """
    for name in ("SUDO_UID", "PKEXEC_UID"):
        uid = _number(environment, name)
        if uid is not None:
            return _numbered(uid, _number(environment, "SUDO_GID")) if uid else None
    name = environment.get("DOAS_USER", "")
    return named(name) if name not in ("", "root") else None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Return the number that a variable holds, None if it holds none."""
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit()):
        return None
    if not _is_possible(text):
        hint = "'--user' names for whom to run it"
        raise UsageError(f"{name} is no number that a user or a group can have", hint=hint)
    return int(text)


def _is_possible(digits: str) -> bool:
    return len(digits) <= len(str(_NOBODYS)) and int(digits) < _NOBODYS


def named(name: str) -> Caller:
    """Return the user of a name, or of a number.

    Raises:
        UsageError: there is none.
    """
    try:
        if not (name.isascii() and name.isdigit()):
            return _known(pwd.getpwnam(name))
        if _is_possible(name):
            return _known(pwd.getpwuid(int(name)))
    except KeyError:
        pass
    raise UsageError(f"there is no user {name[:40]}", hint="'getent passwd' lists them")


def _numbered(uid: int, gid: int | None) -> Caller:
    """Return the user of a number, who may be in no database."""
    try:
        return _known(pwd.getpwuid(uid))
    except KeyError:
        group = uid if gid is None else gid
        return Caller(uid, group, (group,), str(uid), "/", "/bin/sh")


def _known(entry: pwd.struct_passwd) -> Caller:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    home, shell = entry.pw_dir or "/", entry.pw_shell or "/bin/sh"
    return Caller(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, home, shell)


def environment_of(caller: Caller | None, outside: Mapping[str, str]) -> dict[str, str]:
    """Return ``outside`` as ``caller`` would have it: their home and name, no trace of who made them root."""
    if caller is None:
        return dict(outside)
    kept = {
        name: value for name, value in outside.items() if not name.startswith("SUDO_") and name not in _TRACES
    }
    own = {"HOME": caller.home, "USER": caller.name, "LOGNAME": caller.name, "SHELL": caller.shell}
    return kept | own


def become(caller: Caller) -> None:
    """Give up root's rights for the user's, for good.

    Raises:
        OSError: the kernel refuses.
    """
    os.setgroups(caller.groups)
    os.setresgid(caller.gid, caller.gid, caller.gid)
    os.setresuid(caller.uid, caller.uid, caller.uid)
