"""GRUB: the entry file beside GRUB's own configuration, outside every generation.

What both homes share: ``inroot`` is where /boot is part of the root, ``onboot``
where it is a filesystem of its own.  What only installation and the offer of a
kernel need is imported there: every verb reads the entry file.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snaptx import durable, log, system
from snaptx.bootloader import entryfile, sums
from snaptx.errors import BootError, SnaptxError, storage_error
from snaptx.model import BootEntry, BootState

if TYPE_CHECKING:
    from snaptx.bootloader.counter import Counter, InPartition
    from snaptx.bootloader.kernels import Kernel
    from snaptx.bootloader.settings import Ways
    from snaptx.storage.base import TreeInfo

NEXT = entryfile.NAME + ".next"
KEPT = "grub.cfg.old"
ESCAPE = "escape-{nonce}.cfg"
"""An entry file that leads away from the generation on trial, for hooks/initramfs-count.sh."""

ACCESS = "access.cfg"
"""Beside grub.cfg: who may do what at the menu (see ``access``)."""

PER_TRIAL = (ESCAPE, sums.NAME)

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


FindCounter = Callable[[], "Counter | InPartition | None"]


def no_counter() -> Counter | InPartition | None:
    """Say that GRUB can't count."""
    return None


class Grub:
    """What both homes share.

    ``top`` is where GRUB's paths begin, ``boot`` the directory that has the
    distribution's own menu, if there is one.  ``find_uuid`` tells the filesystem
    that holds the kernels, ``find_counter`` where GRUB can count tries: looked
    up, at the cost of a command and of reading all mounts, by verbs that write
    an entry file only.
    """

    def __init__(
        self,
        home: Path,
        top: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = no_counter,
        boot: Path | None = None,
    ) -> None:
        self.home = home
        self._top = top
        self._boot = boot
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

    def _install(self, root: Path, ways: Ways) -> bool:
        """Put the static grub.cfg in place, and the settings that ``root`` has; return if they differed.

        A directory that has the entry file's name is set aside: no rename could replace it.
        """
        from snaptx.bootloader import defaults, settings

        self.home.mkdir(mode=0o700, exist_ok=True)
        if self._entry.is_dir():
            durable.take_away(self._entry)
        fitting = settings.render(defaults.read(root), ways)
        changed = [self._renew(), _put(self.home / settings.NAME, fitting.encode(), 0o644)]
        if self._counter:
            self._counter.make()
        return any(changed)

    def check(self, root: Path, *, bare: bool = False) -> None:
        """Refuse a root without a kernel, or without an initrd for it."""
        from snaptx.bootloader import kernels

        kernels.check(root, bare=bare)

    def read(self) -> BootState | None:
        """Return what the entry file says, None if there is none."""
        try:
            text = entryfile.text(self._entry)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"the boot entry file can't be read: {error.strerror}"
            raise BootError(message, hint="look for errors with: dmesg") from error
        return entryfile.parse(text)

    def words(self, root: Path, info: TreeInfo) -> str:
        """Return the words as one text."""
        return shlex.join(words_of(info, root))

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Return the files of an entry that are not there."""
        return [path for path in entry.files if not self._file(path).is_file()]

    def prepare(self, state: BootState) -> None:
        """Write the next entry file beside the current one, and what it needs besides."""
        self._renew()
        durable.write_new(self._next, entryfile.render(state, self.uuid).encode(), 0o644, flush=False)
        if not state.confirmed:
            self._prepare_trial(state)

    def _renew(self) -> bool:
        """Let grub.cfg be the one that this snaptx writes entry files for, with the users of today."""
        path, users = self.home / "grub.cfg", self.home / ACCESS
        wanted = static_config()
        known = self._users().encode()
        # The old file has to last until the barrier: GRUB may still find it by the name.
        changed = [_put(path, wanted, 0o644, self._kept)]
        if known or users.exists():
            changed.append(_put(users, known, 0o600))
        return any(changed)

    def _users(self) -> str:
        """Return what the distribution's own menu says of users; most say nothing."""
        config = self._own("grub.cfg")
        if "superusers" not in config:
            return ""
        from snaptx.bootloader import access

        return access.render(config, self._own(access.USER))

    def _own(self, name: str) -> str:
        """Return a file of the distribution's own menu, "" if it has none."""
        directory = grub_directory(self._boot) if self._boot else ""
        if self._boot is None or not directory:
            return ""
        return system.read_in_root(self._boot, f"{directory}/{name}").decode(errors="replace")

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
        durable.write_new(path, text.encode(), 0o644, flush=False)

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
        import shutil  # not for every start-up

        shutil.rmtree(self.home, ignore_errors=True)
        if self._counter:
            self._counter.remove()


def _put(path: Path, data: bytes, mode: int, kept: Path | None = None) -> bool:
    """Let a file hold ``data``; return whether it did not.  What it held stays as ``kept``."""
    if path.is_file():
        if path.read_bytes() == data:
            return False
        if kept:
            kept.unlink(missing_ok=True)
            os.link(path, kept)
    durable.replace(path, data, mode)
    return True


def words_of(info: TreeInfo, root: Path) -> list[str]:
    """Return what the kernel of a root is told: where the root is, and what is configured there."""
    from snaptx.bootloader import kernels

    arguments = kernels.arguments(root)
    for name in arguments.unread:
        why = "a shell would have to work it out"
        log.warning("counts as not set for the kernel", variable=name, root=info.name, reason=why)
    return kernels.with_one_rootflags([*info.cmdline, "ro", *arguments.words])


def entry_of(number: int, title: str, kernel: Kernel, at: str, cmdline: list[str]) -> BootEntry:
    """Return the entry of a kernel in the directory ``at``, as GRUB finds it."""
    initrd = at + kernel.initrd.name if kernel.initrd else ""
    title = entryfile.entry_title(title, kernel.version)
    early = tuple(at + path.name for path in kernel.early)
    return BootEntry(number, title, at + kernel.image.name, initrd, shlex.join(cmdline), early)


def grub_directory(boot: Path) -> str:
    """Return the name of the distribution's directory of GRUB, "" if there is none."""
    return next((name for name in GRUB_DIRECTORIES if (boot / name / "grub.cfg").is_file()), "")


class Original(NamedTuple):
    """The distribution's own menu: its directory in /boot, and whether it names the roots (see settings)."""

    directory: str
    names_roots: bool


def original(boot: Path) -> Original | None:
    """Return the distribution's own menu in ``boot``, None if there is none."""
    from snaptx.bootloader import settings

    name = grub_directory(boot)
    if not name:
        return None
    return Original(
        name, settings.names_roots((boot / name / "grub.cfg").read_text(encoding="utf-8", errors="replace"))
    )
