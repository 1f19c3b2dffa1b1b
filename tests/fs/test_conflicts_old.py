"""``--conflicts=old``: the running root's version wins, and the manifest knows all that came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boxes import Box


@pytest.fixture
def update(tmp_path: Path) -> Path:
    """Give an update that is still empty."""
    (tmp_path / "update/etc").mkdir(parents=True)
    return tmp_path / "update"


def _is_committed(box: Box, number: int = 2) -> None:
    box.ok("commit", "--conflicts=old")
    assert box.boot().default == number
    assert box.json("verify", str(number))["problems"] == []


def test_a_file_takes_the_place_of_the_updates_directory(box: Box, update: Path) -> None:
    (update / "etc/x").mkdir()
    (update / "etc/x/child").write_text("the update's")
    box.ok("apply", str(update))
    (box.root / "etc/x").write_text("mine")

    _is_committed(box)
    assert (box.tree(2) / "etc/x").read_text() == "mine"


def test_a_link_takes_the_place_of_a_directory_with_files_of_the_update(box: Box, update: Path) -> None:
    (box.root / "etc/dir").mkdir()
    (update / "etc/dir").mkdir()
    (update / "etc/dir/new").write_text("the update's")
    box.ok("apply", str(update))
    (box.root / "etc/dir").rename(box.root / "var/dir")
    (box.root / "etc/dir").symlink_to("../var/dir")

    _is_committed(box)
    assert os.readlink(box.tree(2) / "etc/dir") == "../var/dir"


def test_what_lies_in_directories_that_the_update_removed_brings_them_along(box: Box, update: Path) -> None:
    (box.root / "etc/d/e").mkdir(parents=True)
    (box.root / "etc/d/e/f").write_text("as found")
    (update / "etc/.wh.d").touch()
    box.ok("apply", str(update))
    (box.root / "etc/d/e/f").write_text("mine")

    _is_committed(box)
    assert (box.tree(2) / "etc/d/e/f").read_text() == "mine"


def _file(path: Path) -> None:
    path.write_text("a file")


def _link(path: Path) -> None:
    path.symlink_to("../tmp")


@pytest.fixture(params=[_file, _link])
def replaced(box: Box, update: Path, request: pytest.FixtureRequest) -> Box:
    """Give a box in which the staged update has something else where the directory /etc/d was."""
    make: Callable[[Path], None] = request.param
    (box.root / "etc/d").mkdir()
    (box.root / "etc/d/f").write_text("as found")
    (update / "etc/.wh.d").touch()
    box.ok("apply", str(update))
    (update / "etc/.wh.d").unlink()
    make(update / "etc/d")
    box.ok("apply", str(update))
    return box


def test_what_lies_in_a_directory_that_the_update_replaced_is_refused(replaced: Box) -> None:
    (replaced.root / "etc/d/f").write_text("mine")
    for words in (("commit",), ("commit", "--dry-run")):
        said = replaced.refuses(41, *words, "--conflicts=old")
        assert "/etc/d/f was changed" in said
        assert "the directory /etc/d by" in said

    replaced.ok("commit", "--conflicts=new")


def test_what_was_removed_there_is_gone_already(replaced: Box) -> None:
    (replaced.root / "etc/d/f").unlink()
    there = replaced.tree(3) / "etc/d"

    _is_committed(replaced, 3)
    assert there.is_symlink() or there.is_file()


def test_a_directory_that_was_changed_itself_comes_back(replaced: Box) -> None:
    (replaced.root / "etc/d").chmod(0o700)
    (replaced.root / "etc/d/f").write_text("mine")

    _is_committed(replaced, 3)
    assert (replaced.tree(3) / "etc/d/f").read_text() == "mine"


def test_a_directory_that_was_removed_is_removed(replaced: Box) -> None:
    shutil.rmtree(replaced.root / "etc/d")

    _is_committed(replaced, 3)
    assert not os.path.lexists(replaced.tree(3) / "etc/d")
