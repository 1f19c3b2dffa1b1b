"""What goes into a sandbox's root: a copy of a tree, a tar, or a skeleton of a few hundred bytes.

System tools do the copying, because they lose nothing.  What every root needs
is added afterwards: mount points, an fstab that fits the layout, GRUB's
defaults and, where there is no kernel, a stand-in.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from snaptx.errors import LayoutError, SourceError, StorageError
from snaptx.run import run

KERNEL = "boot/vmlinuz-0.0.0-sandbox"
INITRD = "boot/initrd.img-0.0.0-sandbox"

_STAND_IN = "This stands in for a {}; it cannot boot. It is here because the sandbox's tree had no kernel.\n"
_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_MOUNT_POINTS = {"boot": 0o755, "dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
_SKELETON = {
    "usr/lib/os-release": 'ID=sandbox\nNAME="snaptx sandbox"\nPRETTY_NAME="snaptx sandbox"\nVERSION_ID=1\n',
    "etc/hostname": "sandbox\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
}
_SKELETON_DIRECTORIES = {"home": 0o755, "root": 0o700, "var/log": 0o755, "var/lib": 0o755, "var/tmp": 0o1777}


def size_of(source: Path) -> int:
    """Return about how many bytes a tree (one filesystem) or a tar takes on disk.

    Raises:
        SourceError: ``source`` is not there or can't be read.
    """
    try:
        found = source.stat()
        if not source.is_dir():
            return found.st_size
        return sum(_sizes(os.fsencode(source), found.st_dev))
    except OSError as error:
        hint = "--from takes a directory or a tar"
        raise SourceError(f"cannot read {source}: {error.strerror}", hint=hint) from error


def _sizes(tree: bytes, device: int) -> list[int]:
    sizes, seen, waiting = [], set(), [tree]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if found.st_dev != device or found.st_ino in seen:
                    continue
                if found.st_nlink > 1:
                    seen.add(found.st_ino)
                sizes.append(found.st_blocks * 512)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(os.fsencode(entry.path))
    return sizes


def fill(root: Path, source: Path | None) -> None:
    """Put the tree or tar ``source`` into the empty ``root`` with everything it carries, or a skeleton.

    Raises:
        CommandError: cp or tar failed; its last line says why.
    """
    if source is None:
        _skeleton(root)
    elif source.is_dir():
        run(["cp", "-a", "--reflink=auto", "--one-file-system", "--no-target-directory", "--", source, root])
    else:
        keep = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
        run(["tar", "--extract", "--preserve-permissions", *keep, "--directory", root, "--file", source])


def complete(root: Path, fstab: str) -> None:
    """Add what the root of a bootable system has, without replacing anything but ``/etc/fstab``.

    Raises:
        LayoutError: a directory of the tree is a symlink where a directory has to be.
        StorageError: the filesystem refused.
    """
    for name, mode in _MOUNT_POINTS.items():
        _directory(root, name, mode)
    _put(root, "etc/fstab", fstab, replace=True)
    _put(root, "etc/default/grub", 'GRUB_DISTRIBUTOR="snaptx sandbox"\nGRUB_CMDLINE_LINUX="quiet"\n')
    if not any(root.glob("boot/vmlinuz*")):
        _put(root, KERNEL, _STAND_IN.format("kernel"))
        _put(root, INITRD, _STAND_IN.format("initrd"))


def _skeleton(root: Path) -> None:
    for name, target in _MERGED.items():
        _directory(root, target, 0o755)
        (root / name).symlink_to(target)
    for name, mode in _SKELETON_DIRECTORIES.items():
        _directory(root, name, mode)
    for name, text in _SKELETON.items():
        _put(root, name, text)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")


def _directory(root: Path, name: str, mode: int) -> Path:
    """Return ``root/name`` as a real directory; ``mode`` is for its last part if it is made here."""
    parts = PurePosixPath(name).parts
    path = root
    for index, part in enumerate(parts, start=1):
        path /= part
        if path.is_symlink():
            hint = "a sandbox's root needs a directory of its own there"
            raise LayoutError(f"/{path.relative_to(root)} is a symbolic link", hint=hint)
        if not path.exists():
            path.mkdir()
            path.chmod(mode if index == len(parts) else 0o755)
    return path


def _put(root: Path, name: str, text: str, *, replace: bool = False) -> None:
    place = PurePosixPath(name)
    path = _directory(root, str(place.parent), 0o755) / place.name
    if replace:
        path.unlink(missing_ok=True)
    if os.path.lexists(path):
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(text)
    except OSError as error:
        raise StorageError(f"cannot write /{name} of the sandbox: {error.strerror}") from error
