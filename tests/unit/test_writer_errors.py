"""The writer when something goes wrong, and when there is much of everything."""

from __future__ import annotations

import errno
import gc
import io
import os
from collections.abc import Callable, Iterable
from contextlib import closing
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
from snaptx.model import Kind, Member, Row
from snaptx.overlay import content, readback
from snaptx.overlay.base import Base
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.readback import reading_back, shared_out
from snaptx.overlay.record import Action
from snaptx.overlay.sift import Sifted, sift
from snaptx.overlay.writer import Writer
from snaptx.system import descriptor
from tests.payloads import (
    LARGE,
    Ground,
    existing,
    file,
    hardlink,
    member,
    small_base,
    whiteout,
)
from tests.payloads import (
    lay_checked as lay,
)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return small_base(tmp_path)


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
    told: list[int] = []
    ground.lay(*(file(f"n/{i}", b"12345") for i in range(1200)), progress=told.append)

    assert told[-1] == 1200
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


@pytest.mark.parametrize("between", [0, 1, 1100])
def test_what_the_base_holds_is_refused_the_second_time(ground: Ground, between: int) -> None:
    asked = existing(ground.base, "etc/one")
    others = [file(f"many/{number}") for number in range(between)]
    with pytest.raises(HostileError, match="etc/one is in the payload twice"):
        ground.lay(asked, *others, asked)


def test_no_descriptor_is_left(ground: Ground) -> None:
    ground.start()
    before = len(os.listdir("/proc/self/fd"))
    ground.lay(*(file(f"many/{i}/f") for i in range(300)), file("usr/bin/large", LARGE[:-1] + b"!"))
    with pytest.raises(HostileError):
        ground.lay(file("etc"))

    assert len(os.listdir("/proc/self/fd")) == before


def _into_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _into_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("good")


def _into_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


TAMPERED: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_bytes(b"evil"),
    "mode": lambda path: path.chmod(0o666),
    "mtime": lambda path: os.utime(path, ns=(1, 1)),
    "not there": lambda path: path.unlink(),
    "kind": _into_directory,
    "kind, mode": _into_symlink,
    "kind, content, size": _into_fifo,
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("name", ["etc/new", "etc/one"])
def test_reading_back_notices(ground: Ground, how: str, name: str) -> None:
    members = [file("etc/new", b"good"), file("etc/one", b"good")]
    with pytest.raises(VerifyError, match=f"{name}.*{how}"):
        _lay_and_tamper(ground, members, lambda: TAMPERED[how](ground.root / name))


@pytest.mark.parametrize("at", [0, 300, 599, 900, 1199, 1201])
def test_reading_back_notices_in_whichever_half_of_each_lot(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(readback, "_LOT", 600)
    members = [file(f"new/{number:04}", b"good", mode=0o600) for number in range(1202)]
    with pytest.raises(VerifyError, match=f"new/{at:04}.*mode"):
        _lay_and_tamper(ground, members, lambda: (ground.root / f"new/{at:04}").chmod(0o644))


@pytest.mark.parametrize(
    ("sizes", "more", "cut"),
    [
        ([0] * 10, 0, 5),
        ([0] * 10, 120_000, 7),
        ([0] * 10, 1 << 30, 10),
        ([1 << 30, 0, 0], 0, 1),
        ([0, 0, 1 << 30], 0, 3),
    ],
)
def test_reading_back_is_shared_out_by_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], more: int, cut: int
) -> None:
    monkeypatch.setattr(readback, "_WORTH_A_FORK", 0)
    lot = [(_row(b"%d" % n, size=size), Action.ADDED) for n, size in enumerate(sizes)]

    assert shared_out(lot, more) == (lot[cut:], lot[:cut])


def test_directories_are_read_back_when_they_have_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "_WORTH_A_FORK", 0)
    kinds = [Kind.DIRECTORY, Kind.FILE, Kind.DIRECTORY, Kind.FILE, Kind.FILE, Kind.DIRECTORY]
    lot = [(_row(b"%d" % n, kind), Action.ADDED) for n, kind in enumerate(kinds)]
    files = [made for made in lot if made[0].kind is Kind.FILE]

    here, there = shared_out(lot)

    assert there == files
    assert here == [made for made in lot if made not in files]


