"""Where the contestants meet: one sandbox with a base, and payloads over it made when first asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from tests import workload
from tests.bench import measure
from tests.bench.measure import Sample
from tests.demo import RUN, snaptx_command

SMALLEST_BASE = 20_000
ODD = ("--exclude=new-package-*", "--exclude=new-*")
"""What neither dpkg nor ostree takes: lines in names, FIFOs."""

FRESH = "./opt/fresh/"
PADDING = b"/more-files"


class Arena:
    """A sandbox in ``directory``: a root of ``root_files`` files, updates of ``files`` entries over it.

    Those that no update needs are small files of our own, so that updates are the same in every root.
    """

    options: tuple[str, ...] = RUN
    """How snaptx is told which root it is about."""

    def __init__(self, directory: Path, files: int, seed: int, root_files: int = 0) -> None:
        self.directory = directory
        self.files, self.seed = files, seed
        self.root_files = root_files
        self.top = directory / "box/top"
        self.root = self.top / "@rootfs"
        self.base = directory / "base"

    def open(self) -> None:
        """Make the base and the sandbox, and read the base once."""
        count = self.make_base()
        self.snaptx("sandbox", "create", "box", "--size", "24G", "--from", "base", anywhere=True)
        more = self.root_files - count
        self.root_files = count + (_pad(self.root, more) if more > 0 else 0)
        self.snaptx("init")
        # Warm, without new times of access: they would make every file read a changed file of the root.
        subprocess.run(["mount", "-o", "remount,noatime", self.top], check=True)
        warm = ["find", str(self.root), "-type", "f", "-exec", "cat", "{}", "+"]
        subprocess.run(warm, stdout=subprocess.DEVNULL, check=True)

    def make_base(self) -> int:
        """Make the tree of real files that updates are made for; return how many."""
        return workload.make_base(self.base, max(SMALLEST_BASE, self.files * 11 // 10))

    def snaptx(self, *words: str | Path, anywhere: bool = False) -> Sample:
        """Run snaptx on the sandbox's root and return what it took."""
        return self.run(*snaptx_command(), *(() if anywhere else self.options), *words)

    def run(self, *command: str | Path) -> Sample:
        """Run a command here and return what it took."""
        return measure.run(command, self.directory)

    def settle(self) -> None:
        """Let the cleaner finish, so that nobody pays for what another left; have the payloads in memory."""
        # The cleaner may sleep for half a minute; a sync of the filesystem wakes it.
        for command in (["filesystem", "sync"], ["subvolume", "sync"], ["filesystem", "sync"]):
            subprocess.run(["btrfs", *command, self.top], capture_output=True, check=True)
        self._warm()

    def _warm(self) -> None:
        for payload in self.directory.glob("*.tar*"):
            with payload.open("rb") as data:
                while data.read(1 << 20):
                    pass

    @contextmanager
    def snapshot(self) -> Iterator[Path]:
        """Yield a writable snapshot of the root, deleted to the last block afterwards."""
        target = self.top / "unpacked"
        subprocess.run(["btrfs", "-q", "subvolume", "snapshot", self.root, target], check=True)
        try:
            yield target
        finally:
            subprocess.run(["btrfs", "-q", "subvolume", "delete", "--commit-after", target], check=True)

    @cached_property
    def mixed(self) -> Path:
        """Return a tar of which seven paths in ten are as the root has them."""
        return self._tar("mixed", changed=0.23, new=0.05, removed=0.02)

    @cached_property
    def packed(self) -> Path:
        """Return the same, packed with zstd."""
        target = self.directory / "mixed.tar.zst"
        subprocess.run(["zstd", "-q", "-f", self.mixed, "-o", target], check=True)
        return target

    @cached_property
    def changed(self) -> Path:
        """Return a tar of files that all differ, six in ten in content, the others in metadata."""
        return self._tar("changed", changed=0.96, new=0.0, removed=0.0)

    @cached_property
    def fresh(self) -> Path:
        """Return a tar of the mixed one's files, all below directories that the root has not."""
        target = self.directory / "fresh.tar"
        with self._tree("mixed.tar", "--exclude=.wh.*") as tree:
            rename = ["--sparse", "--sort=name", f"--transform=s,^\\./,{FRESH},Sh"]
            subprocess.run(["tar", "-cf", target, *workload.METADATA, *rename, "-C", tree, "."], check=True)
        return target

    @cached_property
    def plain(self) -> Path:
        """Return a tar of what every packager can hold: the mixed one without removals and odd files."""
        target = self.directory / "plain.tar"
        with self._tree("mixed.tar", "--exclude=.wh.*", *ODD) as tree:
            workload.pack(tree, target)
        return target

    @cached_property
    def package(self) -> Path:
        """Return the plain payload as a Debian package, not compressed."""
        target = self.directory / "plain.deb"
        with self._tree(self.plain.name) as tree:
            (tree / "DEBIAN").mkdir()
            fields = (
                "Package: plain",
                "Version: 1",
                "Architecture: all",
                "Maintainer: Nobody <n@example.org>",
            )
            (tree / "DEBIAN/control").write_text("\n".join([*fields, "Description: a payload", ""]))
            subprocess.run(["dpkg-deb", "-Znone", "-b", tree, target], stdout=subprocess.DEVNULL, check=True)
        return target

    @contextmanager
    def _tree(self, tar: str, *options: str) -> Iterator[Path]:
        """Yield a directory with what a tar holds."""
        _ = self.mixed
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            words = [
                "tar",
                "--warning=no-timestamp",
                "-xpf",
                str(self.directory / tar),
                *workload.METADATA[:3],
                *options,
                "-C",
                place,
            ]
            subprocess.run(words, check=True)
            yield Path(place)

    def _tar(self, name: str, **shares: float) -> Path:
        overlay, target = self.directory / "overlay", self.directory / f"{name}.tar"
        workload.make_overlay(self.base, overlay, self.files, self.seed, **shares)
        workload.pack(overlay, target)
        shutil.rmtree(overlay)
        return target

    def close(self) -> None:
        """Remove the sandbox, then everything else; if something holds it, nothing below it is touched."""
        if (self.directory / "box/sandbox.json").exists():
            self.snaptx("sandbox", "destroy", "box", anywhere=True)
        shutil.rmtree(self.directory)


