"""Which kernel a root would boot, and with which words on its command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from snaptx import system
from snaptx.bootloader import defaults
from snaptx.errors import BootError

KERNEL_PREFIXES = ("vmlinuz-", "vmlinux-", "Image-", "kernel-")
INITRD_PATTERNS = (
    *("initrd.img-{v}", "initramfs-{v}.img", "initrd-{v}", "initrd-{v}.img"),
    *("initramfs-{v}", "initrd-{v}.gz", "booster-{v}.img"),
)
"""How Debian, Fedora and Arch, openSUSE, Mageia, Alpine, Slackware and booster name that of kernel v."""

ARGUMENTS = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
"""The variables of /etc/default/grub that hold the kernel's arguments."""

TOP_LEVEL = "GRUB_TOP_LEVEL"
"""The variable that names the image to boot of several, by its path (GRUB 2.12)."""

EARLY = {
    "GRUB_EARLY_INITRD_LINUX_STOCK": (
        *("intel-uc.img", "intel-ucode.img", "amd-uc.img", "amd-ucode.img"),
        *("early_ucode.cpio", "microcode.cpio"),
    ),
    "GRUB_EARLY_INITRD_LINUX_CUSTOM": (),
}
"""The variables that name images in /boot to load before the initrd, and what grub-mkconfig takes without."""

OTHERS_OWN = (
    r"(BOOT_IMAGE|initrd|root|rootflags|rootfstype|vt\.handoff|snaptx\.why)=|(ro|rw|quiet|splash|rhgb)$"
)
"""Matches a word that a boot loader adds by itself, that names the root, or that nobody misses."""

CMDLINE = "etc/kernel/cmdline"

ROOTFLAGS = "rootflags="
"""Begins the word with the options that the root is mounted with, the subvolume among them."""

CLOCK_OF_FAT = 2.0
"""Seconds: so much later may a file seem than its copy on an EFI system partition."""

MAGIC, MAGIC_AT, VERSION_AT, SETUP_AT = b"HdrS", 0x202, 0x20E, 0x200
"""Of the header, and where the place of the version counts from (Documentation/arch/x86/boot.rst)."""

MODULES = ("usr/lib/modules", "lib/modules")


class Kernel(NamedTuple):
    """A kernel's version and its files; some need no initrd, ``early`` images go before it."""

    version: str
    image: Path
    initrd: Path | None = None
    early: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file that is loaded."""
        return (self.image, *self.early, *((self.initrd,) if self.initrd else ()))


class Arguments(NamedTuple):
    """What kernels of a root are to be told: words, the file that has them, the variables that only a shell
    could read, which count as not set.
    """

    words: list[str]
    file: str
    unread: tuple[str, ...] = ()


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts versions as people read them: 6.9, 6.10-rc1, 6.10."""
    parts = re.findall(r"\d+|~|[^\d~]+", re.sub(r"-(?=rc\d)", "~", version))
    key = [(2, int(part)) if part.isdigit() else (0 if part == "~" else 1, part) for part in parts]
    return (*key, (1, ""))  # the end is more than a ~


def find(boot: Path, early: Sequence[str] = EARLY["GRUB_EARLY_INITRD_LINUX_STOCK"]) -> list[Kernel]:
    """Return the kernels in a boot directory, newest first; links lead nowhere.

    ``early`` names the images that are loaded before the initrd where they are there.
    """
    names = _files(boot)
    before = tuple(boot / name for name in early if name in names)
    found = [
        Kernel(version := name.removeprefix(prefix), boot / name, _initrd(version, boot, names), before)
        for prefix in KERNEL_PREFIXES
        for name in names
        if name.startswith(prefix) and not name.endswith((".old", ".hmac"))
    ]
    return sorted(found, key=lambda kernel: version_key(kernel.version), reverse=True)


def _files(boot: Path) -> set[str]:
    if boot.is_symlink() or not boot.is_dir():
        return set()
    return {entry.name for entry in os.scandir(boot) if entry.is_file(follow_symlinks=False)}


def _initrd(version: str, boot: Path, names: set[str]) -> Path | None:
    patterns = (pattern.format(v=version) for pattern in INITRD_PATTERNS)
    return next((boot / name for name in patterns if name in names), None)


def check(root: Path, *, bare: bool = False) -> None:
    """Refuse a root that has no kernel, or none that would find it; a ``bare`` kernel is no matter.

    Raises:
        BootError: there is none, it has no initrd, or it would not be told what is configured.
    """
    kernel = choose(root)
    if bare:
        return
    if lost := arguments(root).unread:
        message = f"{', '.join(lost)} in /{defaults.FILE} is for a shell to work out, and none is run"
        hint = "write down what it comes to, there or as one command line in /etc/kernel/cmdline"
        raise BootError(message, hint=hint)
    if kernel.initrd is None:
        names = ", ".join(pattern.format(v="*") for pattern in INITRD_PATTERNS)
        hint = f"make one (names looked for: {names}), or see to the boot entries: --no-boot-loader"
        raise BootError(f"{kernel.image.name} has no initrd, and finds no root by UUID without", hint=hint)


