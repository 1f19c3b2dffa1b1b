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
    """
    for name in ("SUDO_UID", "PKEXEC_UID"):
        number = environment.get(name, "")
        if number.isascii() and number.isdigit():
            return _numbered(int(number), environment.get("SUDO_GID", "")) if int(number) else None
    name = environment.get("DOAS_USER", "")
    return named(name) if name not in ("", "root") else None


def named(name: str) -> Caller:
    """Return the user of a name, or of a number.

    Raises:
        UsageError: there is none.
    """
    try:
        return _known(pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name))
    except KeyError as error:
        raise UsageError(f"there is no user {name}", hint="'getent passwd' lists them") from error


def _numbered(uid: int, gid: str) -> Caller:
    """Return the user of a number, who may be in no database."""
    try:
        return _known(pwd.getpwuid(uid))
    except KeyError:
        group = int(gid) if gid.isascii() and gid.isdigit() else uid
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
