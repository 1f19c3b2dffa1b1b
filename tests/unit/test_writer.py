"""What the writer makes of a payload, on a plain directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from snaptx.model import Counts, Kind
from tests.payloads import (
    LARGE,
    LONG_AGO,
    THEN,
    Ground,
    directory,
    existing,
    file,
    hardlink,
    member,
    small_base,
    symlink,
    whiteout,
)
from tests.payloads import (
    lay_checked as lay,
)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return small_base(tmp_path)


def inode(path: Path) -> int:
    return path.lstat().st_ino


def test_new_file_has_everything_that_was_asked(ground: Ground) -> None:
    counts = lay(ground, file("etc/new", b"new\n", mode=0o600))
    st = (ground.root / "etc/new").stat()

    assert ground.read("etc/new") == b"new\n"
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns, st.st_uid) == (0o600, THEN, os.getuid())
    assert counts == Counts(added=1, bytes_written=4)


@pytest.mark.parametrize("umask", [0, 0o77, 0o777])
def test_umask_does_not_matter(ground: Ground, umask: int) -> None:
    old = os.umask(umask)
    try:
        ground.lay(
            file("etc/f", mode=0o666),
            directory("d", mode=0o777),
            file("p/q"),
            member("fifo", Kind.FIFO, mode=0o622),
        )
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((ground.root / name).stat().st_mode) for name in ("etc/f", "d", "p", "p/q", "fifo")]

    assert modes == [0o666, 0o777, 0o755, 0o644, 0o622]


def test_identical_file_is_not_touched(ground: Ground) -> None:
    ground.start()
    before = inode(ground.root / "etc/one"), (ground.root / "etc").stat().st_mtime_ns
    counts = lay(ground, existing(ground.base, "etc/one"), existing(ground.base, "usr/bin/large"))

    assert counts == Counts(unchanged=2)
    assert (inode(ground.root / "etc/one"), (ground.root / "etc").stat().st_mtime_ns) == before


@pytest.mark.parametrize("path", ["etc/one", "usr/bin/large"])
def test_base_changed_behind_the_index_is_not_believed(ground: Ground, path: str) -> None:
    ground.start()
    asked = existing(ground.base, path)
    size = (ground.base / path).stat().st_size
    (ground.base / path).write_bytes(b"X" * size)
    (ground.root / path).write_bytes(b"X" * size)
    os.utime(ground.base / path, ns=(LONG_AGO, LONG_AGO))
    counts = lay(ground, asked)

    assert counts.changed == 1
    assert ground.read(path) == asked.data.getvalue()  # type: ignore[union-attr]


def test_same_size_and_time_but_other_content_is_written(ground: Ground) -> None:
    counts = lay(ground, file("etc/one", b"ONE\n", mtime_ns=LONG_AGO))

    assert counts.changed == 1
    assert ground.read("etc/one") == b"ONE\n"


@pytest.mark.parametrize("at", [0, 1, 1 << 20, (1 << 20) - 1, (3 << 20) + 17, len(LARGE) - 1])
def test_large_file_that_differs_at_one_byte(ground: Ground, at: int) -> None:
    data = LARGE[:at] + b"\xee" + LARGE[at + 1 :]
    assert data != LARGE
    counts = lay(ground, file("usr/bin/large", data))

    assert ground.read("usr/bin/large") == data
    assert counts.bytes_written == len(LARGE) - at // (1 << 20) * (1 << 20)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (3 << 20) - 1, 3 << 20])
def test_new_files_around_the_chunk_size(ground: Ground, size: int) -> None:
    lay(ground, file("etc/new", LARGE[:size]))

    assert ground.read("etc/new") == LARGE[:size]


@pytest.mark.parametrize("path", ["etc/one", "usr/bin/large"])
def test_only_metadata_differs(ground: Ground, path: str) -> None:
    ground.start()
    data = ground.read(path)
    counts = lay(ground, file(path, data, mode=0o711))
    st = (ground.root / path).stat()

    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o711, THEN)
    assert ground.read(path) == data
    assert counts.changed == 1


def test_replacing_a_hard_link_leaves_the_other_name_alone(ground: Ground) -> None:
    ground.start()
    lay(ground, file("usr/lib/a", b"A\n"))

    assert ground.read("usr/lib/b") == b"a\n"
    assert ground.read("usr/lib/a") == b"A\n"


def test_metadata_of_a_hard_link_changes_under_one_name_only(ground: Ground) -> None:
    os.link(ground.base / "etc/one", ground.base / "etc/uno")
    ground.start()
    (ground.root / "etc/uno").unlink()
    os.link(ground.root / "etc/one", ground.root / "etc/uno")
    lay(ground, file("etc/one", b"one\n", mode=0o600))

    assert stat.S_IMODE((ground.root / "etc/uno").stat().st_mode) == 0o644
    assert stat.S_IMODE((ground.root / "etc/one").stat().st_mode) == 0o600


def test_hard_links_of_the_payload(ground: Ground) -> None:
    counts = lay(ground, file("n/one", b"x"), hardlink("n/two", "n/one"), hardlink("etc/two", "n/one"))

    assert len({inode(ground.root / name) for name in ("n/one", "n/two", "etc/two")}) == 1
    assert (counts.added, counts.changed) == (3, 1)


def test_hard_link_to_a_file_of_the_base(ground: Ground) -> None:
    counts = lay(ground, hardlink("etc/again", "etc/one"))

    assert inode(ground.root / "etc/again") == inode(ground.root / "etc/one")
    assert counts == Counts(added=1)


def test_hard_link_that_exists_is_unchanged(ground: Ground) -> None:
    ground.start()
    (ground.root / "usr/lib/b").unlink()
    os.link(ground.root / "usr/lib/a", ground.root / "usr/lib/b")
    counts = ground.lay(existing(ground.base, "usr/lib/a"), hardlink("usr/lib/b", "usr/lib/a"))

    assert counts == Counts(unchanged=2)


def test_hard_link_through_a_symlink_of_the_base(ground: Ground) -> None:
    lay(ground, hardlink("etc/a", "lib/a"))

    assert inode(ground.root / "etc/a") == inode(ground.root / "usr/lib/a")


def test_symlinks_and_fifos(ground: Ground) -> None:
    counts = lay(
        ground,
        symlink("etc/link", "/outside/../anything"),
        symlink("lib", "usr/lib", mtime_ns=LONG_AGO),
        symlink("etc/\udcff", b"\xfe"),
        member("etc/fifo", Kind.FIFO, mode=0o600),
        symlink("etc/two", "one"),
    )

    assert os.readlink(ground.root / "etc/link") == "/outside/../anything"
    assert os.readlink(os.fsencode(ground.root) + b"/etc/\xff") == b"\xfe"
    assert (ground.root / "etc/link").lstat().st_mtime_ns == THEN
    assert stat.S_ISFIFO((ground.root / "etc/fifo").lstat().st_mode)
    assert counts == Counts(added=2, changed=2, unchanged=1)


def test_merged_usr(ground: Ground) -> None:
    counts = lay(
        ground,
        directory("lib"),
        file("lib/new", b"1"),
        file("abs/new2", b"2"),
        existing(ground.base, "lib/deep/x"),
        file("lib/p/q", b"3"),
    )

    assert (ground.root / "lib").is_symlink()
    assert ground.read("usr/lib/new") == b"1"
    assert ground.read("usr/lib/new2") == b"2"
    assert ground.read("usr/lib/p/q") == b"3"
    assert counts.added == 4


def test_absolute_symlink_below_a_directory_starts_at_the_root(ground: Ground) -> None:
    (ground.base / "etc/lib").symlink_to("/usr/lib")
    (ground.base / "etc/up").symlink_to("../usr/./lib/../bin")
    lay(ground, file("etc/lib/new", b"1"), file("etc/up/new", b"2"))

    assert ground.read("usr/lib/new") == b"1"
    assert ground.read("usr/bin/new") == b"2"


def test_identical_file_is_skipped_through_a_symlink_too(ground: Ground) -> None:
    asked = existing(ground.base, "lib/deep/x")

    assert lay(ground, asked) == Counts(unchanged=1)


def test_missing_parents_are_made(ground: Ground) -> None:
    counts = lay(ground, file("n/e/w", b""))
    st = (ground.root / "n/e").stat()

    assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o755, os.geteuid())
    assert counts.added == 3


def test_parent_named_after_its_content(ground: Ground) -> None:
    counts = lay(ground, file("n/f"), directory("n", mode=0o700))
    st = (ground.root / "n").stat()

    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o700, THEN)
    assert counts.added == 2


def test_directory_times_survive_what_is_written_in_them(ground: Ground) -> None:
    ground.start()
    same = (ground.base / "usr/lib").stat().st_mode & 0o7777
    counts = lay(
        ground,
        directory("etc"),
        file("etc/new"),
        directory("usr/lib", mtime_ns=LONG_AGO, mode=same),
        file("usr/lib/new"),
        directory("d"),
        file("d/f"),
        directory("d/e"),
        whiteout("etc/two"),
    )

    assert (ground.root / "etc").stat().st_mtime_ns == THEN
    assert (ground.root / "usr/lib").stat().st_mtime_ns == LONG_AGO
    assert (ground.root / "d").stat().st_mtime_ns == THEN
    assert (counts.added, counts.changed, counts.removed, counts.unchanged) == (5, 1, 1, 1)


def test_metadata_of_the_root_is_left_alone(ground: Ground) -> None:
    ground.start()
    ground.root.chmod(0o755)
    lay(ground, directory("", mode=0o700), file("new"))

    assert stat.S_IMODE(ground.root.stat().st_mode) == 0o755


def test_sparse_file_is_written_where_data_is_only(ground: Ground) -> None:
    data = bytearray(8 << 20)
    data[3 << 20 : (3 << 20) + 5] = b"data\n"
    asked = file("etc/sparse", bytes(data), extents=(((3 << 20), 5), ((8 << 20) - 1, 1)))
    small = file("etc/small", b"ab" + bytes(60_000), extents=((0, 2),))
    counts = lay(ground, asked, small, file("etc/holes", bytes(100_000), extents=()))

    assert ground.read("etc/sparse") == bytes(data)
    assert ground.read("etc/small") == b"ab" + bytes(60_000)
    assert ground.read("etc/holes") == bytes(100_000)
    assert (ground.root / "etc/sparse").stat().st_blocks * 512 < 1 << 20
    assert counts.bytes_written == 8