def _pad(root: Path, files: int) -> int:
    """Put small files beside those of a base, in directories of their own all over it; return how many.

    The base's own directories keep their times: what an update changes stays the same.
    """
    places = [
        place for source in (b"etc", b"usr") for place, _, _ in os.walk(os.fsencode(root) + b"/" + source)
    ]
    count = 0
    for number, place in enumerate(places):
        times = os.stat(place)
        os.mkdir(place + PADDING)
        for _ in range(files * (number + 1) // len(places) - count):
            Path(os.fsdecode(place + PADDING), f"file-{count}").write_text(f"{count}\n")
            count += 1
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    return count


class Arenas:
    """The arenas of one run of the benchmark, each made when a row first needs it."""

    def __init__(self, place: str, seed: int, tell: Callable[[str], None], kind: type[Arena] = Arena) -> None:
        self.place, self._seed, self._tell, self._kind = place, seed, tell, kind
        self._open: dict[tuple[int, int], Arena] = {}

    def get(self, files: int, root_files: int = 0) -> Arena:
        """Return the arena for payloads of so many entries over a root of so many files, or enough."""
        key = (files, root_files)
        if key not in self._open:
            self._tell(f"preparing a root and payloads of {files:,} entries")
            directory = Path(tempfile.mkdtemp(prefix="snaptx-bench-", dir=self.place))
            self._open[key] = self._kind(directory, files, self._seed, root_files)
            self._open[key].open()
        return self._open[key]

    def drop(self, keep: int) -> None:
        """Close all but the arenas for payloads of ``keep`` entries."""
        for key in [key for key in self._open if key[0] != keep]:
            self._open.pop(key).close()

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()
