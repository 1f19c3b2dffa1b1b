"""A guest whose kernel has ZFS, which the host's need not have; made once, then kept.

    CACHE/zfs-modules-KERNEL-ZFS/zfs-modules.deb   the modules, built from Debian's source
    CACHE/zfs-KEY/disk.raw, vmlinuz, initrd        the base image with them and OpenZFS's tools

Building the modules takes about four minutes on two cores, so they are kept by
what they are built of alone: a change of the guest takes them along.  The disk
is ext4 without a partition, which QEMU's kernel is told to take as its root.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.vm import image
from tests.vm.machine import Firmware, Image, Kernel, Machine
from tests.vm.run import Run

PACKAGES = ("zfsutils-linux", "zfs-initramfs", "python3-pyzfs", "python3-pytest")
BUILDING = ("zfs-dkms", "zstd")
SIZE = "4G"
"""Of the disk; a hole until written to."""
MEMORY = 2048
"""MiB: ZFS and file vdevs in memory."""
COMMAND_LINE = "root=/dev/vda rw init=/usr/libexec/bare-init console=ttyS0,115200 panic=1"

_BARE = Path(__file__).parent / "bare"
_POLICY = "#!/bin/sh\nexit 101\n"
"""Keeps packages from starting services in a chroot (invoke-rc.d's policy layer)."""


def _in(tree: Path, *command: str) -> str:
    environment = ["env", "-i", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin"]
    result = subprocess.run(
        ["chroot", tree, *environment, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if result.returncode:
        print(result.stdout, result.stderr)
        result.check_returncode()
    return result.stdout


def _apt(tree: Path, *words: str) -> None:
    _in(tree, "apt-get", "-q", "-y", "--no-install-recommends", *words)


@contextmanager
def _tree() -> Iterator[Path]:
    """Unpack the base image, with Debian's contrib known to its apt."""
    with tempfile.TemporaryDirectory(prefix="zfs-tree.", dir=image.cache()) as place:
        tree = Path(place) / "root"
        tree.mkdir()
        archive = image.base() / "root.tar"
        words = ("--extract", "--file", archive, "--directory", tree, "--numeric-owner", "--xattrs")
        subprocess.run(["tar", *words], check=True)
        (tree / "etc/apt/sources.list").write_text(f"deb {image.archive()} trixie main contrib\n")
        dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
        lines = [line for line in dump.stdout.splitlines() if "IndexTargets" not in line]
        (tree / "etc/apt/apt.conf.d/99host").write_text("\n".join(lines) + "\n")
        (tree / "usr/sbin/policy-rc.d").write_text(_POLICY)
        (tree / "usr/sbin/policy-rc.d").chmod(0o755)
        if not (tree / "etc/resolv.conf").exists():
            shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        _apt(tree, "update")
        yield tree


def _kernel(tree: Path) -> str:
    (found,) = (tree / "lib/modules").iterdir()
    return found.name


def _zfs(tree: Path) -> str:
    return _in(tree, "apt-cache", "show", "--no-all-versions", "zfs-dkms").split("Version: ")[1].split()[0]


def _build_modules(kernel: str, version: str, directory: Path) -> None:
    """Build the modules in a tree of their own and pack them as a package."""
    with _tree() as tree:
        subprocess.run(["mount", "-t", "proc", "proc", tree / "proc"], check=True)
        try:
            _apt(tree, "install", *BUILDING, f"linux-headers-{kernel}")
        finally:
            subprocess.run(["umount", tree / "proc"], check=True)
        package = tree / "package"
        place = package / f"lib/modules/{kernel}/updates/dkms"
        shutil.copytree(tree / f"lib/modules/{kernel}/updates/dkms", place)
        assert {path.name.split(".")[0] for path in place.iterdir()} >= {"zfs", "spl"}
        _describe(package / "DEBIAN", kernel, version)
        packing = ("--root-owner-group", "-Zzstd", "-z3", "--build")
        _in(tree, "dpkg-deb", *packing, "/package", "/zfs-modules.deb")
        shutil.move(tree / "zfs-modules.deb", directory)


def _describe(control: Path, kernel: str, version: str) -> None:
    control.mkdir()
    fields = {
        "Package": f"zfs-modules-{kernel}",
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "nobody <nobody@localhost>",
        "Provides": "zfs-modules",
        "Description": "kernel modules of OpenZFS",
    }
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    (control / "postinst").write_text(f"#!/bin/sh\ndepmod -a {kernel}\n")
    (control / "postinst").chmod(0o755)


def modules(tree: Path) -> Path:
    """Return the package of modules for the kernel and the ZFS of an unpacked image.

    Raises:
        subprocess.CalledProcessError: they can't be built, as told on stderr.
    """
    kernel, version = _kernel(tree), _zfs(tree)
    make = partial(_build_modules, kernel, version)
    return image._made(f"zfs-modules-{kernel}-{version}", make) / "zfs-modules.deb"


def key() -> str:
    """Return the digest of what the guest is made of."""
    digest = hashlib.sha256(image.key().encode())
    for path in (Path(__file__), *sorted(_BARE.iterdir())):
        digest.update(image._content(path))
    return digest.hexdigest()[:16]


def _make_guest(directory: Path) -> None:
    with _tree() as tree:
        shutil.copy(modules(tree), tree / "tmp/zfs-modules.deb")
        shutil.copy(_BARE / "bare-init", tree / "usr/libexec/bare-init")
        _apt(tree, "install", "/tmp/zfs-modules.deb", *PACKAGES)
        _apt(tree, "clean")
        for name in ("tmp/zfs-modules.deb", "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/99host"):
            (tree / name).unlink()
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), directory / "vmlinuz")
        shutil.copy(next((tree / "boot").glob("initrd.img-*")), directory / "initrd")
        disk = directory / "disk.raw"
        subprocess.run(["mkfs.ext4", "-q", "-E", "root_owner=0:0", "-d", tree, disk, SIZE], check=True)


def guest() -> Path:
    """Return the directory with ``disk.raw``, ``vmlinuz`` and ``initrd``, made if the cache has none.

    Raises:
        subprocess.CalledProcessError: a tool of the host failed, as told on stderr.
    """
    make: Callable[[Path], None] = _make_guest
    return image._made(f"zfs-{key()}", make)


@contextmanager
def running(directory: Path) -> Iterator[Run]:
    """Boot the guest, its files in ``directory``; it has a root shell when this yields."""
    found = guest()
    machine = Machine(Image(found / "disk.raw", Firmware.BIOS), directory, 2, MEMORY)
    with machine, machine.boot(Kernel(found / "vmlinuz", found / "initrd", COMMAND_LINE)) as run:
        run.ready()
        yield run
