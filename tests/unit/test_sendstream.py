"""Streams of ``btrfs send`` made by hand: which paths they touch in the old and in the new tree."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Iterable, Iterator

import pytest
from pytest_mock import MockerFixture

from snaptx.errors import StorageError
from snaptx.storage import sendstream
from snaptx.storage.sendstream import parse
from snaptx.system import descriptor

PATH, PATH_TO, PATH_LINK, OFFSET = 15, 16, 17, 18
MKFILE, MKDIR, RENAME, LINK, UNLINK, RMDIR, SET_XATTR, CLONE, UTIMES, END, UPDATE = (
    3, 4, 9, 10, 11, 12, 13, 16, 20, 21, 22,
)  # fmt: skip
HEADER = b"btrfs-stream\0" + struct.pack("<I", 1)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def command(number: int, *paths: bytes) -> bytes:
    kinds = (PATH, PATH_LINK if number == LINK else PATH_TO)
    body = b"".join(attribute(kind, path) for kind, path in zip(kinds, paths, strict=False))
    return struct.pack("<IHI", len(body), number, 0) + body


def stream(*commands: tuple[int, *tuple[bytes, ...]]) -> bytes:
    return HEADER + command(2, b"snapshot") + b"".join(command(*c) for c in commands) + command(END)


def paths(*commands: tuple[int, *tuple[bytes, ...]]) -> set[bytes]:
    return set(parse([stream(*commands)]).paths())


TABLE = {
    "nothing": ([], set()),
    "the root itself": ([(UTIMES, b"")], {b""}),
    "a change": ([(UPDATE, b"d/f"), (UTIMES, b"d/f")], {b"d/f"}),
    "a new file under its temporary name": (
        [(MKFILE, b"o9-7-0"), (RENAME, b"o9-7-0", b"d/f"), (UTIMES, b"d"), (SET_XATTR, b"d/f")],
        {b"d", b"d/f"},
    ),
    "a file named like a temporary one": ([(UNLINK, b"o9-7-0")], {b"o9-7-0"}),
    "a removal": ([(UNLINK, b"d/f"), (RMDIR, b"d")], {b"d/f", b"d"}),
    "a further name": ([(LINK, b"b", b"a"), (UTIMES, b"b")], {b"b"}),
    "a rename": ([(RENAME, b"a", b"b")], {b"a", b"b"}),
    "a file written anew": (
        [(MKFILE, b"o9-7-0"), (UNLINK, b"f"), (RENAME, b"o9-7-0", b"f"), (UPDATE, b"f")],
        {b"f"},
    ),
    "a change before the directory moves": (
        [(UPDATE, b"d/f"), (RENAME, b"d", b"e")],
        {b"d/f", b"e/f", b"d", b"e"},
    ),
    "a change after the directory moved": (
        [(RENAME, b"d", b"e"), (UPDATE, b"e/f")],
        {b"d/f", b"e/f", b"d", b"e"},
    ),
    "names swapped by way of a temporary one": (
        [(RENAME, b"a", b"o5-7-0"), (RENAME, b"b", b"a"), (RENAME, b"o5-7-0", b"b"), (UPDATE, b"b/f")],
        {b"a", b"b", b"b/f", b"a/f"},
    ),
    "a chain of directories": (
        [(RENAME, b"b", b"c"), (RENAME, b"a", b"b"), (UNLINK, b"b/f"), (UPDATE, b"c/g")],
        {b"a", b"b", b"c", b"a/f", b"b/g", b"c/g"},
    ),
    "a directory removed under a temporary name": (
        [(RENAME, b"d", b"o5-7-0"), (MKDIR, b"o8-7-0"), (RENAME, b"o8-7-0", b"d"), (UNLINK, b"o5-7-0/f"),
         (RMDIR, b"o5-7-0")],
        {b"d", b"d/f"},
    ),
    "a directory moved onto the place of a removed one": (
        [(UNLINK, b"d/f"), (RMDIR, b"d"), (RENAME, b"e", b"d")],
        {b"d/f", b"d", b"e"},
    ),
    "moved out of a directory that moved": (
        [(RENAME, b"d", b"e"), (RENAME, b"e/s", b"t"), (UPDATE, b"t/f")],
        {b"d", b"e", b"d/s", b"t", b"t/f", b"d/s/f"},
    ),
    "an unknown command that names a path": ([(99, b"f")], {b"f"}),
    "names that are no text": ([(UNLINK, b"\xff\x00".replace(b"\0", b"\xfe"))], {b"\xff\xfe"}),
}  # fmt: skip


@pytest.mark.parametrize(("commands", "expected"), TABLE.values(), ids=TABLE)
def test_touched_paths(commands: list[tuple[int, *tuple[bytes, ...]]], expected: set[bytes]) -> None:
    assert paths(*commands) == expected


def test_path_after_other_attributes() -> None:
    body = attribute(OFFSET, bytes(8)) + attribute(PATH, b"f") + attribute(22, b"source")
    clone = struct.pack("<IHI", len(body), CLONE, 0) + body

    assert set(parse([HEADER + clone + command(END)]).paths()) == {b"f"}


def test_only_inodes_older_than_the_stream_are_modified() -> None:
    made = ((MKFILE, b"o9-7-0"), (RENAME, b"o9-7-0", b"new"), (UPDATE, b"new"))

    assert list(parse([stream(*made, (UPDATE, b"old"), (UNLINK, b"x"))]).modified()) == [b"old"]


def test_modified_through_a_new_name() -> None:
    assert list(parse([stream((LINK, b"b", b"a"), (UPDATE, b"b"))]).modified()) == [b"b"]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 10, 4096])
def test_any_chunking_gives_the_same(size: int) -> None:
    data = stream((MKFILE, b"o9-7-0"), (RENAME, b"o9-7-0", b"d/f"), (UNLINK, b"g"))

    assert set(parse(pieces(data, size)).paths()) == {b"d/f", b"g"}


def test_every_truncation_is_an_error() -> None:
    data = stream((MKFILE, b"f"), (UNLINK, b"g"))

    for length in range(len(data)):
        with pytest.raises(StorageError, match="ends too early"):
            parse([data[:length]])


def broken_streams() -> Iterable[tuple[str, bytes]]:
    yield "magic", b"btrfs-strean\0" + HEADER[13:] + command(END)
    yield "version", HEADER[:13] + struct.pack("<I", 2) + command(END)
    yield "no path", HEADER + struct.pack("<IHI", 0, UNLINK, 0) + command(END)
    yield "no target", HEADER + command(RENAME, b"a") + command(END)
    yield "attribute too long", HEADER + struct.pack("<IHIHH", 4, UNLINK, 0, PATH, 9) + command(END)
    yield "command too long", HEADER + struct.pack("<IHI", sendstream.COMMAND_LIMIT + 1, UNLINK, 0)
    yield "root renamed", stream((RENAME, b"", b"a"))


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in broken_streams()])
def test_broken_stream(data: bytes) -> None:
    with pytest.raises(StorageError):
        parse([data])


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ENOMEM])
def test_a_path_that_the_kernel_finds_too_long(mocker: MockerFixture, number: int) -> None:
    mocker.patch.object(fcntl, "ioctl", side_effect=OSError(number, os.strerror(number)))

    assert sendstream.touched(0, 0, 5) is None


def test_any_other_refusal_of_the_kernel_is_an_error(mocker: MockerFixture) -> None:
    mocker.patch.object(fcntl, "ioctl", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))

    with pytest.raises(StorageError, match="cannot compare two snapshots"):
        sendstream.touched(0, 0, 5)


def test_an_interrupt_as_the_kernel_begins_closes_nothing_of_others(mocker: MockerFixture) -> None:
    begin = threading.Thread.start
    opened: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        begin(thread)
        thread.join()  # it has closed its end of the pipe, and its number is another file's now
        opened.append(os.open(os.devnull, os.O_RDONLY))
        signal.raise_signal(signal.SIGINT)  # to this thread: another might hear it

    mocker.patch.object(threading.Thread, "start", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            descriptor(os.devnull, os.O_RDONLY) as none,
            pytest.raises(KeyboardInterrupt),
            sendstream.stream(none, 0),
        ):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(opened[0])
