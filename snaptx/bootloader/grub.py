"""GRUB: the entry file beside GRUB's own configuration, outside every generation.

Where /boot is part of the root, the home is ``@snaptx/grub`` and GRUB reads
kernels from inside the generations; a rename on Btrfs is one step for GRUB
after the storage's barrier.

Where /boot is a filesystem of its own, the home is ``/boot/snaptx`` and each
generation's kernel is copied to ``/boot/snaptx/N``, into a directory of its
own for each content, so that GRUB never sees half a file by a name that an entry
file has.  There a rename over the
entry file can show GRUB an empty file, because GRUB does not replay ext4's
journal: names are exchanged instead, and the barrier freezes the filesystem,
which leaves nothing in the journal.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from snaptx import durable, system
from snaptx.bootloader import defaults, entryfile, kernels, settings, sums
from snaptx.bootloader.counter import Counter, InPartition
from snaptx.bootloader.kernels import Kernel
from snaptx.errors import BootError, SnaptxError, storage_error
from snaptx.model import BootEntry, BootState
from snaptx.storage.base import TreeInfo

NEXT = entryfile.NAME + ".next"
KEPT = "grub.cfg.old"
ESCAPE = "escape-{nonce}.cfg"
"""An entry file that leads away from the generation on trial, for hooks/initramfs-count.sh."""

PER_TRIAL = (ESCAPE, sums.NAME)

UNFINISHED = ".tmp"

GRUB_DIRECTORIES = ("grub", "grub2")
"""How distributions name GRUB's directory in /boot."""


def static_config() -> bytes:
    """Return the grub.cfg that is installed with snaptx."""
    import sys

    places = (
        Path(__file__).parents[2] / "grub/grub.cfg",
        Path(sys.prefix) / "share/snaptx/grub/grub.cfg",
        Path("/usr/share/snaptx/grub/grub.cfg"),
    )
    for place in places:
        if place.is_file():
            return place.read_bytes()
    raise BootError("snaptx's grub.cfg is not installed", hint="reinstall snaptx")


FindCounter = Callable[[], Counter | InPartition | None]


def _no_counter() -> Counter | InPartition | None:
    return None


class _Grub:
    """What both homes share.

    ``top`` is where GRUB's paths begin.  ``find_uuid`` tells the filesystem
    that holds the kernels, ``find_counter`` where GRUB can count tries: looked
    up, at the cost of a command and of reading all mounts, by verbs that write
    an entry file only.
    """

    def __init__(
        self,
        home: Path,
        top: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = _no_counter,
    ) -> None:
        self.home = home
        self._top = top
        self._find_uuid = find_uuid
        self._find_counter = find_counter
        self._entry = home / entryfile.NAME
        self._next = home / NEXT
        self._kept = home / KEPT

    @cached_property
    def uuid(self) -> str:
        """Return the UUID of the filesystem that holds the kernels."""
        return self._find_uuid()

    @cached_property
    def _counter(self) -> Counter | InPartition | None:
        return self._find_counter()

    @property
    def counter(self) -> str:
        """Return where GRUB counts tries, "" if it can't."""
        return self._counter.name if self._counter else ""

    def _install(self, root: Path, original: str, rescue: str = "") -> None:
        """Put the static grub.cfg in place, and the settings that ``root`` has for GRUB.

        ``original`` is the distribution's grub.cfg, ``rescue`` how the kernel finds a root that GRUB
        does not see.
        """
        self.home.mkdir(mode=0o700, exist_ok=True)
        durable.replace(self.home / "grub.cfg", static_config(), 0o644)
        fitting = settings.render(defaults.read(root), original=original, rescue=rescue)
        durable.replace(self.home / settings.NAME, fitting.encode(), 0o644)
        if self._counter:
            self._counter.make()

    def read(self) -> BootState | None:
        """Return what the entry file says, None if there is none."""
        try:
            text = self._entry.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"the boot entry file can't be read: {error.strerror}"
            raise BootError(message, hint="look for errors with: dmesg") from error
        return entryfile.parse(text)

    def prepare(self, state: BootState) -> None:
        """Write the next entry file beside the current one, and what it needs besides."""
        self._renew()
        if not state.confirmed:
            self._prepare_trial(state)
        durable.write_new(self._next, entryfile.render(state, self.uuid).encode(), 0o644)

    def _renew(self) -> None:
        """Let grub.cfg be the one that this snaptx writes entry files for."""
        path = self.home / "grub.cfg"
        wanted = static_config()
        if path.is_file() and path.read_bytes() == wanted:
            return
        if path.is_file():
            # The old file has to last until the barrier: GRUB may still find it by the name.
            self._kept.unlink(missing_ok=True)
            os.link(path, self._kept)
        durable.replace(path, wanted, 0o644)

    def _prepare_trial(self, state: BootState) -> None:
        if self._counter:
            self._counter.make()
        path = self.home / sums.NAME.format(nonce=state.nonce)
        entry = next((entry for entry in state.entries if entry.number == state.default), None)
        if entry is None or path.exists():
            return
        try:
            text = sums.render(entry, self._file)
        except OSError as error:
            raise storage_error(error, "cannot read the kernel") from error
        durable.write_new(path, text.encode(), 0o644)

    def _file(self, path: str) -> Path:
        """Return where a file is that GRUB has a path for."""
        return self._top / path.lstrip("/")

    def discard(self) -> None:
        """Remove a prepared entry file, and what was made for trials that are over."""
        for path in (self._next, self._kept):
            path.unlink(missing_ok=True)
        try:
            state = self.read()
        except SnaptxError:
            return  # damaged: repair decides by what is there
        nonce = state.nonce if state and not state.confirmed else ""
        for name in PER_TRIAL:
            kept = name.format(nonce=nonce)
            for path in self.home.glob(name.format(nonce="*")):
                if path.name != kept:
                    path.unlink()

    def remove(self) -> None:
        """Remove the home and the counter."""
        shutil.rmtree(self.home, ignore_errors=True)
        if self._counter:
            self._counter.remove()


