"""What a disk shows to those who boot from it.

GRUB reads it with its own drivers and never replays a log (``grub-fstest``).
The kernel replays the log when it mounts; a rescue system may be told not to.
Where /boot is a disk of its own, GRUB reads that one, and the kernel both.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from snaptx.bootloader import entryfile
from snaptx.errors import SnaptxError
from snaptx.model import BootEntry, BootState
from tests.crash import census
from tests.crash.census import Census
from tests.crash.loop import mounted

ENTRY_FILE = f"/{census.STATE}/grub/{entryfile.NAME}"
BOOT_ENTRY_FILE = f"/{census.BOOT_HOME}/{entryfile.NAME}"
_MENU = re.compile(r"^\s*(linux|initrd) '([^']*)'(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one view shows; ``problem`` is why nothing boots, ``census`` what the kernel finds."""

    name: str
    state: BootState | None = None
    problem: str = ""
    census: Census | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def default(self) -> int:
        """Return the generation that boots, 0 if none of snaptx's does."""
        return self.state.default if self.state else 0

    @property
    def entry(self) -> BootEntry | None:
        """Return the entry that boots."""
        entries = self.state.entries if self.state else ()
        return next((entry for entry in entries if entry.number == self.default), None)


def grub_reads(image: Path, path: str) -> bytes | None:
    """Return the content of a file as GRUB finds it, None if it does not."""
    result = subprocess.run(["grub-fstest", image, "cat", path], capture_output=True, check=False)
    return None if result.returncode or b"error:" in result.stderr else result.stdout


def grub(image: Path, boot: Path | None = None, *, whole: bool = True) -> Seen:
    """Return what GRUB boots: the entry file, and the digests of the kernels and initrds it names.

    Those of the default only, unless the ``whole`` menu shall be read.
    ``boot`` is the image of a /boot of its own.
    """
    text = grub_reads(boot, BOOT_ENTRY_FILE) if boot else grub_reads(image, ENTRY_FILE)
    if text is None:
        return Seen("grub")
    try:
        state = entryfile.parse(text.decode(errors="replace"))
    except (SnaptxError, ValueError, KeyError, TypeError) as error:
        return Seen("grub", problem=f"the entry file: {error}")
    files = {}
    for entry in state.entries:
        if entry.number != state.default and not whole:
            continue
        for path in filter(None, (entry.kernel, entry.initrd)):
            content = grub_reads(boot or image, path)
            files[path] = "" if content is None else hashlib.sha256(content).hexdigest()
    problem = _disagreement(text.decode(), state) or (_missing_root(image, state) if boot else "")
    return Seen("grub", state, problem, files=files)


def _missing_root(image: Path, state: BootState) -> str:
    """Return which root that the menu names is not on the disk; where it holds the kernels, they tell."""
    flag = "rootflags=subvol="
    words = [word for entry in state.entries for word in entry.cmdline.split()]
    for subvolume in [word.removeprefix(flag) for word in words if word.startswith(flag)]:
        if grub_reads(image, f"/{subvolume}/etc/release") is None:
            return f"{subvolume} is not on the disk"
    return ""


def _disagreement(text: str, state: BootState) -> str:
    """Return in what the lines that GRUB runs differ from the state that snaptx reads."""
    runs = [
        (kind, path, rest.replace("'", "").removesuffix(" $snaptx_why").strip())
        for kind, path, rest in _MENU.findall(text)
    ]
    means = [
        line
        for entry in state.entries
        for line in (("linux", entry.kernel, entry.cmdline), ("initrd", entry.initrd, ""))
        if line[1]
    ]
    if runs != means:
        return f"the menu runs {runs}, its state says {means}"
    chosen = f"set snaptx_default='snaptx-{state.default}'"
    return "" if chosen in text.splitlines() else f"{chosen} is missing"


def kernel(device: str, place: Path, boot: str = "") -> Seen:
    """Return what the kernel finds on the disk, and on a /boot of its own, without replaying a log."""
    with ExitStack() as stack:
        options = "subvolid=5,rescue=nologreplay"
        top = stack.enter_context(mounted(device, place, options, read_only=True))
        below = place.with_name(f"{place.name}-boot")
        other = mounted(boot, below, "noload", read_only=True, fstype="ext4")
        return look("no log replay", top, stack.enter_context(other) if boot else None)


def look(name: str, top: Path, boot: Path | None = None) -> Seen:
    """Return what is seen where the top level is mounted, and a /boot of its own."""
    try:
        return Seen(name, census.entry_state(top, boot), census=census.take(top, boot))
    except (SnaptxError, OSError) as error:
        return Seen(name, problem=f"{type(error).__name__}: {error}")
