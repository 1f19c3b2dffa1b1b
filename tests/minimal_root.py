"""A loop-backed Btrfs with small bootless roots in subvolumes, for tests that run commands in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import btrfsutil
import pytest

from snaptx import mounting
from snaptx.enclosure.namespace import Enclosure
from snaptx.storage.base import MountSpec

ROOT = Path(__file__).parents[1]
SIZE = 256 << 20
DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var")
APPLETS = ("cat", "env", "hostname", "ls", "mkdir", "mount", "readlink", "sh", "sleep", "stat", "touch")

# Whoever starts the tests may ignore signals.
HEARING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""

RUNNER = """
import json, sys
from snaptx.enclosure import chroot
from snaptx.storage.base import MountSpec
given = json.loads(sys.argv[1])
chroot.GRACE = given["grace"]
root = MountSpec(*given["root"])
shared = tuple(map(tuple, given["shared"]))
enclosure = chroot.Enclosure(root, shared, given["environment"])
try:
    if given["interactive"]:
        status = chroot.run_interactive(enclosure, given["argv"]).status
    else:
        status = chroot.run_enclosed(enclosure, given["argv"])
    print("status", status, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@dataclass
class Disk:
    """A file system of its own; the roots are subvolumes of its top level."""

    device: str
    place: Path
    made: int = 0

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Show the top level at ``place``."""
        mounting.mount(self.device, str(self.place), "btrfs")
        try:
            yield
        finally:
            mounting.unmount(str(self.place))

    def root(self) -> Root:
        """Return a fresh copy of the minimal root."""
        self.made += 1
        path = self.place / f"root{self.made}"
        btrfsutil.create_snapshot(str(self.place / "template"), str(path))
        return Root(self.device, path)


@dataclass
class Root:
    """One root to run commands in."""

    device: str
    path: Path
    shared: tuple[tuple[str, str], ...] = ()
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/bin", "HOME": "/root"})

    @property
    def enclosure(self) -> Enclosure:
        """How to run a command in it."""
        spec = MountSpec(self.device, "btrfs", f"subvol={self.path.name}")
        return Enclosure(spec, self.shared, self.environment)

    def runner(
        self, argv: list[str], *, grace: float = 30.0, interactive: bool = False, before: str = ""
    ) -> list[str]:
        """Return the command line of a process that runs ``argv`` inside and prints what came of it."""
        given = {
            "root": [self.device, "btrfs", f"subvol={self.path.name}"],
            "shared": self.shared,
            "environment": self.environment,
            "argv": argv,
            "grace": grace,
            "interactive": interactive,
        }
        return [sys.executable, "-c", HEARING + before + RUNNER, json.dumps(given)]

    def start(self, argv: list[str], *, grace: float = 30.0, before: str = "") -> subprocess.Popen[str]:
        """Start such a process, its output in a pipe."""
        command = self.runner(argv, grace=grace, before=before)
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def users(self) -> list[int]:
        """Return the processes whose mount namespace shows this root, except where the disk is mounted."""
        shown = f" /{self.path.name} "
        number = f"{os.major(self._device_number())}:{os.minor(self._device_number())}"
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                lines = (process / "mountinfo").read_text(errors="replace").splitlines()
            except OSError:
                continue
            if any(shown in line and (self.device in line or number in line) for line in lines):
                found.append(int(process.name))
        return found

    def _device_number(self) -> int:
        return self.path.stat().st_dev

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Return everything there is to know of the tree, access times apart."""
        names = [self.path, *sorted(self.path.rglob("*"))]
        return {str(name): _facts(name) for name in names}


def _facts(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = os.readlink(path) if path.is_symlink() else ""
    if stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return (found.st_mode, found.st_uid, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, content)


@contextmanager
def made_disk(directory: Path) -> Iterator[Disk]:
    """Make a disk with a template root; nothing of it is left afterwards."""
    image, place = directory / "disk.img", directory / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    with ExitStack() as stack:
        stack.callback(image.unlink)
        _run("mkfs.btrfs", "-q", str(image))
        device = _run("losetup", "--find", "--show", str(image)).strip()
        stack.callback(_run, "losetup", "--detach", device)
        disk = Disk(device, place)
        stack.enter_context(disk.mounted())
        _fill(place / "template")
        yield disk


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _fill(root: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.fail("busybox is missing: install the package busybox-static", pytrace=False)
    btrfsutil.create_subvolume(str(root))
    for name in DIRECTORIES:
        (root / name).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until ``condition`` holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
