"""GRUB that reads kernels from a /boot of its own, which is not Btrfs.

The home is ``/boot/snaptx``, and each generation's kernel is copied to
``/boot/snaptx/N``, into a directory of its own for each content, so that GRUB
never sees half a file by a name that an entry file has.  What generations have
in common is there once, with a link for each: nothing writes to a copy.

A rename over the entry file can show GRUB an empty file, because GRUB does not
replay ext4's journal: names are exchanged instead, and the barrier freezes the
filesystem, which leaves nothing in the journal.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from snaptx import durable, system
from snaptx.bootloader import entryfile, freezing
from snaptx.bootloader.grub import NEXT, FindCounter, Grub, entry_of, no_counter, original, words_of
from snaptx.errors import SnaptxError, storage_error
from snaptx.model import BootEntry
from snaptx.storage.base import TreeInfo

if TYPE_CHECKING:
    from snaptx.bootloader.kernels import Kernel

UNFINISHED = ".tmp"
PIECE = 1 << 20
"""Bytes that are compared at a time."""


class GrubOnBoot(Grub):
    """GRUB that reads kernels from a /boot of its own."""

    apart = True

    def __init__(
        self,
        boot: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = no_counter,
    ) -> None:
        super().__init__(boot / "snaptx", boot, find_uuid, find_counter, boot)
        self._boot: Path = boot
        # Older than every write the barrier answers for.
        self._fd = os.open(boot, system.DIRECTORY | os.O_CLOEXEC)

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Put in place what does not change with a generation."""
        from snaptx.bootloader.settings import Ways

        found = original(self._boot)
        path = f"/{found.directory}/grub.cfg" if found and found.names_roots else ""
        return self._install(root, Ways(original=path, rescue=" ".join(adopted.cmdline)))

    def switch(self) -> None:
        """Exchange the prepared entry file with the current one."""
        try:
            with system.descriptor(self.home, system.DIRECTORY) as home:
                if self._entry.exists():
                    system.exchange(home, NEXT, entryfile.NAME)
                else:
                    os.rename(NEXT, entryfile.NAME, src_dir_fd=home, dst_dir_fd=home)
        except OSError as error:
            raise storage_error(error, "cannot switch the boot entry") from error

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Copy the tree's kernel: its own, one on /boot, or one copied before that is gone from there.

        A copy is never written again: what is made anew gets another directory.
        """
        from snaptx.bootloader import kernels

        place = self.home / str(number)
        others = sorted(self.home.glob("[0-9]*"))
        kernel = kernels.choose(root, self._boot, *(copy for of in (place, *others) for copy in _copies(of)))
        try:
            copy = _copied(kernel, place)
        except OSError as error:
            raise storage_error(error, f"cannot copy the kernel to {self._boot}") from error
        at = f"/snaptx/{number}/{copy.image.parent.name}/"
        return entry_of(number, title, copy, at, words_of(info, root))

    def forget(self, number: int) -> None:
        """Remove the generation's kernel from /boot."""
        shutil.rmtree(self.home / str(number), ignore_errors=True)
        self._keep_removed()

    def discard(self) -> None:
        """Remove a prepared entry file, and copies of kernels that no entry names."""
        super().discard()
        self._keep_removed()
        unnamed = list(self._unnamed())
        try:
            if unnamed:
                self.barrier()  # GRUB may see the entry file from before, which names them
        except SnaptxError:
            return  # they stay until the disk obeys
        try:
            for path in unnamed:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                durable.sync_directory(path.parent)
        except OSError as error:
            raise storage_error(error, f"cannot remove from {self._boot}") from error

    def _unnamed(self) -> Iterator[Path]:
        """Yield the copies that no entry names, of the generations that have an entry."""
        try:
            state = self.read()
        except SnaptxError:
            return  # damaged: repair decides by what is there
        for entry in state.entries if state else ():
            files = [self._boot / path.lstrip("/") for path in entry.files]
            named = {*files, *(path.parent for path in files)}
            place = self.home / str(entry.number)
            yield from (path for path in place.glob("*") if path not in named)

    def _keep_removed(self) -> None:
        """Let what was removed stay so: the root's disk may know of a transaction's end before /boot does."""
        try:
            durable.sync_directory(self.home)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"cannot remove from {self._boot}") from error

    def barrier(self) -> None:
        """Leave nothing in the journal of /boot."""
        try:
            system.syncfs(self._fd)
            freezing.for_a_moment(self._fd)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a filesystem without a journal has nothing to freeze
                raise storage_error(error, "/boot could not be made durable") from error


def _copies(place: Path) -> list[Path]:
    """Return the directories of a generation's complete copies."""
    return sorted(path for path in place.glob("*") if not path.name.endswith(UNFINISHED))


def _copied(kernel: Kernel, place: Path) -> Kernel:
    """Return a copy of ``kernel`` in a directory of ``place``, made if it is not there.

    The directory's name tells one content from another, by the sizes and times of the files.
    """
    files = kernel.files
    if all(path.parents[1] == place for path in files):
        return kernel
    found = [path.stat() for path in files]
    facts = " ".join(f"{one.st_size} {one.st_mtime_ns}" for one in found)
    whole = place / hashlib.sha256(facts.encode()).hexdigest()[:8]
    if not all((whole / path.name).is_file() for path in files):
        fresh = whole.with_name(whole.name + UNFINISHED)
        for old in (fresh, whole):
            shutil.rmtree(old, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700, parents=True)
            for path in files:
                _put(path, fresh / path.name, _twins(path, whole))
            durable.sync_directory(fresh)
            os.rename(fresh, whole)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    initrd = kernel.initrd and whole / kernel.initrd.name
    early = tuple(whole / path.name for path in kernel.early)
    return kernel._replace(image=whole / kernel.image.name, initrd=initrd, early=early)


def _twins(path: Path, whole: Path) -> list[Path]:
    """Return what may be the same file: copies of its sizes and times, and itself if it is a copy."""
    home = whole.parents[1]
    itself = [path] if path.is_relative_to(home) else []
    return [*itself, *sorted(home.glob(f"*/{whole.name}/{path.name}"))]


def _put(source: Path, target: Path, twins: Iterable[Path]) -> None:
    """Link a file that is a copy already, or copy it; durable on return.

    Nearly all generations have the same kernel.  Bytes are compared, so that no copy that the disk has
    damaged is spread.
    """
    if not any(_is_same(source, twin) and _is_linked(twin, target) for twin in twins):
        _copy(source, target)
    with system.descriptor(target, os.O_RDONLY) as fd:
        os.fsync(fd)  # of a link, its count: without a journal the name alone would reach the disk


def _is_linked(twin: Path, target: Path) -> bool:
    """Link a file if the filesystem can: FAT has no links, and ext4 65,000 to a file."""
    try:
        os.link(twin, target, follow_symlinks=False)
    except OSError:
        return False  # what else it may be, copying meets too
    return True


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two files have the same content, False where that can't be read."""
    try:
        with one.open("rb") as left, other.open("rb") as right:
            if os.path.sameopenfile(left.fileno(), right.fileno()):
                return True
            while (piece := left.read(PIECE)) == right.read(PIECE):
                if not piece:
                    return True
    except OSError:
        return False
    return False


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time."""
    shutil.copyfile(source, target)
    found = source.stat()
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