def choose(root: Path, *others: Path) -> Kernel:
    """Return the kernel that ``root`` boots, from its own /boot or from one of ``others``.

    It is the newest that the root has modules for; in the first place that has a kernel, if it has
    modules for none.  The root's own /boot may hold an initrd that was made anew without it.  One
    without an initrd comes last: an upgrade may have been cut off before it was made, and only an
    initrd finds a root by UUID.  The one that ``TOP_LEVEL`` names comes first, as for grub-mkconfig.

    Raises:
        BootError: there is no kernel.
    """
    variables = defaults.read(root) if root.is_dir() else {}
    early, wanted = _early(variables), os.path.basename(variables.get(TOP_LEVEL, ""))
    places = [kernels for place in (root / "boot", *others) if (kernels := find(place, early))]
    if not places:
        hint = "install a kernel package; names looked for: " + ", ".join(f"{p}*" for p in KERNEL_PREFIXES)
        raise BootError("the root has no kernel in /boot", hint=hint)
    fitting = [kernel for kernels in places for kernel in kernels if _has_modules(root, kernel)]
    found = [_with_newer_images(kernel, root / "boot", early) for kernel in fitting or places[0]]
    return max(found, key=lambda one: (bool(one.initrd), one.image.name == wanted, version_key(one.version)))


def running(sysroot: Path) -> str:
    """Return the release of the kernel that runs ``sysroot``, "" if that is not this system's own root."""
    return os.uname().release if system.is_running_root(sysroot) else ""


def passed_over(root: Path, release: str) -> tuple[Kernel, Kernel] | None:
    """Return the kernel of a ``release`` and the one that ``root`` boots instead, None if it is that.

    None as well where it is not known to be in /boot, or has no initrd there.

    Raises:
        BootError: there is no kernel.
    """
    chosen = choose(root)
    every = (chosen, *find(root / "boot"))
    found = next((one for one in every if release in (one.version, _release(one.image))), None)
    return (found, chosen) if found and found.initrd and found.image != chosen.image else None


def _early(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the images to load before the initrd, as configured."""
    return tuple(
        name
        for variable, usual in EARLY.items()
        for name in (variables[variable].split() if variable in variables else usual)
    )


def _with_newer_images(kernel: Kernel, boot: Path, early: Sequence[str]) -> Kernel:
    """Return the kernel with the images that a root's own /boot holds for it, where they are newer."""
    names = _files(boot)
    known = {path.name: path for path in kernel.early}
    newest = [_newer(boot / name if name in names else None, known.get(name)) for name in early]
    initrd = _newer(_initrd(kernel.version, boot, names), kernel.initrd)
    return kernel._replace(initrd=initrd, early=tuple(path for path in newest if path))


def _newer(own: Path | None, known: Path | None) -> Path | None:
    if own and known and own.stat().st_mtime <= known.stat().st_mtime + CLOCK_OF_FAT:
        return known
    return own or known


def _has_modules(root: Path, kernel: Kernel) -> bool:
    return _is_in_modules(root, kernel.version) or _is_in_modules(root, _release(kernel.image))


def _is_in_modules(root: Path, release: str) -> bool:
    return bool(release) and any((root / place / release).is_dir() for place in MODULES)


def _release(image: Path) -> str:
    """Return the release that a kernel for x86 says it is, "" for what says none: Arch's names have none."""
    with image.open("rb") as file:
        header = file.read(VERSION_AT + 2)
        if not header.startswith(MAGIC, MAGIC_AT):
            return ""
        file.seek(SETUP_AT + int.from_bytes(header[VERSION_AT:], "little"))
        found = re.match(rb"[\w.+~-]+", file.read(64))
    return found[0].decode() if found else ""


def arguments(root: Path) -> Arguments:
    """Return the kernel arguments configured in a root, without those that name the root itself."""
    found = _from_kernel_cmdline(root) or _from_default_grub(root)
    words = [
        kept for word in found.words if not word.startswith("root=") and (kept := _without_subvolume(word))
    ]
    return found._replace(words=words)


def command_line(root: Path) -> list[str]:
    """Return the words alone."""
    return arguments(root).words


def told(sysroot: Path) -> str:
    """Return what the kernel that runs ``sysroot`` was told, "" if that is not this system's own root."""
    if not system.is_running_root(sysroot):
        return ""
    return Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace")


def untold(root: Path, line: str) -> list[str]:
    """Return the words of a kernel's command line that one of ``root`` would not be told.

    What names the root and the kernel is each entry's own; nobody misses what only hides messages.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    configured = command_line(root)
    return [word for word in words if word not in configured and not re.match(OTHERS_OWN, word)]


def _without_subvolume(word: str) -> str:
    """Return a word, of ``rootflags=`` what says nothing of the subvolume, "" if nothing is left."""
    if not word.startswith(ROOTFLAGS):
        return word
    options = word.removeprefix(ROOTFLAGS).split(",")
    kept = [option for option in options if not option.startswith(("subvol=", "subvolid="))]
    return ROOTFLAGS + ",".join(kept) if kept else ""


def with_one_rootflags(words: list[str]) -> list[str]:
    """Return the words with all options of the root's mount in one: the initramfs believes the last alone."""
    flags = [word for word in words if word.startswith(ROOTFLAGS)]
    if len(flags) < 2:
        return words
    one = ROOTFLAGS + ",".join(word.removeprefix(ROOTFLAGS) for word in flags)
    at = words.index(flags[0])
    return [*words[:at], one, *(word for word in words[at:] if word not in flags)]


def _from_kernel_cmdline(root: Path) -> Arguments | None:
    text = system.read_in_root(root, CMDLINE).decode(errors="replace")
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None  # an unbalanced quote
    return Arguments(words, f"/{CMDLINE}") if words else None


def _from_default_grub(root: Path) -> Arguments:
    """Return the words in the order of grub-mkconfig; where nothing is said, what distributions say."""
    known = defaults.known(root)
    said = [value for name in ARGUMENTS if (value := known.get(name)) is not None]
    unread = tuple(name for name in ARGUMENTS if name in known and known[name] is None)
    return Arguments(defaults.words(" ".join(said)) if said else ["quiet"], f"/{defaults.FILE}", unread)
