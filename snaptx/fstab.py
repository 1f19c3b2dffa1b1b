"""fstab(5): who is mounted where, and lines for shared subvolumes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from snaptx import system

NAME = "etc/fstab"

_ROOTS_OWN = re.compile(r"(subvol|subvolid)=.*|ro|rw|defaults|x-.*")
"""Options of the root's line that say nothing about another subvolume of its filesystem."""


class Entry(NamedTuple):
    """One line: what is mounted where, escapes undone."""

    source: str
    target: str
    fstype: str
    options: str


def read(root: Path) -> str:
    """Return the fstab of a root, "" if it has none; links are resolved as if ``root`` were /."""
    return system.read_in_root(root, NAME).decode(errors="surrogateescape")


def entries(text: str) -> Iterator[Entry]:
    """Yield the lines that mount something, in their order."""
    for line in text.split("\n"):  # lines and words end where they do for libmount
        words = re.findall(r"[^ \t]+", line.removesuffix("\r"))
        if len(words) >= 3 and not words[0].startswith("#"):
            options = words[3] if len(words) > 3 else "defaults"
            yield Entry(*(_plain(word) for word in (*words[:3], options)))


def targets(text: str) -> set[str]:
    """Return where something is mounted."""
    return {"/" + entry.target.strip("/") for entry in entries(text) if entry.target.startswith("/")}


def add(text: str, uuid: str, shared: Iterable[tuple[str, str]]) -> str:
    """Return ``text`` with a line for each (path, subvolume) it has none for.

    They follow the root's line: what is mounted below them comes later.
    """
    known = targets(text)
    options = _root_options(text)
    fresh = [
        f"UUID={uuid} {_escaped(path)} btrfs {','.join((*options, _escaped(f'subvol={name}')))} 0 0\n"
        for path, name in sorted(shared)
        if path not in known
    ]
    if not fresh:
        return text
    lines = [f"{line}\n" for line in text.removesuffix("\n").split("\n")] if text else []
    at = next((i for i, line in enumerate(lines, 1) if "/" in targets(line)), len(lines))
    return "".join((*lines[:at], *fresh, *lines[at:]))


def _root_options(text: str) -> tuple[str, ...]:
    root = [entry for entry in entries(text) if entry.target == "/" and entry.fstype == "btrfs"]
    words = root[0].options.split(",") if root else []
    return tuple(word for word in words if word and not _ROOTS_OWN.fullmatch(word)) or ("defaults",)


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _escaped(word: str) -> str:
    return re.sub(r"[ \t\n\r\\#]", lambda blank: f"\\{ord(blank[0]):03o}", word)
