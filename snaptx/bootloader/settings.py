"""GRUB's menu and terminal as /etc/default/grub has them, for a menu that grub-mkconfig does not make.

Pure: variables in, text out.  The names are those of grub-mkconfig (GRUB manual,
"Simple configuration").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from snaptx.bootloader.quoting import quote

NAME = "settings.cfg"
_WORDS = re.compile(r"[\w.:,=-]+")
_LINUX = re.compile(r"(?m)^\s*linux\w*\s.*$")
"""A line that loads a kernel: linux, linux16, linuxefi."""


class Ways(NamedTuple):
    """The ways to boot that the menu has besides the generations; what is "" is left out.

    ``original`` is the distribution's grub.cfg as GRUB finds it; ``adopted`` and ``adopted_words`` are,
    where that one can't be used, the root it booted as GRUB finds it and what its kernel is told;
    ``rescue`` is what the kernel is told to find a root that GRUB can't see.
    """

    original: str = ""
    adopted: str = ""
    adopted_words: str = ""
    rescue: str = ""


NO_WAYS = Ways()


def names_roots(config: str) -> bool:
    """Return whether a grub.cfg tells every kernel the subvolume or dataset of its root.

    One that does not boots the default subvolume, whatever the kernel comes from.
    """
    lines = [line for line in _LINUX.findall(config) if "root=" in line]
    return all("subvol=" in line or "root=ZFS=" in line for line in lines)


def render(values: Mapping[str, str], ways: Ways = NO_WAYS) -> str:
    """Return the settings file for the variables of an /etc/default/grub."""
    lines = ["# From /etc/default/grub, by snaptx init.", *_menu(values), *_ways(ways)]
    return "\n".join(lines) + "\n"


def _menu(values: Mapping[str, str]) -> Iterator[str]:
    timeout = values.get("GRUB_TIMEOUT", "")
    if re.fullmatch(r"-?\d+", timeout):
        yield f"set timeout={timeout}"
    if values.get("GRUB_TIMEOUT_STYLE") in ("menu", "hidden", "countdown"):
        yield f"set timeout_style={values['GRUB_TIMEOUT_STYLE']}"
    if serial := _safe(values.get("GRUB_SERIAL_COMMAND", "")):
        yield serial
    terminal = values.get("GRUB_TERMINAL", "")
    for kind in ("input", "output"):
        if names := _safe(values.get(f"GRUB_TERMINAL_{kind.upper()}", terminal)):
            yield f"terminal_{kind} {names}"


def _ways(ways: Ways) -> Iterator[str]:
    if ways.original:
        yield f"set snaptx_original={quote(ways.original)}"
    # What a submenu uses has to be exported.
    for name in ("adopted", "adopted_words", "rescue"):
        if value := getattr(ways, name):
            yield f"set snaptx_{name}={quote(value)}"
            yield f"export snaptx_{name}"


def _safe(text: str) -> str:
    """Return the words of a command if none of them means anything to GRUB's shell, else ""."""
    words = text.split()
    return " ".join(words) if all(map(_WORDS.fullmatch, words)) else ""
