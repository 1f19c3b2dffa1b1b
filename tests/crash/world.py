"""The systems that are recorded: a small root, updates for it, and what each flow does with them."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from snaptx.enclosure.standins import CACHE
from snaptx.sandbox.layout import PLANS, Layout

SIZE = 256 << 20
"""Bytes of the disk; its second superblock, which GRUB reads too, needs 64 MiB."""

KERNEL_BYTES = 90_000
DISK, BOOT = "disk", "boot"
"""The names of the disks: the root's, and that of a /boot of its own."""

Step = tuple[str, ...]
"""A verb with its arguments; or one of the words in ``driver.Driver.act``."""


def _noise(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def write_kernel(root: Path, version: int) -> None:
    """Put kernel and initrd of a version into ``root/boot``."""
    boot = root / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    (boot / f"vmlinuz-{version}.0").write_bytes(_noise(f"kernel {version}", KERNEL_BYTES))
    write_initrd(root, version, "initrd", KERNEL_BYTES // 2)


def write_initrd(root: Path, version: int, text: str, size: int) -> None:
    """Put the initrd of a version into ``root/boot``, in place of one that is there."""
    (root / f"boot/initrd.img-{version}.0").write_bytes(_noise(f"{text} {version}", size))


APT = f"""\
#!/bin/busybox sh
case "$*" in
*--simulate*) echo "Inst p [1] (2 here [all])" ;;
*--download-only*) echo 2 > {CACHE}/archives/p ;;
*dist-upgrade) busybox cp {CACHE}/archives/p /usr/p && printf 'p\\t2\\tinstalled\\n' > /{{status}} ;;
esac
"""
"""Stands for apt: there is one package ``p``, of which there is a version 2."""

STATUS = "var/lib/dpkg/status"


def write_root(root: Path, *, shell: bool) -> None:
    """Make the root as the distribution made it; with a shell and packages if commands are to run in it."""
    for name in ("etc", "usr/bin", "var", "proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/release").write_text("1\n")
    (root / "bin").symlink_to("usr/bin")
    for number in range(12):
        (root / f"usr/file-{number}").write_bytes(_noise(f"file {number}", 300 * number))
    write_kernel(root, 1)
    if not shell:
        return
    shutil.copy(_busybox(), root / "usr/bin/busybox")
    _write_packages(root)


def _busybox() -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is missing: install the package busybox-static")
    return busybox


def _write_packages(root: Path) -> None:
    (root / STATUS).parent.mkdir(parents=True)
    install(root, 1)
    (root / "etc/snaptx").mkdir()
    (root / "etc/snaptx/snaptx.conf").write_text('[hooks]\nmode = "required"\n')
    (root / "etc/resolv.conf").touch()
    programs = {
        "apt-get": APT.format(status=STATUS),
        "dpkg-query": f"#!/bin/busybox sh\nbusybox cat /{STATUS}\n",
    }
    for name, text in programs.items():
        (root / "usr/bin" / name).write_text(text)
        (root / "usr/bin" / name).chmod(0o755)


def install(root: Path, version: int) -> None:
    """Be the package manager that installs a version of ``p``."""
    (root / "usr/p").write_text(f"{version}\n")
    (root / STATUS).write_text(f"p\t{version}\tinstalled\n")


def write_update(tree: Path, version: int) -> None:
    """Make an update: a kernel of its own, files changed, added and taken away."""
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/release").write_text(f"{version}\n")
    usr = tree / "usr"
    usr.mkdir()
    for number in range(8):
        (usr / f"file-{number}").write_bytes(_noise(f"{version} {number}", 700 * number))
        (usr / f"new-{version}-{number}").write_bytes(_noise(f"new {version} {number}", 5000))
    (usr / f".wh.file-{8 + version % 4}").touch()
    write_kernel(tree, version)


APP = "web"
"""The application tree that the flows are about."""

SOCKETS = Path("/mnt")
"""Where its socket lies, which is handed on: a driver mounts what nobody else sees there."""

INSTANCE = ("/bin/busybox", "sleep", "1000000")
"""What runs of it."""

APP_SETTINGS = f"""\
start = {json.dumps(INSTANCE)}
listen = ["{SOCKETS / APP}"]
"""


def write_app_settings(root: Path) -> None:
    """Say how the application runs."""
    settings = root / "etc/snaptx/apps" / f"{APP}.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(APP_SETTINGS)


def write_app(tree: Path, version: int) -> None:
    """Make an update of the application, the first one with the program that runs."""
    for name in ("bin", "etc", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/release").write_text(f"{version}\n")
    for number in range(4):
        (tree / f"etc/file-{number}").write_bytes(_noise(f"app {version} {number}", 3000 * number))
    if version == 2:
        shutil.copy(_busybox(), tree / "bin/busybox")


UPDATES = {f"update-{version}": version for version in (2, 3)}
APP_UPDATES = {f"app-{version}": version for version in (2, 3)}


def write_payloads(place: Path) -> None:
    """Make every update, of the system and of the application, below ``place``."""
    for name, version in UPDATES.items():
        write_update(place / name, version)
    for name, version in APP_UPDATES.items():
        write_app(place / name, version)


@dataclass(frozen=True, slots=True)
class Flow:
    """What is done before the recording and during it, on a machine of one layout.

    ``tells`` is whether the exit code of what is ``struck`` says that an error came.
    """

    name: str
    prepare: tuple[Step, ...]
    record: tuple[Step, ...]
    layout: Layout = Layout.DEBIAN
    tells: bool = True

    @property
    def has_shell(self) -> bool:
        """Return whether commands run in the root."""
        return any(step[0] in ("run", "upgrade", "hook") for step in self.record)

    @property
    def has_app(self) -> bool:
        """Return whether it is about an application tree."""
        return any(step[0] == "app" for step in self.record)

    @property
    def takes_errors(self) -> bool:
        """Return whether errors are tried on it: on one disk, and where the exit code tells of them."""
        return self.disks == (DISK,) and self.tells

    @property
    def struck(self) -> int:
        """Return which recorded step errors are tried on: the last one that does not only end an instance."""
        return max(number for number, step in enumerate(self.record) if step != _STOP)

    @property
    def disks(self) -> tuple[str, ...]:
        """Return the names of the machine's disks."""
        return (DISK, BOOT) if PLANS[self.layout].boot else (DISK,)

    def on_boot_partition(self) -> Flow:
        """Return the flow on a machine with a /boot of its own, which is recorded as a second disk."""
        return replace(self, name=f"boot-{self.name}", layout=Layout.FEDORA)


def _update(version: int) -> Step:
    return ("apply", f"update-{version}")


_TWO: tuple[Step, ...] = (("init",), _update(2), ("commit",), ("boot",), ("confirm",))
_THREE: tuple[Step, ...] = (*_TWO, _update(3), ("commit",), ("boot",), ("confirm",))
_SHELL = ("run", "--", "/bin/busybox", "sh", "-c", "echo made > /etc/made; rm /usr/file-1")
_HOOK = ("hook", "--manager", "apt")
_BEFORE, _AFTER = (*_HOOK, "before"), (*_HOOK, "after")

_CREATED: tuple[Step, ...] = (("init",), ("app", "create", APP))
_FIRST: tuple[Step, ...] = (
    *_CREATED,
    ("app", "apply", APP, "app-2"),
    ("app", "switch", APP),
    ("app", "stop", APP),
)
_NEXT: tuple[Step, ...] = (*_FIRST, ("app", "apply", APP, "app-3"))
_MOVED: tuple[Step, ...] = (*_NEXT, ("app", "switch", APP), ("app", "stop", APP))
_START, _STOP = ("app", "start", APP), ("app", "stop", APP)

_ON_ROOT = {
    flow.name: flow
    for flow in (
        Flow("init", (), (("init",),)),
        Flow("apply", (("init",),), (_update(2), _update(3))),
        Flow("run", (("init",),), (_SHELL,)),
        Flow("upgrade", (("init",),), (("upgrade",),)),
        Flow("hook", (("init",),), (_BEFORE,)),
        Flow("hook-drop", (("init",),), (_BEFORE, _AFTER), tells=False),
        Flow("hook-record", (("init",), _BEFORE, ("install",)), (_AFTER,), tells=False),
        Flow("commit", (("init",), _update(2)), (("commit",),)),
        Flow("commit-carry", (("init",), _update(2), ("edit",)), (("commit",),)),
        Flow("rebuilt", (("init",), _update(2), ("rebuild",)), (("commit",),)),
        Flow("rollback", _TWO, (("rollback", "1"),)),
        Flow("activate", (("init",), _update(2), ("commit",)), (("rollback",),)),
        Flow("confirm", _TWO[:-1], (("confirm",),)),
        Flow("reject", (*_TWO, _update(3), ("commit",), ("boot",)), (("confirm", "--bad", "it smokes"),)),
        Flow("prune", _THREE, (("prune", "2"),)),
        Flow("abort", (("init",), _update(2)), (("abort",),)),
        Flow("repair", (*_TWO, ("break",)), (("repair",),)),
        Flow("reconcile", (("init",), _update(2), ("die", "switch", "commit")), (("repair",),)),
        Flow("app-create", (("init",),), (("app", "create", APP),)),
        Flow("app-apply", _FIRST, (("app", "apply", APP, "app-3"),)),
        Flow("app-switch", _NEXT, (_START, ("app", "switch", APP), _STOP)),
        Flow("app-rollback", _MOVED, (_START, ("app", "rollback", APP), _STOP)),
        Flow("app-prune", _MOVED, (("app", "prune", APP, "2"),)),
        Flow("app-remove", _NEXT, (("app", "remove", APP),)),
    )
}
_ON_BOOT = ("init", "commit", "rebuilt", "rollback", "activate", "confirm", "reject", "prune", "reconcile")

FLOWS = {
    **_ON_ROOT,
    **{flow.name: flow for flow in (_ON_ROOT[name].on_boot_partition() for name in _ON_BOOT)},
}
"""Every flow that is recorded, by its name."""
