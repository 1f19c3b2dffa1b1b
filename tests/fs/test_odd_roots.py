"""Roots with names that no kernel can be told, places that are no roots: refused before anything is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boxes import Box, changes, snaptx
from tests.fs.conftest import command


@contextmanager
def mounted(box: Box, name: str) -> Iterator[Path]:
    """Mount a copy of the root, called ``name`` and found by its number, as the default subvolume is."""
    copy, place = box.top / name, box.sandbox.directory / "other"
    copy.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir()
    command("btrfs", "subvolume", "snapshot", box.root, copy)
    number = command("btrfs", "inspect-internal", "rootid", copy).strip()
    device = command("findmnt", "-no", "SOURCE", box.top).strip()
    command("mount", "-o", f"subvolid={number}", device, place)
    try:
        yield place
    finally:
        command("umount", place)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my root", "blank"),
        ("os/my\troot", "blank"),
        ("root,old", "comma"),
        ('the"root"', "quotation mark"),
        ("@snaptx", "snaptx's own"),
        ("@snaptx/generations/7/root", "snaptx's own"),
    ],
)
def test_a_name_that_no_kernel_can_be_told_is_refused(adoptable: Box, name: str, why: str) -> None:
    with mounted(adoptable, name) as place:
        before = adoptable.facts()
        for words in (("init",), ("init", "--dry-run")):
            said = snaptx("--sysroot", str(place), *words)
            assert said.code == 55
            assert why in said.complaint[0]
        assert changes(before, adoptable.facts()) == {}


@pytest.mark.parametrize("name", ["7", "..x", "würzel", "a'b", "os/debian_12/@"])
def test_other_odd_names_are_as_good_as_any(adoptable: Box, name: str) -> None:
    with mounted(adoptable, name) as place:
        said = snaptx("--sysroot", str(place), "init")
        assert (said.code, said.err) == (0, "")
        assert f"subvol={name}" in adoptable.boot().entries[0].cmdline.replace("'\"'\"'", "'")


def test_a_directory_of_a_subvolume_is_no_root(adoptable: Box) -> None:
    inner, place = adoptable.root / "var/chroot", adoptable.sandbox.directory / "other"
    inner.parent.mkdir(exist_ok=True)
    command("cp", "-a", adoptable.root, adoptable.sandbox.directory / "copy")
    command("mv", adoptable.sandbox.directory / "copy", inner)
    place.mkdir()
    command("mount", "--bind", inner, place)
    try:
        for words in (("init",), ("init", "--dry-run")):
            said = snaptx("--sysroot", str(place), *words)
            assert said.code == 55
            assert "not a subvolume" in said.complaint[0]
    finally:
        command("umount", place)
