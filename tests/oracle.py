"""Says what a tree must be after an overlay was laid over a base, and where it is not.

Written from the rules of OCI layers alone and by other means than the package
(plain paths, whole files), so that both would have to be wrong in the same way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
IGNORED_XATTRS = {"security.selinux", "btrfs.compression"}


def differences(base: Path, overlay: Path | None, result: Path) -> Iterator[str]:
    """Yield one line for every path of ``result`` that is not what ``overlay`` over ``base`` asks for.

    Without an overlay ``result`` has to be the same as ``base``.
    """
    expected = _expected(os.fsencode(base), os.fsencode(overlay) if overlay else None)
    root = os.fsencode(result)
    found = dict(_walk(root))
    for path in sorted(found.keys() - expected.keys()):
        yield f"{os.fsdecode(path)!r}: is there and should not be"
    for path in sorted(expected.keys() - found.keys()):
        yield f"{os.fsdecode(path)!r}: is missing"
    for path in sorted(expected.keys() & found.keys()):
        reason = _compare(expected[path], os.path.join(root, path))
        if reason:
            yield f"{os.fsdecode(path)!r}: {reason}"
    yield from _wrong_links(os.fsencode(overlay or base), expected, found)


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield every path below ``root`` on its filesystem with its status; the root itself is b""."""
    yield b"", os.lstat(root)
    for place, below, names in os.walk(root):
        inside = place[len(root) + 1 :]
        for name in [*below, *names]:
            yield os.path.join(inside, name), os.lstat(os.path.join(place, name))
        below[:] = [name for name in below if not os.path.ismount(os.path.join(place, name))]


def _expected(base: bytes, overlay: bytes | None) -> dict[bytes, bytes]:
    """Return for every path of the result the file that it must equal."""
    found = {path: os.path.join(base, path) for path, _ in _walk(base)}
    if overlay is None:
        return found
    asked = [path for path, _ in _walk(overlay)]
    gone, emptied = set(), set()
    for path in asked:
        place, name = os.path.split(path)
        if name == OPAQUE:
            emptied.add(place)
        elif name.startswith(WHITEOUT):
            gone.add(os.path.join(place, name[len(WHITEOUT) :]))
    kept = {path: source for path, source in found.items() if not _below(path, gone, emptied)}
    wanted = {path: os.path.join(overlay, path) for path in asked if not _is_mark(path)}
    return kept | wanted


def _is_mark(path: bytes) -> bool:
    return os.path.basename(path).startswith(WHITEOUT)


def _below(path: bytes, gone: set[bytes], emptied: set[bytes]) -> bool:
    if path in gone:
        return True
    while path:
        path = os.path.dirname(path)
        if path in emptied or path in gone:
            return True
    return False


def _compare(wanted: bytes, found: bytes) -> str:
    """Return in what a file is not the wanted one, "" if it is the same."""
    one, other = os.lstat(wanted), os.lstat(found)
    for name, left, right in (
        ("mode", oct(one.st_mode), oct(other.st_mode)),
        ("owner", (one.st_uid, one.st_gid), (other.st_uid, other.st_gid)),
        ("device", one.st_rdev, other.st_rdev),
        ("time", one.st_mtime_ns, other.st_mtime_ns),
        ("attributes", _xattrs(wanted), _xattrs(found)),
    ):
        if left != right:
            return f"{name} {right}, expected {left}"
    return _compare_content(wanted, found, one, other)


def _compare_content(wanted: bytes, found: bytes, one: os.stat_result, other: os.stat_result) -> str:
    if stat.S_ISLNK(one.st_mode) and os.readlink(wanted) != os.readlink(found):
        return f"leads to {os.readlink(found)!r}, expected {os.readlink(wanted)!r}"
    if not stat.S_ISREG(one.st_mode):
        return ""
    if one.st_size != other.st_size:
        return f"size {other.st_size}, expected {one.st_size}"
    if one.st_blocks * 512 < one.st_size / 2 and other.st_blocks * 512 > one.st_size * 0.75 > 1 << 20:
        return f"its holes are filled: {other.st_blocks * 512} bytes on disk"
    with open(wanted, "rb") as left, open(found, "rb") as right:
        while chunk := left.read(1 << 20):
            if chunk != right.read(1 << 20):
                return "content"
    return ""


def _xattrs(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {n: os.getxattr(path, n, follow_symlinks=False) for n in names if n not in IGNORED_XATTRS}


def _wrong_links(
    overlay: bytes, expected: dict[bytes, bytes], found: dict[bytes, os.stat_result]
) -> Iterator[str]:
    """Yield the paths that are one file in the overlay and several in the result."""
    inodes: dict[int, int] = {}
    for path, source in sorted(expected.items()):
        if not source.startswith(overlay + b"/") or path not in found:
            continue
        wanted = os.lstat(source)
        if wanted.st_nlink > 1 and not stat.S_ISDIR(wanted.st_mode):
            inode = inodes.setdefault(wanted.st_ino, found[path].st_ino)
            if inode != found[path].st_ino:
                yield f"{os.fsdecode(path)!r}: is not the hard link that it should be"
