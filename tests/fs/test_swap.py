"""A swap file in the root: what a snapshot shares with it, the kernel never swaps to again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boxes import Box
from tests.fs.conftest import command, nested


def swap_file(box: Box, name: str) -> Path:
    """Make a file that the kernel would swap to."""
    path = box.root / name
    path.touch()
    command("chattr", "+C", path)
    command("fallocate", "-l", "1M", path)
    path.chmod(0o600)
    command("mkswap", path)
    return path


@contextmanager
def swapping(path: Path) -> Iterator[None]:
    command("swapon", path)
    try:
        yield
    finally:
        command("swapoff", path)


def in_fstab(box: Box, line: str) -> None:
    with (box.root / "etc/fstab").open("a") as fstab:
        fstab.write(line + "\n")


@pytest.mark.parametrize("words", [" none swap defaults 0 0", "\tswap\tswap\tnoauto"])
def test_one_that_is_off_is_not_made_useless(adoptable: Box, words: str) -> None:
    path = swap_file(adoptable, "swap file")
    in_fstab(adoptable, f"/swap\\040file{words}")
    for verb in (("init",), ("init", "--dry-run"), ("init", "--no-boot-loader")):
        said = adoptable.refuses(55, *verb)
        assert "/swap file" in said
        assert "subvolume" in said
    assert not adoptable.state.exists()
    with swapping(path):
        pass


def test_one_that_is_in_use_is_named_before_anything_is_made(adoptable: Box) -> None:
    with swapping(swap_file(adoptable, "swap file")):
        for words in (("init",), ("init", "--dry-run")):
            assert "/swap file" in adoptable.refuses(55, *words)
        assert not adoptable.state.exists()


def test_what_lies_elsewhere_or_is_no_file_is_no_matter(adoptable: Box) -> None:
    adoptable.configure('[staging]\nnested = "share"\n')
    nested(adoptable, "swap")
    in_fstab(adoptable, "/swap/file none swap sw 0 0")
    in_fstab(adoptable, "/gone none swap sw 0 0")
    in_fstab(adoptable, "UUID=1-2 none swap sw 0 0")
    in_fstab(adoptable, "/dev/null none swap sw 0 0")
    path = swap_file(adoptable, "swap/file")
    with swapping(path):
        adoptable.ok("init")
    with swapping(path):
        pass


def test_what_is_made_later_is_not_to_be_switched_off_only(box: Box, update: str) -> None:
    path = swap_file(box, "swapfile")
    with swapping(path):
        said = box.refuses(52, "apply", update)
        assert "a snapshot spoils it" in said
