"""What is on a snaptx disk, seen by reading files alone: not with the code that is under test.

Only the text of the entry file is read with snaptx's own parser.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import btrfsutil

from snaptx.bootloader import entryfile, pointer
from snaptx.errors import SnaptxError
from snaptx.model import BootState, jsonable
from tests.crash import world

STATE = "@snaptx"
APP = f"{STATE}/apps/{world.APP}"
"""Where the application tree lies, in the same order."""

BOOT_HOME = "snaptx"
"""Where snaptx's files lie on a /boot of its own."""

NOT_YET = (errno.EBADMSG, errno.EUCLEAN)
"""On ext4, without its journal, a name may be there before its inode is, or with an older one.

GRUB takes that for an empty file, the kernel for damage.  It is none yet.
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """One generation: where its root is, what is in it, and what is said of it.

    ``root`` is a digest of everything in it, "" if there is none; ``sealed``
    tells that it was committed; ``boot`` are the digests of its own files in
    /boot and of their copies, and GRUB finds the kernel among them below
    ``kernels``.
    """

    subvolume: str
    root: str
    sealed: bool
    kernels: str
    boot: dict[str, str]
    verdict: str = ""
    pinned: bool = False
    recorded: bool = True

    @property
    def kept(self) -> bool:
        """Return whether nothing may ever remove it."""
        return self.sealed and (self.verdict == "good" or self.pinned)


@dataclass(frozen=True, slots=True)
class Census:
    """A whole disk: what boots next (0 for nothing of snaptx's), the entry file's state, and the rest.

    ``subvolume`` is the default one, which boots where nobody names another.
    """

    default: int
    entry: dict[str, Any] = field(default_factory=dict)
    trees: dict[int, Tree] = field(default_factory=dict)
    audit: tuple[dict[str, Any], ...] = ()
    subvolume: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        return asdict(self)


def from_json(data: dict[str, Any]) -> Census:
    """Return the census that ``as_json`` gave."""
    trees = {int(number): Tree(**tree) for number, tree in data["trees"].items()}
    return Census(data["default"], data["entry"], trees, tuple(data["audit"]), data["subvolume"])


def take(top: Path, boot: Path | None = None, of: str = STATE) -> Census:
    """Look at the disk whose top level is mounted at ``top``, and at a /boot of its own.

    ``of`` is APP for the application tree on it, whose pointer is the entry file.
    """
    state = entry_state(top, boot, of)
    directory = top / of / "generations"
    names = os.listdir(directory) if directory.is_dir() else []
    numbers = sorted(int(name) for name in names if name.isdigit())
    trees = {number: _tree(top, boot, directory / str(number)) for number in numbers}
    entry = jsonable(state) if state else {}
    default = state.default if state else 0
    return Census(default, entry, trees, tuple(audit(top, of)), _default_subvolume(top))


def _default_subvolume(top: Path) -> str:
    number = btrfsutil.get_default_subvolume(str(top))
    return str(btrfsutil.subvolume_path(str(top), number))


def entry_state(top: Path, boot: Path | None = None, of: str = STATE) -> BootState | None:
    """Return what the entry file says, None if there is none.

    Raises:
        SnaptxError: it is damaged.
    """
    home = boot / BOOT_HOME if boot else top / of / "grub"
    name = entryfile.NAME if of == STATE else pointer.NAME
    try:
        text = (home / name).read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in NOT_YET:
            return None
        raise
    return entryfile.parse(text)


def audit(top: Path, of: str = STATE) -> Iterator[dict[str, Any]]:
    """Yield the records of the audit trail up to the first that is none."""
    try:
        lines = (top / of / "audit/log").read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _tree(top: Path, boot: Path | None, directory: Path) -> Tree:
    root = directory / "root"
    place = Path(os.path.normpath(directory / os.readlink(root))) if root.is_symlink() else root
    record = _record(directory)
    subvolume = str(place.relative_to(top))
    own = _files(place / "boot")
    return Tree(
        subvolume=subvolume,
        root=digest(place),
        sealed=(directory / "sealed").is_dir(),
        kernels=f"/{BOOT_HOME}/{directory.name}/" if boot else f"/{subvolume}/boot/",
        boot={**(own or (_files(boot) if boot else {})), **_copies(boot, directory.name)},
        verdict=str(record.get("verdict", "")),
        pinned=bool(record.get("pinned")),
        recorded=bool(record),
    )


def _record(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / "generation.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _copies(boot: Path | None, number: str) -> dict[str, str]:
    try:
        places = sorted((boot / BOOT_HOME / number).glob("*")) if boot else []
        return {f"{at.name}/{name}": sha for at in places for name, sha in _files(at).items()}
    except OSError as error:
        if error.errno in NOT_YET:
            return {}
        raise


def _files(directory: Path) -> dict[str, str]:
    """Return the digests of the files in a directory by their names."""
    return {path.name: _sha(path) for path in sorted(directory.glob("*")) if _is_file(path)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno in NOT_YET:
            return False
        raise


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(tree: Path) -> str:
    """Return a digest over every path of a tree, with content and metadata; "" if there is none."""
    if not tree.is_dir():
        return ""
    total = hashlib.sha256()
    for line in sorted(_lines(os.fsencode(tree), b"")):
        total.update(line)
    return total.hexdigest()


def _lines(tree: bytes, below: bytes) -> Iterator[bytes]:
    with os.scandir(tree) as entries:
        for entry in entries:
            path = below + b"/" + entry.name
            found = entry.stat(follow_symlinks=False)
            yield b"%s %o %d %d %s\n" % (
                path,
                found.st_mode,
                found.st_uid,
                found.st_gid,
                _content(entry, found),
            )
            if entry.is_dir(follow_symlinks=False):
                yield from _lines(entry.path, path)


def _content(entry: os.DirEntry[bytes], found: os.stat_result) -> bytes:
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(entry.path)
    if not stat.S_ISREG(found.st_mode):
        return b"%d" % found.st_rdev
    with open(entry.path, "rb", buffering=0) as file:
        content = hashlib.sha256(file.read()).hexdigest().encode()
    return b"%d %d %s" % (found.st_size, found.st_mtime_ns, content)


def damaged(top: Path) -> str:
    """Return why the entry file can't be read, "" if it can."""
    try:
        entry_state(top)
    except SnaptxError as error:
        return error.message
    return ""
