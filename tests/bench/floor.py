"""The writer against C: the system calls of one payload, from Python and from a loop in C.

    python -m tests.bench.floor PAYLOAD ROOT BASE INDEX [LIST]

lays PAYLOAD, sifted beforehand, over ROOT and prints the seconds of the clock
and of a processor that took, with LIST taking down what ``replay.c`` has to do.
Only calls on the two trees are taken down: not those of SQLite, which keeps the
record, nor those of the process that reads back beside the writer, nor the few
that change a symlink or a node by its name.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from snaptx import memory
from snaptx.overlay.base import Base
from snaptx.overlay.content import FICLONERANGE
from snaptx.overlay.feed import Feed, frames
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.payload import open_payload
from snaptx.overlay.sift import sift
from snaptx.overlay.writer import Writer
from snaptx.system import AT_FDCWD, descriptor, openat2
from tests.bench.arena import Arena
from tests.bench.measure import Sample, as_installed
from tests.demo import REPOSITORY

SOURCE = Path(__file__).with_name("replay.c")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_REMOVEDIR = 0x200  # linux/fcntl.h
_HEAD = struct.Struct("=IIiiqqII")


class Call(NamedTuple):
    """One system call as ``replay.c`` knows it."""

    letter: str
    one: int
    other: int = 0
    first: int = 0
    second: int = 0
    text: bytes = b""
    data: bytes | memoryview = b""

    def packed(self, *, opens: bool) -> bytes:
        """Return it as it stands in a list."""
        numbers = (self.one, self.other, self.first, self.second, len(self.text), len(self.data))
        whole = b"".join((_HEAD.pack(ord(self.letter), opens, *numbers), self.text, b"\0", self.data, b"\0"))
        return whole.ljust(-(-len(whole) // 8) * 8, b"\0")


def _stat(_: Any, path: bytes, *, dir_fd: int = AT_FDCWD, follow_symlinks: bool = True) -> Call:
    return Call("s", dir_fd, text=path)


def _utime(
    _: Any, path: int | bytes, *, ns: tuple[int, int], dir_fd: int = AT_FDCWD, follow_symlinks: bool = True
) -> Call:
    if isinstance(path, int):
        return Call("t", path, first=ns[1])
    return Call("T", dir_fd, first=ns[1], text=path)


def _on_descriptor(letter: str) -> Callable[..., Call | None]:
    """Return how to take down a call on an attribute; by name there are few."""

    def taken(
        _: Any, target: int | bytes, name: str | bytes = "", value: bytes = b"", **_follow: bool
    ) -> Call | None:
        return Call(letter, target, text=os.fsencode(name), data=value) if isinstance(target, int) else None

    return taken


def _ioctl(_: Any, target: int, request: int, argument: Any) -> Call | None:
    if request != FICLONERANGE:
        return None
    source, _, length, _ = struct.unpack("=qQQQ", argument)
    return Call("i", target, source, length)


def _openat2(fd: int, dirfd: int, path: bytes, flags: int, resolve: int) -> Call:
    return Call("2", dirfd, fd or 0, flags | os.O_CLOEXEC, resolve, path)


TAKEN: dict[str, Callable[..., Call | None]] = {
    "open": lambda fd, path, flags, mode=0o777, *, dir_fd: Call(
        "O", dir_fd, fd or 0, flags | os.O_CLOEXEC, mode, path
    ),
    "stat": _stat,
    "fstat": lambda _, fd: Call("f", fd),
    "unlink": lambda _, path, *, dir_fd: Call("u", dir_fd, text=path),
    "rmdir": lambda _, path, *, dir_fd: Call("u", dir_fd, first=_REMOVEDIR, text=path),
    "pwrite": lambda _, fd, data, offset: Call("w", fd, first=offset, data=data),
    "utime": _utime,
    "close": lambda _, fd: Call("c", fd),
    "fchown": lambda _, fd, uid, gid: Call("o", fd, first=uid, second=gid),
    "fchmod": lambda _, fd, mode: Call("m", fd, first=mode),
    "setxattr": _on_descriptor("x"),
    "removexattr": _on_descriptor("r"),
    "listxattr": _on_descriptor("l"),
    "getxattr": _on_descriptor("g"),
    "mkdir": lambda _, path, mode, *, dir_fd: Call("d", dir_fd, first=mode, text=path),
    "symlink": lambda _, target, path, *, dir_fd: Call("y", dir_fd, text=path, data=target),
    "link": lambda _, old, new, *, src_dir_fd, dst_dir_fd, follow_symlinks: Call(
        "k", dst_dir_fd, src_dir_fd, text=new, data=old
    ),
    "mknod": lambda _, path, mode, device, *, dir_fd: Call("n", dir_fd, first=mode, second=device, text=path),
    "ftruncate": lambda _, fd, length: Call("z", fd, first=length),
    "readlink": lambda _, path, *, dir_fd: Call("R", dir_fd, text=path),
}
"""How each function of ``os`` is taken down: from its result (None: it failed) and its arguments."""


def unpacked(packed: bytes) -> Iterator[tuple[Call, bool]]:
    """Yield each call of a list, and whether it opened what it names."""
    at = 0
    while at < len(packed):
        letter, opens, one, other, first, second, length, more = _HEAD.unpack_from(packed, at)
        text = at + _HEAD.size
        data = text + length + 1
        words = packed[text : text + length], packed[data : data + more]
        yield Call(chr(letter), one, other, first, second, *words), bool(opens)
        at = -(-(data + more + 1) // 8) * 8


@contextmanager
def taking_down(calls: list[bytes]) -> Iterator[None]:
    """Take down the system calls of a with block."""

    def around(real: Callable[..., Any], taken: Callable[..., Call | None]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            result, failed = None, True
            try:
                result = real(*words, **named)
                failed = False
                return result
            finally:
                made = taken(result, *words, **named)
                if made is not None:
                    calls.append(made.packed(opens=made.letter in "O2" and not failed))

        return call

    with ExitStack() as stack:
        for name, taken in TAKEN.items():
            stack.enter_context(patch.object(os, name, around(getattr(os, name), taken)))
        for module in ("scan", "base"):
            stack.enter_context(patch(f"snaptx.overlay.{module}.openat2", around(openat2, _openat2)))
        stack.enter_context(patch.object(fcntl, "ioctl", around(fcntl.ioctl, _ioctl)))
        yield


def lay(payload: str, root: Path, live: Path, index: Path, into: Path | None) -> str:
    """Lay a payload over a tree; return the seconds it took, and the two descriptors a list goes by."""
    calls: list[bytes] = []
    with (
        descriptor(root, DIRECTORY) as root_fd,
        descriptor(live, DIRECTORY) as base_fd,
        Manifest.fork(index, index.with_suffix(".floor")) as manifest,
    ):
        with open_payload(payload) as opened, closing(Base(base_fd, manifest)) as known:
            sifted = [b"".join(frame) for frame in frames(sift(opened.members, known), lambda: 0)]
        with Writer(root_fd, base_fd, manifest) as writer, taking_down(calls) if into else nullcontext():
            begun, before = time.monotonic(), time.process_time()
            writer.write(Feed(iter(sifted)).pieces())
            took = time.monotonic() - begun, time.process_time() - before
    if into:
        into.write_bytes(b"".join(calls))
    return f"{took[0]} {took[1]} {root_fd} {base_fd}"


def _sample(said: str) -> Sample:
    seconds, cpu, *_ = map(float, said.split())
    return Sample(seconds, cpu, 0)


def python(arena: Arena, payload: Path) -> Sample:
    """Lay a payload over a snapshot of the root from Python; return what it took."""
    return _sample(_lay(arena, payload))


def take_down(arena: Arena, payload: Path, calls: Path) -> list[str]:
    """Make the list of the calls that lay a payload over the root; return the descriptors in it."""
    return _lay(arena, payload, calls).split()[2:]


def _lay(arena: Arena, payload: Path, *calls: Path) -> str:
    index = arena.top / "@snaptx/manifests/1.sqlite"
    with arena.snapshot() as target:
        places: list[str | Path] = [payload, target, arena.root, index, *calls]
        try:
            return _python("-m", "tests.bench.floor", *places)
        finally:
            index.with_suffix(".floor").unlink(missing_ok=True)


def _python(*words: str | Path) -> str:
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=as_installed(), stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def c(arena: Arena, program: Path, calls: Path, descriptors: list[str]) -> Sample:
    """Make the calls of a list in a snapshot of the root from C; return what it took."""
    root_fd, base_fd = descriptors
    with arena.snapshot() as target:
        words: list[str | Path] = [program, calls, target, root_fd, arena.root, base_fd]
        return _sample(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)


def bare(arena: Arena, calls: Path, descriptors: list[str]) -> Sample:
    """Make the same calls from a loop in Python that does nothing else; return what it took."""
    root_fd, base_fd = descriptors
    with arena.snapshot() as target:
        words: list[str | Path] = [calls, target, root_fd, arena.root, base_fd]
        return _sample(_python("-m", "tests.bench.bare", *words))


def build(directory: Path) -> Path:
    """Return the program that makes the calls of a list."""
    program = directory / "replay"
    subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
    return program


if __name__ == "__main__":
    payload, *places = sys.argv[1:]
    memory.spend()
    root, live, index, *into = map(Path, places)
    print(lay(payload, root, live, index, into[0] if into else None))
