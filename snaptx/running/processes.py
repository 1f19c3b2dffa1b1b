"""Look at every process: which files it uses, and who answers for it.

What a process maps is asked of /proc/PID/map_files, because the numbers in
/proc/PID/maps are not stat(2)'s on Btrfs and its names can be anything.  Paths
are looked up in the process's own view.  A process that ends meanwhile is none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snaptx.running import files, proc
from snaptx.running.files import Facts, How, State, Use
from snaptx.running.proc import Owner

PROC = b"/proc"


class Process(NamedTuple):
    """A process with the files of the system's trees that it uses."""

    pid: int
    name: str
    uid: int
    owner: Owner
    uses: tuple[Use, ...]


class Survey:
    """One look at all processes.

    ``sysroot`` is the root that is looked at; ``trees`` are the paths in it
    that belong to generations, ``generations`` the numbers by the devices
    (stat(2)) of their roots.
    """

    def __init__(self, sysroot: bytes, trees: tuple[bytes, ...], generations: dict[int, int]) -> None:
        self.sysroot = sysroot
        self.trees = trees
        self.generations = generations
        self._own = os.readlink("/proc/self/ns/mnt")
        self._found: dict[tuple[str, bytes], Facts | None] = {}
        self._heads = {b""}  # how paths in a tree that is mounted nowhere begin
        for tree in trees:
            with suppress(OSError):
                self._heads.update(os.listdir(sysroot.rstrip(b"/") + tree))

    def processes(self) -> Iterator[Process]:
        """Yield the processes that use something, in the order of their numbers."""
        for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):
            if pid == os.getpid():
                continue
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if found := self._look_at(pid):
                    yield found

    def _look_at(self, pid: int) -> Process | None:
        place = b"%b/%d" % (PROC, pid)
        os.readlink(place + b"/exe")  # what has none is the kernel's own
        view = self._view(place)
        if view is None:
            return None
        found: dict[tuple[bytes, State], Use] = {}
        for use in self._uses(place, *view):
            found.setdefault((use.path, use.state), use)  # what is mapped is open as well
        uses = tuple(found.values())
        if not uses:
            return None
        name = Path(os.fsdecode(place + b"/comm")).read_bytes().removesuffix(b"\n")
        cgroup = os.fsdecode(Path(os.fsdecode(place + b"/cgroup")).read_bytes())
        uid = os.stat(place).st_uid
        return Process(pid, name.decode(errors="surrogateescape"), uid, proc.parse_cgroup(cgroup), uses)

    def _view(self, place: bytes) -> tuple[str, bytes, bytes] | None:
        """Return a key for the process's view, how its paths are reached, and how those of the root begin.

        None if it sees another root than the one that is looked at.
        """
        namespace = os.readlink(os.fsdecode(place + b"/ns/mnt"))
        if namespace == self._own:
            return namespace, b"", self.sysroot.rstrip(b"/")
        try:
            root = os.stat(place + b"/root")
        except OSError:  # its filesystem does not answer: it is none with generations
            return None
        if self.sysroot != b"/" and root.st_dev not in self.generations:
            return None
        return f"{namespace} {root.st_dev} {root.st_ino}", place + b"/root", b""

    def _uses(self, place: bytes, view: str, reach: bytes, root: bytes) -> Iterator[Use]:
        for how, link, name in _links(place):
            outside = not name.startswith(root + b"/")  # or in a tree that is mounted nowhere
            path = name if outside else name.removeprefix(root)
            if not self._plausible(path):
                continue
            with suppress(OSError):  # as above, or it is gone
                found = os.stat(link)
                if files.counts(found) and not (outside and found.st_dev not in self.generations):
                    used = Facts.of(found)
                    state = files.judge(
                        used,
                        path,
                        self.trees,
                        self.generations,
                        lambda name: self._find(view, reach + root, name),
                    )
                    how = How.DIRECTORY if stat.S_ISDIR(found.st_mode) else how
                    yield Use(how, path, state, self.generations.get(used.device, 0))

    def _plausible(self, path: bytes) -> bool:
        """Return whether a path can be one of the trees, so that nothing else is touched."""
        return files.is_inside(path, self.trees) or (
            path.startswith(b"/") and path.split(b"/", 2)[1] in self._heads
        )

    def _find(self, view: str, reach: bytes, path: bytes) -> Facts | None:
        key = (view, path)
        if key not in self._found:
            self._found[key] = None
            with suppress(OSError):
                self._found[key] = Facts.of(os.stat(reach + path))
        return self._found[key]


def _links(place: bytes) -> Iterator[tuple[How, bytes, bytes]]:
    """Yield how a process uses something, the link in /proc that leads there, and what it is called."""
    exe = os.readlink(place + b"/exe")
    yield How.EXECUTABLE, place + b"/exe", exe
    with open(place + b"/maps", "rb") as lines:
        mapped = proc.distinct(proc.parse_maps(lines))
    for mapping in mapped:
        if mapping.path != exe:
            link = b"%b/map_files/%x-%x" % (place, mapping.start, mapping.end)
            # A name with \012 in it can mean two things in maps; the link has it as it is.
            path = os.readlink(link) if b"\n" in mapping.path else mapping.path
            yield How.LIBRARY if mapping.executable else How.MAPPED, link, path
    yield How.DIRECTORY, place + b"/cwd", os.readlink(place + b"/cwd")
    for name in os.listdir(place + b"/fd"):
        link = place + b"/fd/" + name
        with suppress(FileNotFoundError):
            yield How.OPEN, link, os.readlink(link)


def stale(process: Process) -> Process | None:
    """Return the process with what it uses of the past alone, None if there is nothing."""
    uses = tuple(use for use in process.uses if use.state is not State.CURRENT)
    return Process(process.pid, process.name, process.uid, process.owner, uses) if uses else None


def of_generation(process: Process, number: int) -> Process | None:
    """Return the process with what it uses of a generation alone, None if there is nothing."""
    uses = tuple(use for use in process.uses if use.generation == number)
    return Process(process.pid, process.name, process.uid, process.owner, uses) if uses else None
