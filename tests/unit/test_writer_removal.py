"""Whiteouts and opaque directories: the base goes, what the payload wrote stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx.model import Counts, Member
from snaptx.system import descriptor
from tests.payloads import (
    THEN,
    Ground,
    directory,
    existing,
    file,
    opaque,
    rows,
    small_base,
    whiteout,
)
from tests.payloads import (
    lay_checked as lay,
)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return small_base(tmp_path)


@pytest.mark.parametrize("path", ["etc", "etc/conf.d", "etc/one", "lib", "etc/link"])
def test_whiteout(ground: Ground, path: str) -> None:
    ground.start()
    gone = [row for row in rows(ground.root) if row == path.encode() or row.startswith(path.encode() + b"/")]
    counts = lay(ground, whiteout(path))

    assert not os.path.lexists(ground.root / path)
    assert ground.read("usr/lib/a") == b"a\n"
    assert counts == Counts(removed=len(gone))


@pytest.mark.parametrize("path", ["missing", "missing/below", "etc/one-not"])
def test_whiteout_of_something_missing_is_ignored(ground: Ground, path: str) -> None:
    assert lay(ground, whiteout(path), opaque(path)) == Counts()


def test_whiteout_through_a_symlink_of_the_base(ground: Ground) -> None:
    lay(ground, whiteout("lib/a"))

    assert not (ground.root / "usr/lib/a").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_spares_what_the_payload_wrote(ground: Ground, order: int) -> None:
    members = [file("etc/conf.d/new", b"n"), existing(ground.base, "etc/one"), whiteout("etc")]
    lay(ground, *members[::order])

    assert sorted(os.listdir(ground.root / "etc")) == ["conf.d", "one"]
    assert os.listdir(ground.root / "etc/conf.d") == ["new"]
    assert ground.read("etc/one") == b"one\n"


@pytest.mark.parametrize("order", [1, -1])
def test_opaque_spares_what_the_payload_wrote(ground: Ground, order: int) -> None:
    members = [
        directory("etc"),
        file("etc/conf.d/new", b"n"),
        existing(ground.base, "etc/one"),
        opaque("etc"),
    ]
    lay(ground, *members[::order])

    assert sorted(os.listdir(ground.root / "etc")) == ["conf.d", "one"]
    assert os.listdir(ground.root / "etc/conf.d") == ["new"]
    assert (ground.root / "etc").stat().st_mtime_ns == THEN


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("removed", [whiteout("etc"), opaque("etc")])
def test_empty_directory_of_the_payload_stays(ground: Ground, removed: Member, order: int) -> None:
    lay(ground, *[directory("etc/conf.d"), removed][::order])

    assert os.listdir(ground.root / "etc") == ["conf.d"]
    assert os.listdir(ground.root / "etc/conf.d") == []


def test_symlink_that_was_in_use_and_is_removed(ground: Ground) -> None:
    lay(ground, file("lib/before"), whiteout("lib"), file("lib/after"))

    assert sorted(os.listdir(ground.root / "lib")) == ["after"]
    assert (ground.root / "usr/lib/before").exists()


def test_opaque_root_leaves_the_payload_only(ground: Ground) -> None:
    lay(ground, opaque(""), file("only/this"))

    assert sorted(rows(ground.root)) == [b"", b"only", b"only/this"]


def test_removed_and_written_again_counts_as_changed(ground: Ground) -> None:
    counts = lay(
        ground,
        whiteout("etc/conf.d"),
        file("etc/conf.d", b"a file now"),
        whiteout("etc/one"),
        file("etc/one"),
    )

    assert ground.read("etc/conf.d") == b"a file now"
    assert (counts.added, counts.changed, counts.removed) == (0, 2, 1)


@pytest.mark.parametrize("removed", [whiteout("etc"), whiteout("etc/one"), opaque("etc")])
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_removed_and_written_again_with_the_base_s_content(
    ground: Ground, removed: Member, mode: int
) -> None:
    asked = existing(ground.base, "etc/one")._replace(mode=mode)
    counts = lay(ground, removed, asked)

    assert ground.read("etc/one") == b"one\n"
    assert (counts.changed >= 1, counts.unchanged) == (True, 0)


def test_whiteout_makes_room_for_a_directory(ground: Ground) -> None:
    lay(ground, whiteout("etc/one"), directory("etc/one"), file("etc/one/f", b"1"))

    assert ground.read("etc/one/f") == b"1"


def test_deep_tree_is_removed_without_recursion(ground: Ground) -> None:
    ground.start()
    with descriptor(ground.root, os.O_RDONLY) as fd:
        for depth in range(1100):
            os.mkdir("deep" + "/d" * depth, dir_fd=fd)

    assert ground.lay(whiteout("deep")).removed == 1100
