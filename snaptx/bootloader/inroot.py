"""GRUB that reads kernels from inside the generations: /boot is part of the root.

The home is ``@snaptx/grub``.  A rename on Btrfs is one step for GRUB after the
storage's barrier.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from snaptx import durable, system
from snaptx.bootloader import entryfile
from snaptx.bootloader.grub import (
    ESCAPE,
    FindCounter,
    Grub,
    entry_of,
    no_counter,
    original,
    words_of,
)
from snaptx.errors import storage_error
from snaptx.model import BootEntry, BootState
from snaptx.storage.base import TreeInfo

if TYPE_CHECKING:
    from snaptx.bootloader.settings import Ways


class GrubInRoot(Grub):
    """GRUB that reads kernels out of the generations, on the same filesystem; ``home`` is beside them."""

    apart = False

    def __init__(
        self,
        home: Path,
        find_uuid: Callable[[], str],
        find_counter: FindCounter = no_counter,
        boot: Path | None = None,
    ) -> None:
        super().__init__(home, home.parents[1], find_uuid, find_counter, boot)
        self._offered: dict[str, Path] = {}

    def install(self, root: Path, adopted: TreeInfo) -> bool:
        """Put in place what does not change with a generation."""
        return self._install(root, self._ways(root, adopted))

    def _ways(self, root: Path, adopted: TreeInfo) -> Ways:
        from snaptx.bootloader.settings import Ways

        found = original(root / "boot")
        if found is None:
            return Ways()
        if not found.names_roots:
            words = " ".join(words_of(adopted, root))
            return Ways(adopted=adopted.loader_path, adopted_words=words)
        # openSUSE keeps it in a subvolume of its own, systems on ZFS in a dataset.
        apart = system.mount_at(root / "boot" / found.directory)
        place = _seen_by_grub(apart) if apart else f"{adopted.loader_path}/boot/{found.directory}"
        return Ways(original=f"{place}/grub.cfg")

    def prepare(self, state: BootState) -> None:
        """Write the next entry file, and the one the initramfs is to put in its place if it fails."""
        escape = entryfile.escape(state)
        if escape:
            text = entryfile.render(escape, self.uuid)
            path = self.home / ESCAPE.format(nonce=state.nonce)
            durable.write_new(path, text.encode(), 0o644, flush=False)
        super().prepare(state)

    def switch(self) -> None:
        """Rename the prepared entry file over the current one."""
        try:
            os.replace(self._next, self._entry)
        except OSError as error:
            raise storage_error(error, "cannot switch the boot entry") from error

    def offer(self, number: int, title: str, root: Path, info: TreeInfo) -> BootEntry:
        """Name the kernel inside the tree; paths start at the top level, as GRUB's do."""
        from snaptx.bootloader import kernels

        kernel = kernels.choose(root)
        self._offered[info.loader_path] = root
        return entry_of(number, title, kernel, f"{info.loader_path}/boot/", words_of(info, root))

    def missing(self, entry: BootEntry, root: Path, info: TreeInfo) -> list[str]:
        """Return the files of an entry that are not in the tree."""
        self._offered[info.loader_path] = root
        return super().missing(entry, root, info)

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


def _seen_by_grub(mount: system.Mount) -> str:
    """Return how GRUB begins a path in a filesystem that is mounted into the root."""
    if mount.fstype != "zfs":
        return mount.root
    from snaptx.storage.zfs.names import loader_path

    return loader_path(mount.source)
