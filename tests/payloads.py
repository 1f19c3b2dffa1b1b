"""Payloads written as a few lines of Python, and a place to lay them over a base."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from snaptx.model import Counts, Kind, Member, Row
from snaptx.overlay.base import Base
from snaptx.overlay.content import Progress
from snaptx.overlay.feed import Feed, frames
from snaptx.overlay.manifest import Manifest, to_row
from snaptx.overlay.readback import differences, reading_back
from snaptx.overlay.scan import scan_tree
from snaptx.overlay.sift import sift
from snaptx.overlay.writer import Writer
from snaptx.system import descriptor

THEN = 1_600_000_000_123_456_789
LARGE = bytes(range(256)) * 4096 * 5
"""The content of usr/bin/large: 5 MiB."""
LONG_AGO = 1_500_000_000 * 10**9
MODES = {Kind.DIRECTORY: 0o755, Kind.SYMLINK: 0o777}


def member(path: str | bytes, kind: Kind, **more: object) -> Member:
    """Make a member owned by who runs the tests, at a fixed time."""
    asked = Member(os.fsencode(path), kind, MODES.get(kind, 0o644), os.getuid(), os.getgid(), THEN)
    return asked._replace(**more)  # type: ignore[arg-type]


def file(path: str | bytes, data: bytes = b"", **more: object) -> Member:
    """Make a regular file."""
    return member(path, Kind.FILE, size=len(data), data=io.BytesIO(data), **more)


def directory(path: str | bytes, **more: object) -> Member:
    """Make a directory."""
    return member(path, Kind.DIRECTORY, **more)


def symlink(path: str | bytes, target: str | bytes, **more: object) -> Member:
    """Make a symlink."""
    return member(path, Kind.SYMLINK, link=os.fsencode(target), **more)


def hardlink(path: str | bytes, target: str | bytes) -> Member:
    """Make a hard link."""
    return member(path, Kind.HARDLINK, link=os.fsencode(target))


def whiteout(path: str | bytes) -> Member:
    """Remove a path of the base."""
    return member(path, Kind.WHITEOUT)


def opaque(path: str | bytes) -> Member:
    """Empty a directory of the base."""
    return member(path, Kind.OPAQUE)


def again(asked: Member) -> Member:
    """Return a member with its data at the start, to be read once more."""
    if isinstance(asked.data, io.BytesIO):
        asked.data.seek(0)
    return asked


def existing(base: Path, path: str) -> Member:
    """Return the file or directory ``path`` of ``base`` as a payload without attributes would hold it."""
    st = (base / path).stat()
    about = {"mode": st.st_mode & 0o7777, "uid": st.st_uid, "gid": st.st_gid, "mtime_ns": st.st_mtime_ns}
    if stat.S_ISDIR(st.st_mode):
        return directory(path, **about)
    return file(path, (base / path).read_bytes(), **about)


def index(tree: Path, path: Path) -> None:
    """Write the manifest of a whole tree."""
    with descriptor(tree, os.O_RDONLY | os.O_DIRECTORY) as fd, Manifest.create(path) as manifest:
        manifest.put(scan_tree(fd))


def every_row(manifest: Manifest) -> list[Row]:
    """Return all rows of a manifest, in its order."""
    return list(map(to_row, manifest.following(b"", manifest.count())))


def rows(tree: Path) -> dict[bytes, Row]:
    """Return what is in a tree, by path."""
    with descriptor(tree, os.O_RDONLY | os.O_DIRECTORY) as fd:
        return {row.path: row for row in scan_tree(fd)}


def _copy(base: Path, root: Path) -> None:
    shutil.copytree(base, root, symlinks=True)


class Ground:
    """A base in ``base``, what is made of it in ``root``, and their manifests, below ``place``.

    ``snapshot`` makes the one of the other when a payload is first laid.
    """

    def __init__(self, place: Path, snapshot: Callable[[Path, Path], None] = _copy) -> None:
        self.base = place / "base"
        self.root = place / "root"
        self._old, self._new = place / "base.manifest", place / "root.manifest"
        self._snapshot = snapshot

    def start(self) -> None:
        """Index the base and take the snapshot."""
        index(self.base, self._old)
        self._snapshot(self.base, self.root)

    def lay(self, *members: Member, progress: Progress | None = None) -> Counts:
        """Lay a payload over the snapshot, read it back and return the counts."""
        if not self.root.exists():
            self.start()
        flags = os.O_RDONLY | os.O_DIRECTORY
        self._new.unlink(missing_ok=True)
        with (
            descriptor(self.root, flags) as root,
            descriptor(self.base, flags) as base,
            Manifest.fork(self._old, self._new) as manifest,
        ):
            return self._write(root, base, manifest, members, progress)

    def _write(
        self,
        root: int,
        base: int,
        manifest: Manifest,
        members: Iterable[Member],
        progress: Progress | None,
    ) -> Counts:
        with (
            closing(Base(base, manifest)) as known,
            Writer(root, base, manifest, progress=progress) as writer,
        ):
            travelled = map(b"".join, frames(sift(map(again, members), known), lambda: 0))
            writer.write(Feed(travelled).pieces())
            with reading_back(root, manifest):
                return writer.finish()

    def indexed(self) -> dict[bytes, Row]:
        """Return the rows of the new manifest, by path."""
        with Manifest.open(self._new) as manifest:
            return {row.path: row for row in every_row(manifest)}

    def read(self, path: str) -> bytes:
        """Return the content of a file of the result."""
        return (self.root / path).read_bytes()


def small_base(place: Path) -> Ground:
    """Make a base with a bit of everything."""
    ground = Ground(place)
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


def lay_checked(ground: Ground, *members: Member) -> Counts:
    """Lay a payload; the new manifest must be what a scan of the tree finds, inodes and ctimes included."""
    counts = ground.lay(*members)
    found, indexed = rows(ground.root), ground.indexed()
    assert sorted(indexed) == sorted(found)
    touched = [path for path, row in indexed.items() if differences(row, found[path])]
    assert touched == []
    return counts
