"""What a disk shows to those who boot from it.

GRUB reads it with its own drivers and never replays a log (``grub-fstest``).
The kernel replays the log when it mounts; a rescue system may be told not to.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from snaptx.bootloader import entryfile
from snaptx.errors import SnaptxError
from snaptx.model import BootEntry, BootState
from tests.crash import census
from tests.crash.census import Census
from tests.crash.loop import mounted

ENTRY_FILE = f"/{census.STATE}/grub/{entryfile.NAME}"
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


def grub(image: Path, *, whole: bool = True) -> Seen:
    """Return what GRUB boots: the entry file, and the digests of the kernels and initrds it names.

    Those of the default only, unless the ``whole`` menu shall be read.
    """
    text = grub_reads(image, ENTRY_FILE)
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
            content = grub_reads(image, path)
            files[path] = "" if content is None else hashlib.sha256(content).hexdigest()
    return Seen("grub", state, _disagreement(text.decode(), state), files=files)


def _disagreement(text: str, state: BootState) -> str:
    """Return in what the lines that GRUB runs differ from the state that snaptx reads."""
    runs = [(kind, path, rest.replace("'", "").strip()) for kind, path, rest in _MENU.findall(text)]
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


def kernel(device: str, place: Path) -> Seen:
    """Return what the kernel finds on the disk without replaying its log."""
    with mounted(device, place, "subvolid=5,rescue=nologreplay", read_only=True) as top:
        return look("no log replay", top)


def look(name: str, top: Path) -> Seen:
    """Return what is seen where the top level is mounted."""
    try:
        return Seen(name, census.entry_state(top), census=census.take(top))
    except (SnaptxError, OSError) as error:
        return Seen(name, problem=f"{type(error).__name__}: {error}")
