"""What ``chattr`` sets stops nobody from carrying a change over, and goes along."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.boxes import Box
from tests.fs.conftest import command, shared_bytes


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give a small update."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("hello\n")
    return str(tmp_path / "update")


def _flags(path: Path) -> set[str]:
    return set(command("lsattr", "-d", path).split()[0]) & set("aciC")


def _change(path: Path, text: str) -> None:
    """Write to a file that may not be changed, as an administrator does."""
    command("chattr", "-ia", path)
    path.write_text(text)
    command("chattr", "+i", path)


def _set(path: Path, flags: str, text: str = "1\n") -> Path:
    path.write_text(text)
    command("chattr", flags, path)
    return path


def _sound(box: Box) -> None:
    assert box.json("verify", "2")["problems"] == []


def test_what_must_not_be_changed_goes_along(box: Box, update: str) -> None:
    for name, flag in (("resolv", "+i"), ("log", "+a"), ("was", "+i")):
        _set(box.root / "etc" / name, flag)
    box.ok("apply", update)
    _change(box.root / "etc/resolv", "2\n")
    with (box.root / "etc/log").open("a") as log:
        log.write("2\n")
    command("chattr", "-i", box.root / "etc/was")
    (box.root / "etc/was").write_text("2\n")

    assert box.json("commit")["carried"] == ["etc/log", "etc/resolv", "etc/was"]
    new = box.tree(2) / "etc"
    assert [(new / name).read_text() for name in ("log", "resolv", "was")] == ["1\n2\n", "2\n", "2\n"]
    assert [_flags(new / name) for name in ("log", "resolv", "was")] == [{"a"}, {"i"}, set()]
    _sound(box)


def test_a_directory_that_must_not_be_changed_gets_what_was_added(box: Box, update: str) -> None:
    place = box.root / "etc/d"
    place.mkdir()
    (place / "gone").touch()
    command("chattr", "+i", place)
    box.ok("apply", update)
    command("chattr", "-i", place)
    (place / "new").write_text("new")
    (place / "gone").unlink()
    place.chmod(0o710)
    command("chattr", "+i", place)

    box.ok("commit")
    new = box.tree(2) / "etc/d"
    assert (os.listdir(new), new.stat().st_mode & 0o777, _flags(new)) == (["new"], 0o710, {"i"})
    _sound(box)


def test_what_must_not_be_changed_and_was_removed_is_removed(box: Box, update: str) -> None:
    (box.root / "etc/d/deep").mkdir(parents=True)
    _set(box.root / "etc/d/deep/file", "+i")
    command("chattr", "+i", box.root / "etc/d/deep", box.root / "etc/d")
    box.ok("apply", update)
    command("chattr", "-R", "-i", box.root / "etc/d")
    command("rm", "-r", box.root / "etc/d")

    box.ok("commit")
    assert not (box.tree(2) / "etc/d").exists()
    _sound(box)


def test_a_directory_gives_way_to_a_file_whatever_is_in_it(box: Box, update: str) -> None:
    (box.root / "etc/d").mkdir()
    (Path(update) / "etc/d").mkdir()
    (Path(update) / "etc/d/brought").touch()
    box.ok("apply", update)
    command("chattr", "+i", box.tree(2) / "etc/d/brought", box.tree(2) / "etc/d")
    (box.root / "etc/d").rmdir()
    (box.root / "etc/d").write_text("a file")

    box.ok("commit", "--conflicts=old")
    assert (box.tree(2) / "etc/d").read_text() == "a file"
    _sound(box)


def test_a_late_change_of_such_a_file_is_brought_with_the_others(box: Box, update: str) -> None:
    _set(box.root / "etc/history", "+a")
    (box.root / "etc/other").write_text("1\n")
    box.ok("apply", "--commit", update)
    with (box.root / "etc/history").open("a") as log:
        log.write("2\n")
    (box.root / "etc/other").write_text("2\n")
    box.reboot()

    assert box.json("repair", "--boot")["late"]["carried"] == ["etc/history", "etc/other"]
    assert ((box.root / "etc/history").read_text(), _flags(box.root / "etc/history")) == ("1\n2\n", {"a"})
    assert (box.root / "etc/other").read_text() == "2\n"


def test_flags_alone_are_a_change_that_is_carried_over(box: Box, update: str) -> None:
    for name, flag in (("set", "-i"), ("taken", "+i"), ("kept", "+i"), ("other", "-i")):
        _set(box.root / "etc" / name, flag)
    (box.root / "etc/d").mkdir()
    box.ok("apply", update)
    command("chattr", "+i", box.root / "etc/set", box.root / "etc/d")
    command("chattr", "-i", box.root / "etc/taken")
    command("chattr", "+m", box.root / "etc/other")  # of how it is stored, nothing is said

    assert box.json("commit")["carried"] == ["etc/d", "etc/set", "etc/taken"]
    new = box.tree(2) / "etc"
    found = [_flags(new / name) for name in ("set", "d", "taken", "kept")]
    assert found == [{"i"}, {"i"}, set(), {"i"}]
    assert (new / "set").read_text() == "1\n"
    _sound(box)


def test_flags_that_were_set_late_are_brought_over(box: Box, update: str) -> None:
    _set(box.root / "etc/late", "-i")
    box.ok("apply", "--commit", update)
    command("chattr", "+i", box.root / "etc/late")
    box.reboot()

    assert box.json("repair", "--boot")["late"]["carried"] == ["etc/late"]
    assert _flags(box.root / "etc/late") == {"i"}


def test_what_the_update_has_changed_too_is_a_conflict(box: Box, update: str) -> None:
    _set(box.root / "etc/motd", "-i")
    box.ok("apply", update)
    command("chattr", "+i", box.root / "etc/motd")

    assert "etc/motd" in box.refuses(41, "commit")
    box.ok("commit", "--conflicts=new")
    assert (box.tree(2) / "etc/motd").read_text() == "hello\n"


def _refused(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_can_not_be_replaced_keeps_its_flags(box: Box, update: str) -> None:
    (box.root / "etc/d").mkdir()
    _set(box.root / "etc/d/file", "+i")
    command("chattr", "+a", box.root / "etc/d")
    box.ok("apply", "--commit", update)
    command("chattr", "-a", box.root / "etc/d")
    _change(box.root / "etc/d/file", "2\n")
    command("chattr", "+a", box.root / "etc/d")
    box.reboot()
    said = box.start("repair", "--boot", before=lambda: setattr(os, "rename", _refused)).wait()

    assert said.complaint[0].startswith("cannot carry over /etc/d/file: ")
    assert (_flags(box.root / "etc/d"), _flags(box.root / "etc/d/file")) == ({"a"}, {"i"})
    assert os.listdir(box.root / "etc/d") == ["file"]


@pytest.mark.parametrize(("directory", "file"), [("+C", "-C"), ("-C", "+C"), ("+c", "+C"), ("+C", "+C")])
def test_a_file_is_as_it_was_about_copying_on_write_and_shares_its_blocks(
    box: Box, update: str, directory: str, file: str
) -> None:
    box.ok("apply", update)
    place = box.root / "srv/data"
    place.mkdir(parents=True)
    (place / "base").touch()
    command("chattr", file, place / "base")
    (place / "base").write_bytes(os.urandom(1 << 20))
    command("chattr", directory, place)

    box.ok("commit")
    new = box.tree(2) / "srv/data"
    assert (_flags(new / "base"), _flags(new)) == (_flags(place / "base"), _flags(place))
    assert shared_bytes(new / "base") == 1 << 20
    _sound(box)


@pytest.mark.parametrize("flag", ["+i", "+a"])
def test_a_root_that_may_not_be_changed_can_be_let_go(box: Box, update: str, flag: str) -> None:
    command("chattr", flag, box.root)
    box.ok("hook", "before", "--manager", "apt", "--caller", str(os.getpid()))
    box.ok("prune", "--keep", "1")
    box.ok("hook", "before", "--manager", "apt", "--caller", str(os.getpid()))
    box.ok("hook", "after", "--manager", "apt", "--caller", str(os.getpid()))
    box.ok("apply", update)
    box.ok("abort")

    assert list(box.marks()) == [1]
    assert _flags(box.root) == {flag[1]}
    assert box.audit()[-1]["result"] == "done"
