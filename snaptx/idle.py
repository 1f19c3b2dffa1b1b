"""A package manager's hook that has nothing to do, told before anything is loaded.

Most machines' package managers call their hooks where nobody wants a
generation, and people wait for them.  So this needs nothing but what Python
itself has loaded at its start.  What takes a closer look is left to
``snaptx.cli.hook``, which follows the same rules.
"""

from __future__ import annotations

import os

MARK = "/run/snaptx/stand-in"
"""What is there in an enclosure, and nowhere else."""

MOUNTS = "/proc/self/mountinfo"

_OPTIONS = ("--manager", "--caller")
_MOMENTS = ("before", "after")
_ABLE = ("btrfs", "zfs")
"""The filesystems that hold generations."""


def is_idle_hook(words: list[str]) -> bool:
    """Return whether these words call a hook that surely has nothing to do."""
    sysroot, rest = (words[1], words[2:]) if words[:1] == ["--sysroot"] and words[1:] else ("/", words)
    if not _calls_hook(rest):
        return False
    if os.path.lexists(MARK):
        return True
    mode = _mode(sysroot)
    return mode == "off" or (mode == "snapshot" and _filesystem(sysroot) not in ("", *_ABLE))


def _calls_hook(words: list[str]) -> bool:
    """Return whether this is a call as the hooks make it, and no other."""
    if words[:1] != ["hook"] or sum(word in _MOMENTS for word in words) != 1:
        return False
    rest = [word for word in words[1:] if word not in _MOMENTS]
    return len(rest) % 2 == 0 and all(word in _OPTIONS for word in rest[::2])


def _mode(sysroot: str) -> str:
    """Return the mode that is configured, "" if that takes a closer look."""
    mode = "snapshot"
    try:
        for text in _texts(sysroot):
            if "hooks" in text:
                mode = _mode_in(text, mode)
    except (OSError, ValueError):
        return ""
    return mode


def _mode_in(text: str, before: str) -> str:
    import tomllib

    table = tomllib.loads(text).get("hooks")
    mode = table.get("mode", before) if isinstance(table, dict) else ""
    return mode if isinstance(mode, str) else ""


def _texts(sysroot: str) -> list[str]:
    """Return the configuration files that exist, in reading order (snaptx.conf(5))."""
    etc = os.path.join(sysroot, "etc/snaptx")
    more = os.path.join(etc, "snaptx.conf.d")
    names = sorted(os.listdir(more)) if os.path.isdir(more) else []
    paths = [os.path.join(sysroot, "usr/lib/snaptx/snaptx.conf"), os.path.join(etc, "snaptx.conf")]
    paths += [os.path.join(more, name) for name in names if name.endswith(".conf")]
    return [_read(path) for path in paths if os.path.isfile(path)]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _filesystem(sysroot: str) -> str:
    """Return the type of the filesystem that is mounted at ``sysroot``, "" if that can't be told."""
    target, found = os.path.realpath(sysroot), ""
    try:
        with open(MOUNTS, "rb") as file:
            lines = os.fsdecode(file.read()).split("\n")
    except OSError:
        return ""
    for line in filter(None, lines):
        mount, _, about = line.partition(" - ")
        if mount.split(" ")[4] == target:
            found = about.split()[0]
    return found
