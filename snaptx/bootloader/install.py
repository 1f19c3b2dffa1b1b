"""Make the machine start by snaptx's menu, and undo that.

Where GRUB reads its configuration from inside the root, it is installed once
more, with its prefix in ``@snaptx/grub``: outside every generation, so that
any generation can go.  By firmware:

* BIOS: ``grub-install`` replaces the core image on the disks the root is on.
* UEFI: ``EFI/snaptx`` on the EFI system partition with a boot entry of its
  own, first in order; the distribution's stays behind it.

Where /boot is a filesystem of its own, the distribution's GRUB lies outside
every generation already.  Its ``custom.cfg``, which grub-mkconfig includes,
leads to snaptx's menu; leaving that menu leads back.
"""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snaptx import durable, log, run, system
from snaptx.bootloader import starting
from snaptx.bootloader.counter import esp
from snaptx.bootloader.grub import grub_directory
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.bootloader.quoting import quote
from snaptx.errors import BootError, CommandError, storage_error
from snaptx.storage.base import MountSpec
from snaptx.system import Mount

EFI = Path("/sys/firmware/efi")
LABEL = "snaptx"
MODULES = Path("/usr/lib/grub")
EFI_TARGETS = {"x86_64": "x86_64-efi", "aarch64": "arm64-efi", "i686": "i386-efi"}
BIOS_TARGET = "i386-pc"
INSTALLERS = ("grub-install", "grub2-install")
SECURE_BOOT = f"SecureBoot-{starting.GUID}"
"""The variable's name, UEFI specification, "Globally Defined Variables"; its fifth byte is 1 if it is on."""

WRITTEN = "written"
"""Beside the menu: digests of what grub-install has put on the disks of a machine with a BIOS."""

BEGIN, END = "### BEGIN snaptx ###", "### END snaptx ###"
# Mounts snaptx's own for one command, in mounts of its own: nothing to leave behind.
_WITH_HOME = 'mkdir -p "$4" && mount -t "$1" -o "$2" "$3" "$4" && shift 4 && exec "$@"'
_TOP = "/run/snaptx/top"


@dataclass(frozen=True, slots=True)
class Home:
    """How GRUB's home is reached: what to mount where, and the directory that then has ``grub`` in it.

    ``name`` is what people know it by.
    """

    name: str
    mount: MountSpec
    at: str
    directory: str


def home(root: Mount) -> Home:
    """Return how to reach GRUB's home on the filesystem of a root."""
    if root.fstype == "zfs":
        dataset = f"{root.source.partition('/')[0]}/snaptx/grub"
        return Home(dataset, MountSpec(dataset, "zfs", "defaults"), f"{_TOP}/grub", _TOP)
    return Home("@snaptx/grub", MountSpec(root.source, "btrfs", "subvolid=5"), _TOP, f"{_TOP}/@snaptx")


class Installer(Protocol):
    """One way to make snaptx's menu the one that the machine starts by."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Return what ``install`` does, in plain words."""
        ...

    def check(self) -> None:
        """Refuse what can't work, before anything is changed.

        Raises:
            BootError: something is missing.
        """
        ...

    def is_installed(self) -> bool:
        """Return whether ``install`` was done, and is still what the machine starts by."""
        ...

    def is_replaced(self) -> bool:
        """Return whether it was done, and the machine starts by another boot loader by now."""
        ...

    def install(self) -> None:
        """Do it; can be repeated."""
        ...

    def undo(self) -> None:
        """Make the machine start as it did before; can be repeated."""
        ...


def find(sysroot: Path, root: Mount, boot: object) -> Installer | None:
    """Return how to make a live system start by snaptx's menu; None where nothing starts (a sandbox)."""
    if not system.is_running_root(sysroot):
        return None
    match boot:
        case GrubOnBoot():
            return Sourced(sysroot / "boot", boot)
        case GrubInRoot():
            return Firmware(home(root), EFI.is_dir(), esp(sysroot), boot.home)
    return None


def _grub_install(*words: str) -> list[str]:
    name = next((name for name in INSTALLERS if shutil.which(name, path=run.SAFE_PATH)), "")
    if not name:
        raise BootError("grub-install is not installed", hint="install GRUB's tools (grub2-common)")
    return [name, *words]


