"""Which package manager is a tree's own: a pure rule."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping

from snaptx.config import ManagerName
from snaptx.errors import PackageError
from snaptx.packages.apt import Apt
from snaptx.packages.base import Manager
from snaptx.packages.dnf import Dnf
from snaptx.packages.pacman import Pacman
from snaptx.packages.zypper import Zypper

MANAGERS: Mapping[str, Manager] = {manager.name: manager for manager in (Apt(), Dnf(), Pacman(), Zypper())}
"""Every package manager, by name."""

_CONFIGURE = "set manager in [packages] of snaptx.conf"


def parse_release(text: str) -> Mapping[str, str]:
    """Return the assignments of an os-release(5) file; what is none is left out."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): _unquoted(value) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip()


def choose(release: Mapping[str, str], present: Collection[str], wanted: ManagerName) -> Manager:
    """Return the manager: the configured one, else the distribution's, else the only one that is there.

    ``release`` is what os-release says, ``present`` the names of those whose program is there.

    Raises:
        PackageError: there is none, or several and nothing says which.
    """
    if wanted is not ManagerName.AUTO:
        if wanted not in present:
            raise PackageError(f"{wanted} is configured, but is not there", hint=_CONFIGURE)
        return MANAGERS[wanted]
    families = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    own = [name for name in sorted(present) if MANAGERS[name].releases & families]
    for names in (own, sorted(present)):
        if len(names) == 1:
            return MANAGERS[names[0]]
    if not present:
        hint = f"snaptx knows {', '.join(MANAGERS)}; 'snaptx run' takes any command"
        raise PackageError("no package manager was found", hint=hint)
    raise PackageError(f"several package managers were found: {', '.join(sorted(present))}", hint=_CONFIGURE)
