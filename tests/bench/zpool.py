"""An arena on ZFS: a pool over a file, its boot environment in the place of the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.arena import Arena

SIZE = 6 << 30
"""Bytes of the pool; a hole until written to."""


def lacks() -> list[str]:
    """Return what this machine lacks, each with the way to get it."""
    found = [] if os.geteuid() == 0 else ["root's rights: run it with sudo"]
    return [*found, *([] if Path("/dev/zfs").exists() else ["ZFS in the kernel: make bench-zfs"])]


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class PoolArena(Arena):
    """A pool of its own: the root is ``POOL/ROOT/debian``, with a kernel in /boot."""

    options = ("--sysroot", "root")

    def __init__(self, directory: Path, files: int, seed: int, root_files: int = 0) -> None:
        super().__init__(directory, files, seed, root_files)
        self.root = self.top = directory / "root"
        self.pool = "bench" + directory.name[-8:].replace("_", "-")

    @property
    def _dataset(self) -> str:
        return f"{self.pool}/ROOT/debian"

    def open(self) -> None:
        """Make the base and the pool with it."""
        self.root_files = self.make_base()
        self._make_pool()
        _run("cp", "--archive", f"{self.base}/.", self.root)
        for name in ("vmlinuz-6.1.0", "initrd.img-6.1.0"):
            (self.root / "boot" / name).write_text(f"{name}\n")
        self.snaptx("init", "--accept-rollback")

    def _make_pool(self) -> None:
        image = self.directory / "pool.img"
        with image.open("wb") as file:
            file.truncate(SIZE)
        self.root.mkdir()
        options = ("-O", "mountpoint=none", "-O", "compression=lz4", "-O", "atime=off", "-O", "xattr=sa")
        _run("zpool", "create", "-f", *options, "-O", "acltype=posix", self.pool, image)
        _run("zfs", "create", "-o", "canmount=off", f"{self.pool}/ROOT")
        _run("zfs", "create", "-o", "canmount=noauto", "-o", "mountpoint=/", self._dataset)
        self._mount(self._dataset, self.root)

    def _mount(self, name: str, place: Path) -> None:
        _run("mount", "-t", "zfs", "-o", "zfsutil", name, place)

    def settle(self) -> None:
        """Let what was destroyed be freed, so that nobody pays for another; have the payloads in memory."""
        _run("zpool", "sync", self.pool)
        _run("zpool", "wait", "-t", "free", self.pool)
        self._warm()

    @contextmanager
    def snapshot(self) -> Iterator[Path]:
        """Yield a clone of the root, destroyed to the last block afterwards."""
        target, snapshot = self.directory / "unpacked", f"{self._dataset}@unpacked"
        clone = f"{self.pool}/ROOT/unpacked"
        target.mkdir()
        _run("zfs", "snapshot", snapshot)
        _run("zfs", "clone", "-o", "canmount=noauto", "-o", "mountpoint=/", snapshot, clone)
        self._mount(clone, target)
        try:
            yield target
        finally:
            _run("umount", target)
            target.rmdir()
            _run("zfs", "destroy", "-R", snapshot)

    def close(self) -> None:
        """Destroy the pool, then everything else; if something holds it, nothing is touched."""
        if self.root.is_mount():
            _run("umount", self.root)
            _run("zpool", "destroy", "-f", self.pool)
        shutil.rmtree(self.directory)
