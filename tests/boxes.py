"""A sandbox to run verbs in, and everything there is to know of it, to tell whether a verb changed it.

A verb runs in a fork of the test: as fast as a call, but with its own
descriptors, mounts and signals, which end with it as they do for the command.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import btrfsutil

from snaptx import mounting, system
from snaptx.bootloader import entryfile
from snaptx.cli import main
from snaptx.errors import SnaptxError
from snaptx.model import BootState
from snaptx.sandbox import box as sandbox
from snaptx.sandbox.layout import Layout, Sandbox

SIZE = 512 << 20
ROOM = 2 << 30
CRASHED = 99
"""The exit status of a verb that ended with an exception nobody foresaw."""

for _verb in main.VERBS:
    main.module_of(_verb)

TREES = {"origin", "root", "sealed", "before", "latest", "viewed", "live"}
PASSING = {
    *("audit/log", "audit/head", "audit/reserve", "audit/spare", "lock", "generations/last"),
    *("cache", "cache.lock"),
}
"""What every attempt may touch: the trail, the locks, the next number and what was fetched."""


@dataclass(frozen=True)
class Said:
    """What a verb left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result of ``--json``."""
        return json.loads(self.out)

    @property
    def complaint(self) -> tuple[str, str]:
        """The message and the hint of an error: both there, once, and nothing else but log lines."""
        lines = [line for line in self.err.splitlines() if not line.startswith("{")]
        assert len(lines) == 2, self.err
        assert lines[0].startswith("snaptx: "), self.err
        assert lines[1].startswith("  hint: "), self.err
        return lines[0].removeprefix("snaptx: "), lines[1].removeprefix("  hint: ")


class Running:
    """A verb at work in a process of its own."""

    def __init__(
        self, words: tuple[str, ...], stdin: int | None, before: Callable[[], None] | None = None
    ) -> None:
        self._written = tuple(os.memfd_create(name) for name in ("out", "err"))
        self.pid = os.fork()
        if not self.pid:
            _become(words, stdin, self._written, before)

    def wait(self) -> Said:
        """Return what it left when it has ended."""
        _, status = os.waitpid(self.pid, 0)
        out, err = (self._read(fd) for fd in self._written)
        said = Said(os.waitstatus_to_exitcode(status), out, err)
        assert said.code != CRASHED, said.err
        return said

    @staticmethod
    def _read(fd: int) -> str:
        with open(fd, "rb") as stream:
            stream.seek(0)
            return stream.read().decode()


def _stream(fd: int, mode: str) -> io.TextIOWrapper:
    errors = "backslashreplace" if fd == 2 else "strict"
    return open(fd, mode, encoding="utf-8", errors=errors, closefd=False)  # type: ignore[return-value]


def _become(
    words: tuple[str, ...], stdin: int | None, written: tuple[int, ...], before: Callable[[], None] | None
) -> NoReturn:
    """Run the command line in this process, which the test has forked for it, after ``before``, and end."""
    code = CRASHED
    try:
        given = os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin
        for number, fd in enumerate((given, *written)):
            os.dup2(fd, number)
        sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")
        if before:
            before()
        code = main.main(words)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def killed_in(owner: type, name: str, call: int = 1) -> Callable[[], None]:
    """Return what makes a verb be killed where it would call a method for the ``call``-th time."""

    def prepare() -> None:
        before, calls = getattr(owner, name), []

        def dies(*args: object, **named: object) -> object:
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*args, **named)

        setattr(owner, name, dies)

    return prepare


def snaptx(*words: str, stdin: bytes | int | None = None) -> Said:
    """Run a command line to its end; ``stdin`` is its input or a descriptor of it."""
    if not isinstance(stdin, bytes):
        return Running(words, stdin).wait()
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        return Running(words, given.fileno()).wait()


class Box:
    """A sandbox whose root snaptx manages, or will."""

    def __init__(self, made: Sandbox) -> None:
        self.sandbox = made
        self.root, self.top = made.root, made.top
        self.state = made.top / "@snaptx"
        self.entry = (made.root / "boot/snaptx" if made.plan.boot else self.state / "grub") / entryfile.NAME

    @property
    def program(self) -> str:
        """How hints write the command that works on this sandbox."""
        return f"snaptx --sysroot {self.root}"

    def start(
        self, *words: str, stdin: int | None = None, before: Callable[[], None] | None = None
    ) -> Running:
        """Start a verb; its process does ``before`` first."""
        return Running(("--sysroot", str(self.root), *words), stdin, before)

    def run(self, *words: str, stdin: bytes | int | None = None) -> Said:
        """Run a verb to its end."""
        return snaptx("--sysroot", str(self.root), *words, stdin=stdin)

    def ok(self, *words: str, stdin: bytes | int | None = None) -> str:
        """Run a verb that has to succeed; return its output."""
        said = self.run(*words, stdin=stdin)
        assert said.code == 0, said.err
        return said.out

    def json(self, *words: str) -> Any:
        """Run a verb that has to succeed; return its result."""
        return json.loads(self.ok("--json", *words))

    def refuses(self, code: int | tuple[int, ...], *words: str, stdin: bytes | int | None = None) -> str:
        """Run a verb that has to fail with ``code``, change nothing and say why; return message and hint."""
        before = self.facts()
        said = self.run(*words, stdin=stdin)
        assert said.code in (code if isinstance(code, tuple) else (code,)), (said.code, said.out, said.err)
        found = changes(before, self.facts())
        assert not found, found
        return "\n".join(said.complaint)

    def tree(self, number: int, part: str = "root") -> Path:
        """Return where a generation's tree is."""
        place = self.state / "generations" / str(number) / part
        if not place.is_symlink():
            return place
        return self.top / os.path.normpath(f"@snaptx/generations/{number}/{os.readlink(place)}")

    def boot(self) -> BootState:
        """Return what the entry file says."""
        return entryfile.parse(self.entry.read_text())

    def marks(self) -> dict[int, str]:
        """Return the generations that are listed, with their marks, "s" for staged."""
        listed = self.json("list")
        return {row["number"]: row["marks"] + "s" * (row["phase"] == "staged") for row in listed}

    def default_subvolume(self) -> str:
        """Return the path of the default subvolume, "" for the top level."""
        number = btrfsutil.get_default_subvolume(str(self.top))
        return str(btrfsutil.subvolume_path(str(self.top), number)) if number != 5 else ""

    def reboot(self) -> None:
        """Restart: the entry file decides what is mounted as the root."""
        sandbox.reboot(self.sandbox.directory)

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit trail."""
        path = self.state / "audit/log"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def configure(self, text: str) -> None:
        """Write the machine's configuration."""
        place = self.root / "etc/snaptx/snaptx.conf"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)

    def facts(self) -> dict[str, object]:
        """Return everything that must be as before after a verb that failed."""
        found: dict[str, object] = {f"mount {line}": "" for line in self._mounts()}
        found["default subvolume"] = self.default_subvolume()
        for path, number in btrfsutil.SubvolumeIterator(str(self.top), top=5):
            found[f"subvolume {path}"] = (number, btrfsutil.get_subvolume_read_only(str(self.top / path)))
        found |= {f"running /{path}": fact for path, fact in inspect(self.root, times=True).items()}
        if self.state.exists():
            found |= {f"state {path}": fact for path, fact in self._state().items()}
        for number in self._numbers():
            for part in ("root", "sealed"):
                tree = self.tree(number, part)
                found |= {f"{number}/{part} {path}": fact for path, fact in inspect(tree).items()}
        return found

    def _mounts(self) -> list[str]:
        """Return what is mounted of this sandbox, or in it; others come and go meanwhile."""
        every = system.mounts()
        sources = {mount.source for mount in every if mount.target == str(self.top)}
        inside = (f"{self.sandbox.directory}/", *sources)
        return [str(mount) for mount in every if mount.target.startswith(inside) or mount.source in sources]

    def _numbers(self) -> list[int]:
        directory = self.state / "generations"
        return sorted(int(path.name) for path in directory.glob("[0-9]*")) if directory.exists() else []

    def _state(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for place, below, names in os.walk(self.state):
            inside = os.path.relpath(place, self.state)
            if inside == ".":
                below[:] = [name for name in below if name != "cache"]
            if inside.startswith("generations/"):
                below[:] = [name for name in below if name not in TREES]
            for name in (*below, *names):
                path = os.path.normpath(f"{inside}/{name}")
                if path not in PASSING:
                    found[path] = fact(os.fsencode(self.state / path))
        return found


def fact(path: bytes, *, times: bool = False) -> tuple[object, ...]:
    """Return what there is to know of one path; with ``times`` also what only its inode knows."""
    found = os.lstat(path)
    content: object = ""
    if stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    elif stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    kept: tuple[object, ...] = (
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        content,
        tuple(attributes),
    )
    if stat.S_ISDIR(found.st_mode):
        return (*kept, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) if times else kept
    kept = (*kept, found.st_size, found.st_nlink, found.st_mtime_ns)
    return (*kept, found.st_ctime_ns, found.st_ino, found.st_blocks) if times else kept


def inspect(root: Path, *, times: bool = False) -> dict[str, tuple[object, ...]]:
    """Return every path of a tree on its own filesystem with its facts; "" is the root."""
    if not root.is_dir():
        return {}
    top = os.fsencode(root)
    found = {"": fact(top, times=times)}
    for place, below, names in os.walk(top):
        below[:] = [name for name in below if not os.path.ismount(os.path.join(place, name))]
        for name in (*below, *names):
            path = os.path.join(place, name)
            found[os.fsdecode(path[len(top) + 1 :])] = fact(path, times=times)
    return found


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Return what differs, with both sides."""
    names = sorted(before.keys() | after.keys())
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}


@contextmanager
def made(
    *, layout: str = "debian", size: int = SIZE, source: Path | None = None, init: bool = True
) -> Iterator[Box]:
    """Make a sandbox, adopted unless ``init`` is false; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="snaptx-box-", dir=_quick_place()) as place:
        box = Box(sandbox.create(Path(place), size=size, source=source, layout=Layout(layout)))
        try:
            if init:
                box.ok("init")
            yield box
        finally:
            _destroy(box.sandbox.directory)
            Path(place).mkdir(exist_ok=True)


def _quick_place() -> str | None:
    """Return a place in memory if there is one with room: the tests flush a lot."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else None


def _destroy(directory: Path) -> None:
    try:
        sandbox.destroy(directory)
    except SnaptxError:
        # The test has gone wrong and still uses it: nobody else is to suffer from that.
        inside = [mount.target for mount in system.mounts() if mount.target.startswith(f"{directory}/")]
        for target in reversed(inside):
            mounting.unmount(target, mounting.MNT_DETACH)
        raise
