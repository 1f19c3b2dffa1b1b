"""A machine whose storage and boot loader are in memory, for tests of the rules."""

from __future__ import annotations

import os
from pathlib import Path

from snaptx import commit, confirm, stage, transaction, verify
from snaptx.bootloader.memory import MemoryBootLoader
from snaptx.config import Config, Conflicts
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.stage import Staged
from snaptx.storage.memory import MemoryStorage
from snaptx.transaction import Request

REQUEST = Request("test", ("snaptx", "test"))


class World:
    """A machine in memory that can be restarted."""

    def __init__(self, place: Path) -> None:
        root = place / "@"
        for name in ("etc/hostname", "etc/kept", "usr/bin/tool"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("old\n")
        self._payloads = place / "payloads"
        self.storage, self.loader = MemoryStorage(place), MemoryBootLoader()
        self._open(root, Config())

    def _open(self, sysroot: Path, config: Config) -> None:
        self.machine = Machine(sysroot, config, self.storage, self.loader)

    def configure(self, config: Config) -> None:
        """Let the machine have that configuration."""
        self._open(self.machine.sysroot, config)

    def restart(self) -> None:
        """Boot what the entry file names."""
        tree = Tree(self.machine.boot_state().default, Part.ROOT)
        self.storage.boot(tree)
        self._open(self.storage.path(tree), self.machine.config)

    def payload(self, **files: str) -> str:
        """Make an overlay of files in /etc."""
        place = self._payloads / str(len(list(self._payloads.glob("*"))))
        (place / "etc").mkdir(parents=True)
        for name, text in files.items():
            (place / "etc" / name).write_text(text)
            os.utime(place / "etc" / name, (1_700_000_000, 1_700_000_000))  # what every tar can say
        return str(place)

    def apply(self, **files: str) -> Staged:
        """Stage an overlay of files in /etc."""
        with transaction.exclusive(self.machine, "apply"):
            return stage.apply(self.machine, self.payload(**files), REQUEST)

    def commit(self, policy: Conflicts | None = None) -> commit.Committed:
        """Commit what is staged."""
        with transaction.exclusive(self.machine, "commit"):
            return commit.commit(self.machine, REQUEST, None, policy)

    def update(self, **files: str) -> int:
        """Apply and commit."""
        self.apply(**files)
        return self.commit().number

    def confirm(self, number: int, bad: str | None = None) -> confirm.Confirmed:
        """Judge a generation."""
        with transaction.exclusive(self.machine, "confirm"):
            return confirm.confirm(self.machine, REQUEST, number, bad=bad)

    def text(self, number: int, name: str) -> str:
        """Return a file's content in a generation."""
        return (self.storage.path(Tree(number, Part.ROOT)) / "etc" / name).read_text()

    def marks(self) -> dict[int, str]:
        """Return the generations with their marks."""
        return {view.number: view.marks for view in self.machine.views()}

    def problems(self) -> list[verify.Problem]:
        """Return everything that is not as it should be."""
        numbers = [generation.number for generation in self.machine.generations.recorded()]
        found = [problem for number in numbers for problem in verify.generation(self.machine, number)]
        return [*verify.state(self.machine), *found]
