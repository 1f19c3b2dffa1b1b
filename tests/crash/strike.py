"""What befalls a file system while snaptx works on it, after the change somebody chose.

``read-only``
    the disk fails for a moment and the kernel is made to commit: it aborts its
    transaction and lets nothing be written any more, although the disk is well again
``space``, ``metadata``
    somebody fills the disk: what there is for data, or for all else
``quota``
    somebody sets a limit to what is snaptx's own, below what is there
``quota-root``
    the same for the root of the newest generation
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import btrfsutil

from snaptx.errors import NoSpaceError, OutcomeUnknownError
from snaptx.storage.btrfs import BtrfsStorage
from snaptx.storage.btrfsioctl import IOC_SYNC
from snaptx.transaction import Transaction
from tests.crash.census import APP, STATE
from tests.crash.driver import Driver
from tests.crash.faults import CHANGES
from tests.crash.recorder import Recorder

POINTS = (
    *((os, name) for name in CHANGES),
    *((BtrfsStorage, name) for name in ("snapshot", "delete", "make_default", "barrier")),
    (Transaction, "step"),
)
"""What is counted: every change, every barrier, and every step of a transaction as it begins."""

KINDS = ("read-only", "space", "metadata", "quota", "quota-root")
FULL = (0, NoSpaceError.code, OutcomeUnknownError.code)
"""How a verb may end where there is no space."""

FILL = "fill"
TARGET = "x" * 1900
"""Of a symbolic link: that lies in the metadata, and takes no room among the data."""

_link = os.symlink  # also where every change is counted


def is_read_only(place: Path) -> bool:
    """Return whether nothing can be written where a file system is mounted."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def prepare(kind: str, top: Path) -> None:
    """Make ready for a kind of strike, once, what later takes too long."""
    if kind.startswith("quota"):
        _btrfs("quota", "enable", str(top))
        _btrfs("quota", "rescan", "-w", str(top))
    if kind == "metadata":
        _fill(top, 16 << 20)
        _fill_metadata(top, spared=800)


def relieve(kind: str, top: Path) -> None:
    """Give room again after a kind of strike."""
    if kind.startswith("quota"):
        _btrfs("quota", "disable", str(top))
    with suppress(FileNotFoundError):
        (top / FILL).unlink()
    with suppress(FileNotFoundError):
        for name in os.listdir(top / "links")[-4000:]:
            (top / "links" / name).unlink()
    _sync(top)


@dataclass
class Striker(Driver):
    """Strikes after the ``nth`` point of a verb; 0 only counts.  ``room``: so many bytes stay free.

    ``above`` is where the top level is mounted.
    """

    recorder: Recorder | None = None
    above: Path = Path()
    kind: str = "read-only"
    nth: int = 0
    room: int = 0

    @property
    def points(self) -> tuple[str, ...]:
        """Name the points the last verb came to."""
        with suppress(FileNotFoundError):
            return tuple((self.place / "points").read_text().splitlines())
        return ()

    def _prepare(self) -> None:
        """Count from now on, in the process that becomes snaptx; commands it runs are not asked."""
        super()._prepare()
        notes = os.open(self.place / "points", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        own, reached = os.getpid(), 0

        def came(name: str) -> None:
            nonlocal reached
            if os.getpid() == own:
                reached += 1
                os.write(notes, f"{name}\n".encode())
                if reached == self.nth:
                    self.strike()

        for owner, name in POINTS:
            setattr(owner, name, _followed(getattr(owner, name), name, came))

    def strike(self) -> None:
        """Do to the file system what ``kind`` says."""
        match self.kind:
            case "read-only":
                self._stop_writing()
            case "space":
                _fill(self.above, self.room)
            case "metadata":
                _fill_metadata(self.above)
            case "quota":
                for place in (STATE, APP):
                    _limit(self.above / place)
            case "quota-root":
                _limit(self._newest_root())

    def _newest_root(self) -> Path:
        """Return the root of the newest generation, of the application where there is one."""
        places = (self.above / APP / "generations", self.above / STATE / "generations")
        roots = [[*place.glob("[0-9]*/root")] for place in places]
        return max(next(filter(None, roots)), key=lambda root: int(root.parent.name))

    def _stop_writing(self) -> None:
        """Turn the file system read-only, without a trace on the disk."""
        assert self.recorder is not None
        for kind in ("write", "flush"):
            self.recorder.fail(kind, lasting=True)
        with suppress(OSError):
            os.utime(self.root)  # there must be something to commit
            _sync(self.root)
        self.recorder.mend()
        if not is_read_only(self.root):
            raise RuntimeError("the file system did not turn read-only")


def _sync(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, IOC_SYNC)
    finally:
        os.close(fd)


def _fill(top: Path, room: int) -> None:
    fd = os.open(top / FILL, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    for size in (32 << 20, 4 << 20, 1 << 18, 1 << 14, 1 << 12):
        with suppress(OSError):
            while True:
                os.posix_fallocate(fd, os.fstat(fd).st_size, size)
        _sync(top)
    os.truncate(fd, max(0, os.fstat(fd).st_size - room))
    os.close(fd)
    _sync(top)


def _fill_metadata(top: Path, spared: int = 0) -> None:
    """Make long links until none fits; take ``spared`` of them away again."""
    place, made = top / "links", 0
    place.mkdir(exist_ok=True)
    names = [place / f"{os.getpid()}-{number}" for number in range(100_000)]
    with suppress(OSError):
        for made, name in enumerate(names):  # noqa: B007
            _link(TARGET, name)
    for name in names[max(0, made - spared) : made]:
        name.unlink()
    _sync(top)


def _limit(subvolume: Path) -> None:
    if subvolume.is_dir():
        number = btrfsutil.subvolume_id(str(subvolume))
        _btrfs("qgroup", "limit", "16K", f"0/{number}", str(subvolume))


def _btrfs(*words: str) -> None:
    result = subprocess.run(["btrfs", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"btrfs {' '.join(words)}: {result.stderr}")


def _followed(act: Callable[..., Any], name: str, then: Callable[[str], None]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        finally:
            then(f"step {args[1]}" if name == "step" else name)

    return both
