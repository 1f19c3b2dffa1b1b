"""A machine that is interrupted at named points (see points.py) and put back as it was each time."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from snaptx import system
from snaptx.sandbox import box as sandbox
from snaptx.sandbox.mounts import loops, unmount_below
from tests.boxes import Box, Said
from tests.minimal_root import eventually
from tests.points import hear, recording, striking, watch

ROOT = Path(__file__).parents[1]
PYTHON = (sys.executable, "-c", "from tests.points import main; main()")


class Outsider:
    """A real snaptx that stands still at a point, on a terminal of its own."""

    def __init__(self, box: Box, point: str, number: int, words: tuple[str, ...]) -> None:
        self._bell, theirs = socket.socketpair()
        with theirs:
            self.pid, self._terminal = pty.fork()
            if not self.pid:
                os.chdir(ROOT)
                os.set_inheritable(theirs.fileno(), True)
                argv = [*PYTHON, point, str(number), str(theirs.fileno()), "--sysroot", str(box.root), *words]
                os.execv(argv[0], argv)

    def __enter__(self) -> Outsider:
        self._bell.settimeout(20)
        assert self._bell.recv(1) == b"!", "it ended before: " + os.read(self._terminal, 4096).decode()
        return self

    def hang_up(self) -> None:
        """Close the other side of the terminal."""
        os.close(self._terminal)
        self._terminal = -1

    def go_on(self) -> None:
        """Let it go on that waits for no signal."""
        self._bell.close()

    def wait(self) -> int:
        """Return its exit code when it has ended."""
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._bell.close()
        if self._terminal >= 0:
            os.close(self._terminal)


class World:
    """A sandbox whose states can be kept and come back to."""

    def __init__(self, box: Box, place: Path) -> None:
        self.box = box
        self._place = place
        self._booted: dict[str, str] = {}

    def keep(self, name: str) -> None:
        """Keep the machine as it is."""
        self._booted[name] = os.path.relpath(self._root(), "/")
        self._unmount()
        self._copy(self.box.sandbox.disk, self._place / name)
        self._mount(name)

    def load(self, name: str) -> None:
        """Make the machine what was kept."""
        self._unmount()
        self._copy(self._place / name, self.box.sandbox.disk)
        self._mount(name)

    def _root(self) -> str:
        mount = system.mount_at(self.box.root)
        assert mount
        return mount.root

    def _unmount(self) -> None:
        unmount_below(self.box.sandbox.directory)
        # Whoever has just left for a mount namespace of its own took a copy of these mounts along.
        eventually(lambda: not loops(self.box.sandbox.disk), 60)

    def _mount(self, name: str) -> None:
        sandbox.reboot(self.box.sandbox.directory, target=self._booted[name])

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        subprocess.run(["cp", "--sparse=always", source, target], check=True)

    def points(self, *words: str) -> list[str]:
        """Run a verb that has to succeed and return the points it came to."""
        notes = self._place / "points"
        said = self.box.start(*words, before=lambda: watch(recording(str(notes)))).wait()
        assert said.code == 0, said.err
        return notes.read_text().splitlines()

    def strike(self, point: str, number: int, *words: str) -> Said:
        """Run a verb that gets a signal at ``point``."""

        def before() -> None:
            hear()
            watch(striking(point, number))

        return self.box.start(*words, before=before).wait()


def portrait(box: Box) -> dict[str, object]:
    """Return everything a machine is, but for what differs each time: moments, numbers drawn, the trail."""
    facts = {name: fact for name, fact in box.facts().items() if not name.startswith("running ")}
    found: dict[str, object] = {}
    for name, fact in facts.items():
        kind, _, path = name.partition(" ")
        if kind == "mount":
            found["mount " + path.partition("target='")[2].partition("'")[0]] = ""
        elif kind == "default":
            found[name] = fact
        elif kind == "subvolume":
            found[name] = fact[1]  # type: ignore[index]
        elif kind == "state":
            name = re.sub(r"(escape|sums)-[0-9a-f]+", r"\1", name)  # drawn anew by each switch
            found[name] = str(found.get(name, "")) + "."
        else:
            found[name] = (fact[0], fact[4]) if path else ""  # type: ignore[index]
    for place in box.state.glob("generations/*/generation.json"):
        record = json.loads(place.read_text())
        found[f"record {place.parent.name}"] = (record["verdict"], record["pinned"], record["base"])
    if box.entry.exists():
        state = box.boot()
        entries = [entry.number for entry in state.entries]
        found["entry"] = (state.default, state.fallback, state.confirmed, entries)
    return found