@dataclass(frozen=True, slots=True)
class Firmware:
    """GRUB with its prefix in ``@snaptx/grub``, started by the firmware.

    ``files`` is where this process finds that directory; a command gets to see it as ``home`` says.
    """

    home: Home
    efi: bool
    esp: Mount | None
    files: Path

    @property
    def target(self) -> str:
        """Return GRUB's name for the platform."""
        return EFI_TARGETS.get(platform.machine(), "") if self.efi else BIOS_TARGET

    @property
    def steps(self) -> tuple[str, ...]:
        """Return what ``install`` does, in plain words."""
        if self.esp:
            where = f"install GRUB ({self.target}) as {self.esp.target}/EFI/{LABEL}, first in the boot order"
        else:
            where = f"install GRUB ({self.target}) on {', '.join(self._disks())}"
        return (f"{where}, its files and menu in {self.home.name}",)

    def check(self) -> None:
        """Refuse a machine without GRUB's modules, or one that takes signed boot loaders only."""
        if not (MODULES / self.target).is_dir():
            package = "grub-efi-amd64-bin" if self.efi else "grub-pc-bin"
            hint = f"install GRUB's modules (in Debian: {package})"
            raise BootError(f"{MODULES / self.target} is missing", hint=hint)
        if self.efi and self.esp is None:
            raise BootError("no EFI system partition is mounted", hint="mount it at /boot/efi")
        if self.efi and _secure_boot():
            hint = (
                "turn it off in the firmware, or give /boot a file system of its own, where the"
                " distribution's GRUB leads to snaptx's menu; '--no-boot-loader' does without a menu"
            )
            raise BootError("Secure Boot is on, and takes GRUB from nobody but the distribution", hint=hint)
        _grub_install()
        if self.home.mount.fstype == "zfs":
            _require_readable(self.home.mount.source.partition("/")[0])

    def is_installed(self) -> bool:
        """Return whether the platform's files are in @snaptx/grub, and are what the machine starts by."""
        return self._was_installed() and not self.is_replaced()

    def is_replaced(self) -> bool:
        """Ask the firmware for its boot order, or the disks for what they start; no if neither can tell."""
        if not self._was_installed():
            return False
        if self.esp:
            options = starting.order(EFI / "efivars")
            return bool(options) and not starting.is_first(options, LABEL)
        try:
            return (self.files / WRITTEN).read_bytes() != self._sectors()
        except (OSError, CommandError):
            return False

    @property
    def _core(self) -> Path:
        return self.files / self.target / f"core.{'efi' if self.esp else 'img'}"

    def _was_installed(self) -> bool:
        if not self._core.is_file():
            return False
        return self.esp is None or any((Path(self.esp.target) / "EFI" / LABEL).glob("*.efi"))

    def _sectors(self) -> bytes:
        return starting.sectors(self._disks(), self._core.stat().st_size).encode()

    def install(self) -> None:
        """Install GRUB.

        Raises:
            BootError: grub-install failed; what it says is in the message.
        """
        words = [f"--target={self.target}", f"--boot-directory={self.home.directory}"]
        # The name that grub2-install gives its directory leads to ours.
        self._at_home("ln", "-sfn", "grub", f"{self.home.directory}/grub2")
        if self.esp:
            words += [f"--efi-directory={self.esp.target}", f"--bootloader-id={LABEL}"]
            self._at_home(*_grub_install(*words))
            return
        for disk in self._disks():
            self._at_home(*_grub_install(*words, disk))
        try:
            durable.replace(self.files / WRITTEN, self._sectors(), 0o644)
        except OSError as error:
            raise storage_error(error, "cannot read what GRUB is on the disks") from error

    def undo(self) -> None:
        """Install the distribution's GRUB again where ours replaced it, or take ours away beside it."""
        if self.esp is None:
            for disk in self._disks():
                run.run(_grub_install(f"--target={self.target}", disk))
            return
        shutil.rmtree(Path(self.esp.target) / "EFI" / LABEL, ignore_errors=True)
        for number in re.findall(rf"(?m)^Boot([0-9A-F]{{4}})\*? {LABEL}\b", run.run(["efibootmgr"]).stdout):
            run.run(["efibootmgr", "--quiet", "--bootnum", number, "--delete-bootnum"])

    def _disks(self) -> list[str]:
        """Return the disks that the root is on."""
        return run.run(["grub-probe", "--target=disk", "/"]).stdout.split()

    def _mounting(self) -> tuple[str, ...]:
        spec = self.home.mount
        return spec.fstype, spec.options, spec.source, self.home.at

    def _at_home(self, *command: str, ok: tuple[int, ...] = (0,)) -> bool:
        """Run a command that sees GRUB's home; return whether its status was 0."""
        alone = ["unshare", "--mount", "--propagation", "private", "--"]
        try:
            done = run.run([*alone, "sh", "-ec", _WITH_HOME, "sh", *self._mounting(), *command], ok=ok)
        except CommandError as error:
            raise BootError(f"{command[0]}: {error.message}", hint=error.hint) from error
        return done.status == 0


