"""Who may do what at the menu: as the distribution's own grub.cfg has it.

A menu that does not ask for the password that the other one asks for hands the
machine out; one that asks where the other does not would not come up by itself.
The commands are those of GRUB's manual, "Authentication and authorisation in
GRUB".  Pure: text in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from snaptx.bootloader.quoting import quote

USER = "user.cfg"
"""Beside grub.cfg, where Fedora's grub2-setpassword keeps the digest of root's password."""

_WORD = r"""("[^"$]*"|'[^']*'|[^\s"'$]+)"""
"""One that means itself: what a variable holds is not known before GRUB runs."""
_SUPERUSERS = re.compile(rf"(?m)^\s*set\s+superusers={_WORD}")
_PASSWORD = re.compile(rf"(?m)^\s*(password|password_pbkdf2)\s+{_WORD}\s+{_WORD}\s*$")
_FEDORA = re.compile(r"(?m)^GRUB2_PASSWORD=(grub\.pbkdf2\.\S+)\s*$")
_BY_FEDORA = "GRUB2_PASSWORD"
"""In a grub.cfg that asks for the password of user.cfg if there is one."""
_OPEN = re.compile(r"(?m)^\s*(menuentry\s.*--unrestricted\b|blscfg\b)")
"""An entry that anybody may boot; those of Fedora, which are not in grub.cfg, are such."""


def render(config: str, user: str) -> str:
    """Return the lines of what a grub.cfg and a user.cfg say of users, "" if nothing does."""
    lines = [*(_of_fedora(user) if _BY_FEDORA in config else _given(config))]
    if lines and not _OPEN.search(config):
        lines.append("set snaptx_access=")
    return "".join(f"{line}\n" for line in lines)


def _given(config: str) -> Iterator[str]:
    found = _SUPERUSERS.findall(config)
    if not found:
        return
    yield from _superusers(found[-1].strip("\"'"))
    for command, *words in _PASSWORD.findall(config):
        yield " ".join((command, *(quote(word.strip("\"'")) for word in words)))


def _of_fedora(user: str) -> Iterator[str]:
    if digest := _FEDORA.search(user):
        yield from _superusers("root")
        yield f"password_pbkdf2 'root' {quote(digest[1])}"


def _superusers(names: str) -> Iterator[str]:
    yield f"set superusers={quote(names)}"
    yield "export superusers"