def _words(root: Path) -> list[str]:
    return ["ro", *kernels.command_line(root)]


def _entry(number: int, title: str, kernel: Kernel, at: str, cmdline: list[str]) -> BootEntry:
    """Return the entry of a kernel in the directory ``at``, as GRUB finds it."""
    initrd = at + kernel.initrd if kernel.initrd else ""
    title = entryfile.entry_title(title, kernel.version)
    return BootEntry(number, title, at + kernel.image, initrd, " ".join(cmdline))


def grub_directory(boot: Path) -> str:
    """Return the name of the distribution's directory of GRUB, "" if there is none."""
    return next((name for name in GRUB_DIRECTORIES if (boot / name / "grub.cfg").is_file()), "")


class GrubInRoot(_Grub):
    """GRUB that reads kernels out of the generations, on the same filesystem; ``home`` is beside them."""

    def __init__(
        self,
        home: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = _no_counter,
    ) -> None:
        super().__init__(home, home.parents[1], find_uuid, find_counter)
        self._offered: dict[str, Path] = {}

    def install(self, root: Path, adopted: TreeInfo) -> None:
        """Put in place what does not change with a generation."""
        name = grub_directory(root / "boot")
        # openSUSE keeps it in a subvolume of its own.
        apart = system.mount_at(root / "boot" / name) if name else None
        place = apart.root if apart else f"{adopted.loader_path}/boot/{name}"
        self._install(root, f"{place}/grub.cfg" if name else "")

    def prepare(self, state: BootState) -> None:
        """Write the next entry file, and the one the initramfs is to put in its place if it fails."""
        escape = entryfile.escape(state)
        if escape:
            text = entryfile.render(escape, self.uuid)
            durable.write_new(self.home / ESCAPE.format(nonce=state.nonce), text.encode(), 0o644)
        super().prepare(state)

    def switch(self) -> None:
        """Rename the prepared entry file over the current one."""
        try:
            os.replace(self._next, self._entry)
        except OSError as error:
            raise storage_error(error, "cannot switch the boot entry") from error

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Name the kernel inside the tree; paths start at the top level, as GRUB's do."""
        kernel = kernels.choose(root)
        self._offered[info.loader_path] = root
        return _entry(number, title, kernel, f"{info.loader_path}/boot/", [*info.cmdline, *_words(root)])

    def _file(self, path: str) -> Path:
        """Look in the trees that were offered: on ZFS none is below another."""
        for begin, root in self._offered.items():
            if path.startswith(f"{begin}/"):
                return root / path.removeprefix(f"{begin}/")
        return super()._file(path)

    def forget(self, number: int) -> None:
        """Do nothing: the kernel goes with its generation."""

    def barrier(self) -> None:
        """Do nothing: the storage's barrier covers the entry file."""


class GrubOnBoot(_Grub):
    """GRUB that reads kernels from a /boot of its own."""

    def __init__(
        self,
        boot: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = _no_counter,
    ) -> None:
        super().__init__(boot / "snaptx", boot, find_uuid, find_counter)
        self._boot = boot
        # Older than every write the barrier answers for.
        self._fd = os.open(boot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def install(self, root: Path, adopted: TreeInfo) -> None:
        """Put in place what does not change with a generation."""
        name = grub_directory(self._boot)
        self._install(root, f"/{name}/grub.cfg" if name else "", " ".join(adopted.cmdline))

    def switch(self) -> None:
        """Exchange the prepared entry file with the current one."""
        try:
            with system.descriptor(self.home, os.O_RDONLY | os.O_DIRECTORY) as home:
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
        place = self.home / str(number)
        others = sorted(self.home.glob("[0-9]*"))
        kernel = kernels.choose(root, self._boot, *(copy for of in (place, *others) for copy in _copies(of)))
        try:
            copy = kernel if kernel.place.parent == place else _copied(kernel, place)
        except OSError as error:
            raise storage_error(error, f"cannot copy the kernel to {self._boot}") from error
        at = f"/snaptx/{number}/{copy.place.name}/"
        return _entry(number, title, copy, at, [*info.cmdline, *_words(root)])

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
            files = [self._boot / path.lstrip("/") for path in (entry.kernel, entry.initrd) if path]
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
            system.freeze(self._fd)
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
    names = [name for name in (kernel.image, kernel.initrd) if name]
    found = [(kernel.place / name).stat() for name in names]
    facts = " ".join(f"{one.st_size} {one.st_mtime_ns}" for one in found)
    whole = place / hashlib.sha256(facts.encode()).hexdigest()[:8]
    if not all((whole / name).is_file() for name in names):
        fresh = whole.with_name(whole.name + UNFINISHED)
        for old in (fresh, whole):
            shutil.rmtree(old, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700, parents=True)
            for name in names:
                _copy(kernel.place / name, fresh / name)
            durable.sync_directory(fresh)
            os.rename(fresh, whole)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return replace(kernel, place=whole)


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, durable on return."""
    shutil.copyfile(source, target)
    found = source.stat()
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    with system.descriptor(target, os.O_RDONLY) as fd:
        os.fsync(fd)
