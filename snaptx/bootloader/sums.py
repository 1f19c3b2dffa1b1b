"""The digests of a kernel and its initrd, which GRUB compares before it starts them for the first time.

A kernel that is cut short does not panic: it hangs, where nobody counts.  An
initrd that is cut short can't count either.  The form is that of sha256sum,
which GRUB's ``sha256sum --check`` reads (GRUB manual, "hashsum").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from snaptx.model import BootEntry

NAME = "sums-{nonce}"
"""Beside the entry file, which grub.cfg and hooks/initramfs-count.sh take for granted."""


def render(entry: BootEntry, find: Callable[[str], Path]) -> str:
    """Return the digests of an entry's files; ``find`` tells where one is that GRUB has a path for.

    Raises:
        OSError: one can't be read.
    """
    return "".join(f"{_digest(find(path))}  {path}\n" for path in entry.files)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
