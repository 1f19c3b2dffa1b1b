"""Directories nested deeper than a path may be long, as any user can make them in a public place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boxes import Box, made

pytestmark = pytest.mark.root

NAME = "d" * 200


def nest(place: Path, name: str = NAME) -> None:
    """Make directories of one name, a path of 6000 characters, with a file in the last one."""
    place.mkdir(parents=True, exist_ok=True)
    fd = os.open(place, os.O_RDONLY)
    for _ in range(6000 // len(name)):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def edit(box: Box) -> None:
    """Change what has to be carried over."""
    (box.root / "etc/mine").write_text("mine\n")


@pytest.mark.parametrize("name", [NAME, "d" * 20])
def test_in_an_ignored_place_they_hinder_no_apply(box: Box, payload: str, name: str) -> None:
    nest(box.root / "tmp", name)
    edit(box)

    box.ok("apply", payload)
    box.ok("commit")

    assert (box.tree(2) / "etc/mine").read_text() == "mine\n"
    box.ok("verify", "2")


def test_in_an_ignored_place_they_hinder_no_commit(box: Box, payload: str) -> None:
    box.ok("apply", payload)
    nest(box.root / "tmp")
    edit(box)

    box.ok("commit")

    assert (box.tree(2) / "etc/mine").read_text() == "mine\n"
    assert not os.listdir(box.tree(2) / "tmp")


def test_moved_within_an_ignored_place_they_hinder_no_commit(box: Box, payload: str) -> None:
    nest(box.root / "tmp")
    box.ok("apply", payload)
    (box.root / "tmp" / NAME).rename(box.root / "tmp/moved")

    box.ok("commit")


def test_moved_out_of_an_ignored_place_they_are_named(box: Box, payload: str) -> None:
    nest(box.root / "tmp")
    box.ok("apply", payload)
    (box.root / "tmp" / NAME).rename(box.root / "opt")

    said = box.run("commit")

    assert said.code == 50
    assert said.complaint[0].startswith(f"/opt/{NAME}/")
    assert box.marks() == {1: "NRG", 2: "s"}


def test_in_an_ignored_place_they_hinder_no_first_boot(box: Box, payload: str) -> None:
    box.ok("apply", "--commit", payload)
    nest(box.root / "tmp")
    edit(box)
    box.reboot()

    box.ok("repair", "--boot")

    assert (box.root / "etc/mine").read_text() == "mine\n"


def test_in_an_ignored_place_they_hinder_nobody_from_the_first(payload: str) -> None:
    with made(init=False) as box:
        nest(box.root / "tmp")
        box.ok("init")
        box.ok("verify", "1")
        (box.state / "manifests/1.sqlite").unlink()
        box.ok("repair")
        box.ok("apply", "--commit", payload)


def test_elsewhere_the_first_too_long_is_named(box: Box, payload: str) -> None:
    nest(box.root / "opt/deep")

    said = box.run("apply", payload)

    assert said.code == 50
    assert said.complaint[0].startswith(f"/opt/deep/{NAME}/")
    assert "longer than 4095 bytes" in said.complaint[0]
    assert "[staging]" in said.complaint[1]
    assert box.marks() == {1: "NRG"}
    box.configure('[staging]\nignore = ["/opt"]\n')
    box.ok("apply", "--commit", payload)