def _require_readable(pool: str) -> None:
    """Refuse a pool that GRUB can't read, and say what would make it unreadable.

    Raises:
        BootError: GRUB can't read it; the features that GRUB does not know are in the message.
    """
    from snaptx.storage.zfs import features
    from snaptx.storage.zfs.pool import unreadable_by_grub

    found = unreadable_by_grub(pool)
    try:
        run.run(["grub-probe", "--target=fs", "/"])
    except CommandError as error:
        why = f"of features it does not know: {', '.join(found.active)}" if found.active else error.message
        hint = (
            "a feature stays: send the system to a pool made with "
            f"'zpool create -o compatibility={features.SET}', or give /boot a file system"
        )
        raise BootError(f"GRUB can't read the pool {pool}, because {why}", hint=hint) from error
    if warning := features.told(pool, found):
        log.warning(warning)


def _secure_boot() -> bool:
    try:
        return (EFI / "efivars" / SECURE_BOOT).read_bytes()[4:5] == b"\1"
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Sourced:
    """The distribution's GRUB on a /boot of its own, led to snaptx's menu there."""

    boot: Path
    loader: GrubOnBoot

    @property
    def steps(self) -> tuple[str, ...]:
        """Return what ``install`` does, in plain words."""
        return (f"lead GRUB from {self._custom} to the menu in {self.loader.home}; leaving it leads back",)

    @property
    def _directory(self) -> Path:
        return self.boot / (grub_directory(self.boot) or "grub")

    @property
    def _custom(self) -> Path:
        return self._directory / "custom.cfg"

    def check(self) -> None:
        """Refuse a grub.cfg that does not include custom.cfg."""
        config = self._directory / "grub.cfg"
        if not config.is_file():
            raise BootError(f"{config} is missing", hint="install GRUB, or run update-grub")
        if "custom.cfg" not in config.read_text(encoding="utf-8", errors="replace"):
            hint = "keep /etc/grub.d/41_custom executable and run update-grub"
            raise BootError(f"{config} does not include custom.cfg", hint=hint)

    def is_installed(self) -> bool:
        """Return whether custom.cfg leads to the menu."""
        return self._block() in self._text()

    def is_replaced(self) -> bool:
        """Say no: the machine starts by the distribution's GRUB, and who takes the lines out means it."""
        return False

    def install(self) -> None:
        """Add the lines to custom.cfg, or renew them."""
        text = self._without()
        durable.replace(self._custom, (self._block() + text).encode(errors="surrogateescape"), 0o644)
        self.loader.barrier()

    def undo(self) -> None:
        """Remove the lines from custom.cfg, and the file with its last line."""
        text = self._without()
        if text:
            durable.replace(self._custom, text.encode(errors="surrogateescape"), 0o644)
        else:
            self._custom.unlink(missing_ok=True)
        self.loader.barrier()

    def _text(self) -> str:
        return self._custom.read_bytes().decode(errors="surrogateescape") if self._custom.is_file() else ""

    def _without(self) -> str:
        return re.sub(rf"{re.escape(BEGIN)}\n.*?{re.escape(END)}\n", "", self._text(), flags=re.DOTALL)

    def _block(self) -> str:
        menu = f"($snaptx_boot)/{self.loader.home.name}/grub.cfg"
        lines = [
            BEGIN,
            'if [ "$snaptx_leave" != 1 ]; then',
            '    if [ -n "$superusers" ]; then',
            "        export superusers",
            "    fi",
            f"    search --no-floppy --fs-uuid --set=snaptx_boot {quote(self.loader.uuid)}",
            f"    if [ -s {menu} ]; then",
            f"        configfile {menu}",
            "    fi",
            "fi",
            END,
        ]
        return "\n".join(lines) + "\n"
