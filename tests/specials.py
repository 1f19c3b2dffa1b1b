"""One maker for every kind of file that an update may bring.

Each writes one entry at or beside ``path``, from a seeded generator.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable


def write_file(path: bytes, data: bytes, mode: int = 0o644) -> None:
    """Write a file with exactly this mode."""
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def acl(uid: int) -> bytes:
    """Return rw for one user in the kernel's form (linux/posix_acl_xattr.h): version 2, (tag, perm, id)."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, 6, uid), (4, 4, nobody), (0x10, 6, nobody), (0x20, 4, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def text(path: bytes, rng: random.Random) -> None:
    """A small text file."""
    lines = (b"%d = %d\n" % (i, rng.getrandbits(32)) for i in range(rng.randint(1, 300)))
    write_file(path, b"".join(lines))


def binary(path: bytes, rng: random.Random) -> None:
    """A program-like file."""
    write_file(path, rng.randbytes(rng.randint(1, 60_000)), 0o755)


def large(path: bytes, rng: random.Random) -> None:
    """Some megabytes."""
    write_file(path, rng.randbytes(4096) * rng.randint(500, 1000))


def empty(path: bytes, rng: random.Random) -> None:
    """Nothing."""
    write_file(path, b"")


def hard_link(path: bytes, rng: random.Random) -> None:
    """Three names of one file, one of them in a directory of its own."""
    write_file(path, rng.randbytes(100))
    os.link(path, path + b"-also")
    os.makedirs(path + b"-d")
    os.link(path, path + b"-d/new-here-too")


def symlink(path: bytes, rng: random.Random) -> None:
    """A symlink, to nowhere, outside or with a target that is not UTF-8."""
    os.symlink(rng.choice([b"nowhere", b"/etc/passwd", b"../../../../..", b"target-\xfe\xff"]), path)


def xattrs(path: bytes, rng: random.Random) -> None:
    """User and trusted attributes, one of them empty."""
    write_file(path, b"with attributes\n")
    os.setxattr(path, b"user.binary", rng.randbytes(40))
    os.setxattr(path, b"user.empty", b"")
    os.setxattr(path, b"trusted.note", b"kept\nwith = and newline")


def capability(path: bytes, rng: random.Random) -> None:
    """A program with a file capability."""
    write_file(path, b"\x7fELF" + rng.randbytes(2000), 0o755)
    # cap_net_bind_service (bit 10) permitted and effective, revision 2 (linux/capability.h).
    os.setxattr(path, b"security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


def set_uid(path: bytes, rng: random.Random) -> None:
    """A program with special bits, whose owner is set before them."""
    write_file(path, b"\x7fELF" + rng.randbytes(2000))
    os.chown(path, rng.randint(0, 5), rng.randint(0, 5))
    os.chmod(path, rng.choice([0o4755, 0o2755, 0o6711, 0o1644]))


def with_acl(path: bytes, rng: random.Random) -> None:
    """A file that one more user may write."""
    write_file(path, b"for one user more\n")
    os.setxattr(path, b"system.posix_acl_access", acl(rng.randint(1000, 1100)))


def sparse(path: bytes, rng: random.Random) -> None:
    """A few megabytes that are holes for the most part."""
    write_file(path, b"start")
    with open(path, "r+b") as file:
        file.truncate(rng.randint(2, 16) << 20)
        file.seek(1 << 20)
        file.write(rng.randbytes(5000))


def fifo(path: bytes, rng: random.Random) -> None:
    """A named pipe."""
    os.mkfifo(path)
    os.chmod(path, 0o620)


def odd_name(path: bytes, rng: random.Random) -> None:
    """A name that is not UTF-8, or that shells and parsers trip over."""
    place, name = os.path.split(path)
    odd = rng.choice([b"\xff\xfe-%s", b"-rf %s", b" %s\nline\t\\", b"new-%s " + b"\xc3\xa9" * 20])
    write_file(os.path.join(place, odd % name), name)


def long_name(path: bytes, rng: random.Random) -> None:
    """A name of 255 bytes."""
    place, name = os.path.split(path)
    write_file(os.path.join(place, name.ljust(255, b"n")), name)


def deep(path: bytes, rng: random.Random) -> None:
    """A file many directories down."""
    place = path + b"".join(b"/level-%d" % level for level in range(12))
    os.makedirs(place)
    write_file(place + b"/new-deep", b"deep down\n")


MAKERS: tuple[Callable[[bytes, random.Random], None], ...] = (
    text,
    binary,
    hard_link,
    symlink,
    empty,
    xattrs,
    capability,
    set_uid,
    with_acl,
    sparse,
    fifo,
    odd_name,
    long_name,
    deep,
    large,
)
