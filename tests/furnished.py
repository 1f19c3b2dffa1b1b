"""A root with people's data in it, and what there is to know of that data and of its mounts."""

from __future__ import annotations

import os
import random
from pathlib import Path

import btrfsutil

from tests import specials
from tests.boxes import Box, inspect
from tests.fs.conftest import command

PLACES = ("home", "srv", "var/lib/mysql", "var/log")
NAMES = {"home": "@home", "srv": "@srv", "var/lib/mysql": "@var_lib_mysql", "var/log": "@var_log"}


def furnish(root: Path) -> None:
    """Put data into the root that nobody wants back as it was last week."""
    for name in PLACES:
        (root / name).mkdir(parents=True, exist_ok=True)
    ann = root / "home/ann"
    ann.mkdir()
    (ann / "large").write_bytes(random.Random(5).randbytes(200_000))
    rng = random.Random(4)
    for make in (specials.text, specials.binary, specials.hard_link, specials.symlink):
        make(os.fsencode(ann / make.__name__), rng)
    (ann / "named").write_text("ann's\n")
    os.setxattr(ann / "named", "system.posix_acl_access", specials.acl(1001))
    os.setxattr(ann / "named", "user.note", b"\0\xff")
    os.setxattr(ann, "user.note", b"directory")
    (ann / "run").write_text("#!/bin/sh\n")
    os.chown(ann / "run", 1000, 1001)
    (ann / "run").chmod(0o4750)
    with (ann / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    os.mkfifo(ann / "pipe")
    (root / os.fsdecode(b"home/ann/not-\xff-utf8 \n")).touch()
    os.chown(ann, 1000, 1000)
    ann.chmod(0o2750)
    (root / "srv/site").write_text("data\n")
    command("chattr", "+C", root / "var/lib/mysql")
    (root / "var/lib/mysql/ibdata").write_bytes(rng.randbytes(300_000))
    (root / "var/log/syslog").write_text("a line\n")
    command("chattr", "+a", root / "var/log/syslog")
    os.utime(ann, ns=(1, 999_999_999_999))


def data(root: Path) -> dict[str, object]:
    """Return everything there is to know of the places."""
    return {f"{name}/{path}": fact for name in PLACES for path, fact in inspect(root / name).items()}


def groups(root: Path) -> set[frozenset[str]]:
    """Return which names below /home are one file."""
    found: dict[int, set[str]] = {}
    for path in (root / "home").rglob("*"):
        found.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(root)))
    return {frozenset(names) for names in found.values() if len(names) > 1}


def mounted(box: Box) -> dict[str, str]:
    """Return the subvolume that is mounted at each place."""
    lines = command("findmnt", "--raw", "--noheadings", "--output", "TARGET,FSROOT").splitlines()
    pairs = [line.split(" ") for line in lines]
    start = f"{box.root}/"
    return {place.removeprefix(start): root.strip("/") for place, root in pairs if place.startswith(start)}


def lines(box: Box) -> list[str]:
    """Return where fstab mounts something."""
    text = (box.root / "etc/fstab").read_text()
    return [line.split()[1] for line in text.splitlines()]


def is_sound(box: Box) -> None:
    """Let the parser of mount(8) read fstab."""
    words = ("--noheadings", "--output", "TARGET", "--list")
    assert command("findmnt", "--tab-file", box.root / "etc/fstab", *words).split() == lines(box)


def subvolumes(box: Box) -> set[str]:
    """Return the subvolumes at the top level."""
    return {path for path, _ in btrfsutil.SubvolumeIterator(str(box.top), top=5) if "/" not in path}
