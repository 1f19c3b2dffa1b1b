"""Guest images: made once from the Debian archive, then kept until their recipe changes.

    CACHE/base-KEY/root.tar, vmlinuz, initrd      the packages, unpacked and configured
    CACHE/LAYOUT-KEY/disk.raw, variables.fd       a disk that boots by its own GRUB

KEY is the digest of what the image is made of and by.  CACHE is
$SNAPTX_CACHE/vm, or ~/.cache/snaptx/vm.  An image is made under another name
and renamed when it is complete; one builder at a time.

GRUB is installed by the distribution's own tools inside the machine: the
first boot goes past it (QEMU loads the kernel), the next ones through it.
That way the firmware's variables hold what a real installation leaves there.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm import disk, recipe
from tests.vm.layouts import LAYOUTS, Layout
from tests.vm.machine import Firmware, Image, Kernel, Machine
from tests.vm.run import End

_HERE = Path(__file__).parent
_BASE_SOURCES = ("recipe.py", "image.py", "guest")
_DISK_SOURCES = ("disk.py",)
_TARGETS = {Firmware.BIOS: ("i386-pc", "/dev/vda"), Firmware.UEFI: ("x86_64-efi",)}


def cache() -> Path:
    """Return the directory of the images; makes it."""
    chosen = os.environ.get("SNAPTX_CACHE")
    directory = (Path(chosen) if chosen else Path.home() / ".cache/snaptx") / "vm"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _files(name: str) -> list[Path]:
    path = _HERE / name
    return sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]


def _content(path: Path) -> bytes:
    """Return what counts in a source: not how it is laid out, nor its comments."""
    data = path.read_bytes()
    return ast.dump(ast.parse(data)).encode() if path.suffix == ".py" else data


def key(*extra: str) -> str:
    """Return the digest of what an image is made of: the base's, with ``extra`` a disk's."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for name in _BASE_SOURCES + (_DISK_SOURCES if extra else ()):
        for path in _files(name):
            digest.update(f"{path.relative_to(_HERE)}\0{path.stat().st_mode:o}\0".encode())
            digest.update(_content(path))
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory ``name`` of the cache, which ``make`` fills if there is none."""
    target = cache() / name
    with _locked(cache() / f"{name}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=cache()) as scratch:
                whole = Path(scratch) / "whole"
                whole.mkdir()
                make(whole)
                os.sync()
                whole.rename(target)
    return target


def image(name: str) -> Image:
    """Return the disk of the layout ``name``, made if the cache has none.

    Raises:
        subprocess.CalledProcessError: a tool of the host failed, as told on stderr.
        MachineError: GRUB could not be installed.
    """
    layout = LAYOUTS[name]
    found = _made(f"{name}-{key(repr(layout))}", lambda directory: _make_disk(layout, directory))
    return Image(found / "disk.raw", layout.firmware, _variables(layout, found))


def base() -> Path:
    """Return the directory with ``root.tar``, ``vmlinuz`` and ``initrd``, made if the cache has none.

    Raises:
        subprocess.CalledProcessError: mmdebstrap failed, as told on stderr.
    """
    return _made(f"base-{key()}", _make_base)


def _variables(layout: Layout, directory: Path) -> Path | None:
    return directory / "variables.fd" if layout.firmware is Firmware.UEFI else None


def archive() -> str:
    """Return the address of the Debian archive that this machine's apt is set to."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return found[0] if found else "http://deb.debian.org/debian"


def _acquire_options() -> list[str]:
    """Return how this machine's apt gets at its archive: proxies and the like."""
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in dump.splitlines() if "IndexTargets" not in line]
    return [f"--aptopt={line}" for line in lines if '""' not in line]


def _make_base(directory: Path) -> None:
    tree = directory / "tree"
    _write(tree / "initramfs", recipe.INITRAMFS)
    shutil.copytree(recipe.GUEST, tree / "guest")
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=tar"),
            f"--include={','.join(recipe.PACKAGES)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.NOT_INSTALLED),
            '--aptopt=APT::Install-Recommends "false"',
            *_acquire_options(),
            f"--essential-hook=sync-in {tree}/initramfs /",
            f"--customize-hook=sync-in {tree}/guest /",
            f'--customize-hook=echo {recipe.PASSWORD} | chroot "$1" chpasswd',
            f'--customize-hook=echo {recipe.HOSTNAME} > "$1/etc/hostname"',
            '--customize-hook=chroot "$1" systemctl --quiet enable serial-shell.service',
            f'--customize-hook=chroot "$1" systemctl --quiet disable {" ".join(recipe.DISABLED)}',
            '--customize-hook=rm "$1/etc/apt/apt.conf.d/99mmdebstrap"',
            f"--customize-hook=cp \"$1\"/boot/vmlinuz-* '{directory}/vmlinuz'",
            f"--customize-hook=cp \"$1\"/boot/initrd.img-* '{directory}/initrd'",
            *(recipe.SUITE, f"{directory}/root.tar", archive()),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _make_disk(layout: Layout, directory: Path) -> None:
    source = base()
    made = disk.make(layout, source / "root.tar", directory / "disk.raw")
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        machine = Machine(Image(directory / "disk.raw", layout.firmware), Path(scratch))
        line = f"root=UUID={made.root} {disk.root_flags(layout)} ro console=ttyS0,115200"
        with machine, machine.boot(Kernel(source / "vmlinuz", source / "initrd", line)) as run:
            run.check(["systemctl", "is-system-running", "--wait"], 600)
            run.check(["grub-install", "--target", *_TARGETS[layout.firmware]], 600)
            run.check(["update-grub"], 600)
            assert run.poweroff() is End.POWEROFF
        subprocess.run(["qemu-img", "commit", "-q", f"{machine.disk}"], check=True)
        if layout.firmware is Firmware.UEFI:
            shutil.copyfile(machine.variables, directory / "variables.fd")


def main() -> None:
    """Make the images named on the command line, or all; print where they are."""
    for name in sys.argv[1:] or LAYOUTS:
        print(name, image(name).disk, flush=True)


if __name__ == "__main__":
    main()