def test_few_are_read_back_by_one_process() -> None:
    lot = [(_row(b"%d" % n), Action.ADDED) for n in range(256)]

    assert shared_out(lot) == (lot, [])


def _row(path: bytes, kind: Kind = Kind.FILE, size: int = 0) -> Row:
    return Row(path, kind, 0, 0, 0, size, 0, 0, b"", b"")


@pytest.mark.parametrize("name", ["new/0001", "new/linked"])
def test_reading_back_notices_at_either_name_of_a_file(ground: Ground, name: str) -> None:
    members = [file("new/0001", b"good", mode=0o600), hardlink("new/linked", "new/0001")]
    with pytest.raises(VerifyError, match=r"new/(0001|linked).*mode"):
        _lay_and_tamper(ground, members, lambda: (ground.root / name).chmod(0o644))


def test_one_lot_is_in_memory_while_it_is_read_back(ground: Ground, mocker: MockerFixture) -> None:
    mocker.patch.object(readback, "_LOT", 200)
    seen = [_rows_alive()]

    def verify(*_: object) -> None:  # a mock would keep what it is called with
        seen.append(_rows_alive())

    mocker.patch.object(readback, "_verify_all", verify)
    ground.lay(*(file(f"new/{number:04}") for number in range(1000)))

    assert len(seen) == 1 + 7  # five lots, the directory, nothing
    assert max(seen) - seen[0] == 200


def _rows_alive() -> int:
    return sum(isinstance(thing, Row) for thing in gc.get_objects())


def test_reading_back_drops_the_record(ground: Ground) -> None:
    lay(ground, file("etc/new"))
    with Manifest.open(ground.root.parent / "root.manifest") as manifest:
        tables = {
            name for (name,) in manifest.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }

    assert tables == {"meta", "rows", "touched"}


def test_base_that_changes_while_it_is_shared_is_not_believed(ground: Ground) -> None:
    pieces: list[Sifted] = []
    ground.start()
    with (
        descriptor(ground.base, os.O_RDONLY) as base,
        Manifest.open(ground.base.parent / "base.manifest") as manifest,
        closing(Base(base, manifest)) as known,
    ):
        pieces.extend(sift([whiteout("etc/one"), existing(ground.base, "etc/one")], known))
    (ground.base / "etc/one").write_bytes(b"two\n")
    with (
        pytest.raises(SourceError, match="etc/one of the base changed"),
        descriptor(ground.root, os.O_RDONLY) as root,
        descriptor(ground.base, os.O_RDONLY) as base,
        Manifest.fork(ground.base.parent / "base.manifest", ground.base.parent / "new") as manifest,
        Writer(root, base, manifest) as writer,
    ):
        writer.write(iter(pieces))


def test_what_is_read_back_is_told_now_and_then(ground: Ground, mocker: MockerFixture) -> None:
    mocker.patch.object(readback, "_LOT", 500)
    told: list[int] = []
    members = [file(f"new/{number:04}") for number in range(1200)]
    _lay_and_tamper(ground, members, lambda: mocker.patch.object(content, "_INTERVAL", 0.0), told.append)

    assert 400 < len(told) < 1201  # the second process tells nothing of its half
    assert told == sorted(told)
    assert 1100 < told[-1] <= 1201


def _lay_and_tamper(
    ground: Ground,
    members: Iterable[Member],
    tamper: Callable[[], object],
    progress: Callable[[int], None] | None = None,
) -> None:
    ground.start()
    place = ground.root.parent
    with (
        descriptor(ground.root, os.O_RDONLY) as root,
        descriptor(ground.base, os.O_RDONLY) as base,
        Manifest.fork(place / "base.manifest", place / "new") as manifest,
        closing(Base(base, manifest)) as known,
        Writer(root, base, manifest) as writer,
    ):
        writer.write(sift(members, known))
        tamper()
        with reading_back(root, manifest, progress):
            writer.finish()
