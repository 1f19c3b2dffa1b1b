"""Runs snaptx on the recorded disk, each verb in a process of its own, and notes what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import btrfsutil

from snaptx import mounting, system
from snaptx.cli import main as cli
from snaptx.transaction import Transaction
from tests.crash import census, world
from tests.crash.census import Census
from tests.crash.faults import FAULTS, LEFT_OUT, Syncs, btrfs_timer, ext4_timer, hasten
from tests.crash.loop import mounted
from tests.crash.world import BOOT, DISK, Step


@dataclass
class Driver:
    """One disk with its root mounted; ``payloads`` is where the updates lie.

    ``boot`` is the device of a /boot of its own, "" if there is none; ``fault`` one of faults.FAULTS;
    ``hasty`` the disk that is committed after every change, "" for none; ``mark`` puts a word into the logs.
    """

    device: str
    place: Path
    payloads: Path
    booted: str
    without: int = -1
    hasty: str = ""
    boot: str = ""
    fault: str = ""
    syncs: list[str] = field(default_factory=list)
    mark: Callable[[str], None] | None = None
    _root: ExitStack = field(default_factory=ExitStack)

    @property
    def root(self) -> Path:
        """Return where the root is mounted."""
        return self.place / "root"

    def __enter__(self) -> Driver:
        self._root.enter_context(mounted(self.device, self.root, f"subvol={self.booted}"))
        if self.boot:
            boot = mounted(self.boot, self.root / "boot", "noinit_itable", fstype="ext4")
            self._root.enter_context(boot)
        for place in (self.root / "run", world.SOCKETS):
            self._root.enter_context(mounted("tmpfs", place, fstype="tmpfs"))
        self._root.callback(self._end_instances)
        return self

    def __exit__(self, *_: object) -> None:
        self._root.close()

    def _end_instances(self) -> None:
        """End what an application left running, and unmount its tree: either would keep the disk."""
        for path in self.root.glob("run/snaptx/apps/*/*.json"):
            pid = json.loads(path.read_text())["pid"]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place in self.root.glob("run/snaptx/apps/*/*/"):
            if place.is_mount():
                mounting.unmount(str(place), mounting.MNT_DETACH)

    def act(self, step: Step) -> int:
        """Do a step and return its exit code: a verb, or what the world does to the disk."""
        match step:
            case ("boot",):
                self._boot()
            case ("edit",):
                (self.root / "etc/edited").write_text("by the administrator\n")
            case ("rebuild",):
                world.write_initrd(self.root, 1, "anew", 2 * world.KERNEL_BYTES)
            case ("install",):
                world.install(self.root, 2)
            case ("break",):
                self._break()
            case ("die", at, *words):
                return self._forked(words, lambda: _die_at(at))
            case ("apply" | "app", *words, name) if (self.payloads / name).is_dir():
                return self._forked([step[0], *words, str(self.payloads / name)], self._prepare)
            case _:
                return self._forked(list(step), self._prepare)
        return 0

    def _prepare(self) -> None:
        if self.fault:
            FAULTS[self.fault]()
        if self.hasty == DISK:
            hasten(btrfs_timer(self.root))
        if self.hasty == BOOT:
            hasten(ext4_timer(self.root / "boot", self.boot))

    def _boot(self) -> None:
        state = self.top(lambda top: census.entry_state(top, self._boot_directory))
        chosen = [entry for entry in state.entries if entry.number == state.default] if state else []
        words = chosen[0].cmdline.split() if chosen else []
        flag = "rootflags=subvol="
        self.booted = next((word.removeprefix(flag) for word in words if word.startswith(flag)), self.booted)
        self._root.close()
        self.__enter__()

    def _break(self) -> None:
        """Damage what ``repair`` makes anew, and leave what it removes."""

        def damage(top: Path) -> None:
            (top / "@snaptx/manifests/1.sqlite").unlink()
            (top / "@snaptx/generations/7").mkdir()
            (top / "@snaptx/grub/snaptx.cfg.next").write_text("half of a")
            btrfsutil.set_default_subvolume(str(top))

        self.top(damage)

    def top(self, look: Callable[[Path], Any]) -> Any:
        """Return what ``look`` finds where the top level is mounted."""
        with mounted(self.device, self.place / "top", "subvolid=5") as top:
            return look(top)

    @property
    def _boot_directory(self) -> Path | None:
        return self.root / "boot" if self.boot else None

    def census(self, of: str = census.STATE) -> Census:
        """Look at the disk as it is, or at the application tree on it."""
        boot = self._boot_directory if of == census.STATE else None
        found: Census = self.top(lambda top: census.take(top, boot, of))
        return found

    def _forked(self, words: list[str], before: Callable[[], None]) -> int:
        syncs = self.place / "syncs.json"
        mark = self.mark
        counted = Syncs(self.without, lambda: mark(LEFT_OUT)) if mark else Syncs(self.without)
        pid = os.fork()
        if not pid:
            _child(["--sysroot", str(self.root), *words], before, counted, syncs, self.place)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(FileNotFoundError):
            self.syncs = json.loads(syncs.read_text())
        return code

    def said(self) -> str:
        """Return what the last verb said."""
        return (self.place / "said").read_text(errors="replace")


def _child(words: list[str], before: Callable[[], None], syncs: Syncs, notes: Path, place: Path) -> None:
    """Be snaptx; does not return."""
    code = 99
    try:
        system.die_with_parent()
        with open(place / "said", "wb", buffering=0) as said, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        before()
        syncs.install()
        code = cli.main(words)
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        notes.write_text(json.dumps(syncs.names))
    os._exit(code)


def _die_at(last: str) -> None:
    """End the process with SIGKILL when a transaction comes to the step ``last``."""
    step = Transaction.step

    def deadly(self: Transaction, name: str) -> None:
        step(self, name)
        if name == last:
            os.kill(os.getpid(), signal.SIGKILL)

    Transaction.step = deadly  # type: ignore[method-assign]
