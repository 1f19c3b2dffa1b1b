"""What the writer makes of a payload, on a plain directory."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx.errors import (
    HostileError,
    NoSpaceError,
    ReadOnlyError,
    SnaptxError,
    SourceError,
    StorageError,
    VerifyError,
)
from snaptx.model import Counts, Kind, Member
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.settle import differences, verify_written
from snaptx.overlay.writer import Writer
from snaptx.system import descriptor
from tests.payloads import (
    THEN,
    Ground,
    directory,
    existing,
    file,
    hardlink,
    member,
    opaque,
    rows,
    symlink,
    whiteout,
)

LARGE = bytes(range(256)) * 4096 * 5
LONG_AGO = 1_500_000_000 * 10**9


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Give a base with a bit of everything."""
    ground = Ground(tmp_path)
    base = ground.base
    for name in ("etc/conf.d", "usr/lib/deep", "usr/bin"):
        (base / name).mkdir(parents=True)
    (base / "lib").symlink_to("usr/lib")
    (base / "abs").symlink_to("/usr/lib")
    (base / "etc/one").write_text("one\n")
    (base / "etc/two").write_text("two\n")
    (base / "etc/conf.d/three").write_text("three\n")
    (base / "etc/link").symlink_to("one")
    (base / "usr/lib/a").write_text("a\n")
    (base / "usr/lib/b").hardlink_to(base / "usr/lib/a")
    (base / "usr/lib/deep/x").write_text("x\n")
    (base / "usr/bin/large").write_bytes(LARGE)
    for path in sorted(base.rglob("*"), reverse=True):
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return ground


def lay(ground: Ground, *members: Member, valid: bool = True) -> Counts:
    """Lay a payload; the new manifest must be what a scan of the tree finds, inodes and ctimes included."""
    counts = ground.lay(*members, valid=valid)
    found, indexed = rows(ground.root), ground.indexed()
    assert sorted(indexed) == sorted(found)
    touched = [path for path, row in indexed.items() if differences(row, found[path])]
    assert touched == []
    return counts


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


def test_everything_is_written_when_the_index_is_not_trusted(ground: Ground) -> None:
    counts = lay(ground, existing(ground.base, "etc/one"), valid=False)

    assert counts == Counts(changed=1, bytes_written=4)


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


def test_whiteout_makes_room_for_a_directory(ground: Ground) -> None:
    lay(ground, whiteout("etc/one"), directory("etc/one"), file("etc/one/f", b"1"))

    assert ground.read("etc/one/f") == b"1"


def test_deep_tree_is_removed_without_recursion(ground: Ground) -> None:
    ground.start()
    with descriptor(ground.root, os.O_RDONLY) as fd:
        for depth in range(1100):
            os.mkdir("deep" + "/d" * depth, dir_fd=fd)

    assert ground.lay(whiteout("deep"), valid=False).removed == 1100


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


def test_short_reads_are_put_together(ground: Ground) -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1000))

    asked = member("etc/new", Kind.FILE, size=len(LARGE), data=Dripping(LARGE))
    lay(ground, asked)

    assert ground.read("etc/new") == LARGE


@pytest.mark.parametrize("size", [5, (1 << 20) + 5, len(LARGE) + 1])
def test_data_shorter_than_announced_is_refused(ground: Ground, size: int) -> None:
    with pytest.raises(SourceError, match="size it announced"):
        ground.lay(member("usr/bin/large", Kind.FILE, size=size, data=io.BytesIO(LARGE[: size - 1])))


def test_payload_that_vanishes_is_its_own_fault(ground: Ground) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "gone")

    with pytest.raises(SourceError, match="can't be read"):
        ground.lay(member("etc/new", Kind.FILE, size=5, data=Broken()))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EROFS, ReadOnlyError),
        (errno.EIO, StorageError),
    ],
)
def test_errors_of_the_filesystem_name_the_path(
    ground: Ground, mocker: MockerFixture, number: int, error: type[SnaptxError]
) -> None:
    ground.start()
    mocker.patch("os.pwrite", side_effect=OSError(number, os.strerror(number)))
    with pytest.raises(error, match=r"etc/n\\xff") as caught:
        ground.lay(file(b"etc/n\xff", b"data"))

    assert type(caught.value) is error
    assert caught.value.hint


def test_progress_is_told_now_and_then(ground: Ground) -> None:
    told: list[tuple[int, int]] = []
    ground.lay(*(file(f"n/{i}", b"12345") for i in range(1200)), progress=lambda *now: told.append(now))

    assert told[-1] == (1200, 6000)
    assert told == sorted(told)
    assert len(told) < 300


def test_many_members_across_batches(ground: Ground) -> None:
    names = [f"many/{i % 40}/{i}" for i in range(2100)]
    counts = lay(ground, *(file(name, name.encode()) for name in names))

    assert counts.added == 2141
    assert all(ground.read(name) == name.encode() for name in names)


def test_duplicate_is_noticed_across_batches(ground: Ground) -> None:
    members = [file("first"), *(file(f"many/{i}") for i in range(1200)), file("first")]
    with pytest.raises(HostileError, match="twice"):
        ground.lay(*members)


def test_no_descriptor_is_left(ground: Ground) -> None:
    ground.start()
    before = len(os.listdir("/proc/self/fd"))
    ground.lay(*(file(f"many/{i}/f") for i in range(300)), file("usr/bin/large", LARGE[:-1] + b"!"))
    with pytest.raises(HostileError):
        ground.lay(file("etc"))

    assert len(os.listdir("/proc/self/fd")) == before


TAMPERED: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_bytes(b"evil"),
    "mode": lambda path: path.chmod(0o666),
    "mtime": lambda path: os.utime(path, ns=(1, 1)),
    "not there": lambda path: path.unlink(),
    "kind": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("name", ["etc/new", "etc/one"])
def test_reading_back_notices(ground: Ground, how: str, name: str) -> None:
    members = [file("etc/new", b"good"), file("etc/one", b"good")]
    with pytest.raises(VerifyError, match=f"{name}.*{how}"):
        _lay_and_tamper(ground, members, lambda: TAMPERED[how](ground.root / name))


def test_reading_back_drops_the_record(ground: Ground) -> None:
    lay(ground, file("etc/new"))
    with Manifest.open(ground.root.parent / "root.manifest") as manifest:
        tables = {name for (name,) in manifest.db.execute("SELECT name FROM sqlite_master")}

    assert tables == {"meta", "rows"}


def _lay_and_tamper(ground: Ground, members: list[Member], tamper: Callable[[], object]) -> None:
    ground.start()
    place = ground.root.parent
    with (
        descriptor(ground.root, os.O_RDONLY) as root,
        descriptor(ground.base, os.O_RDONLY) as base,
        Manifest.fork(place / "base.manifest", place / "new") as manifest,
    ):
        with Writer(root, base, manifest, base_manifest_valid=True) as writer:
            for asked in members:
                writer.apply(asked)
            writer.finish()
        tamper()
        verify_written(root, manifest)
