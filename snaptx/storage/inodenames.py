"""All names of one inode of a Btrfs subvolume, without walking the tree.

A stream of ``btrfs send`` mentions a changed inode under one of its names.  The
others stand in the subvolume's tree beside the inode: INODE_REF items hold the
names within one directory, INODE_EXTREF items what does not fit there.  The
ioctls and structures are those of linux/btrfs.h and linux/btrfs_tree.h; they
need CAP_SYS_ADMIN.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator

_READ_WRITE = 3 << 30
_MAGIC = 0x94 << 8
BTRFS_IOC_TREE_SEARCH_V2 = _READ_WRITE | 112 << 16 | _MAGIC | 17
BTRFS_IOC_INO_LOOKUP = _READ_WRITE | 4096 << 16 | _MAGIC | 18
BTRFS_INODE_REF_KEY = 12
BTRFS_INODE_EXTREF_KEY = 13

_KEY = struct.Struct("=7Q4I4QQ")
_ITEM = struct.Struct("=QQQII")
_REF = struct.Struct("<QH")
_EXTREF = struct.Struct("<QQH")
_LOOKUP = struct.Struct("=QQ")
_BUFFER = 256 * 1024
_MAX = 2**64 - 1


def _search(fd: int, inode: int, kind: int, offset: int) -> Iterator[tuple[int, bytes]]:
    key = _KEY.pack(0, inode, inode, offset, _MAX, 0, _MAX, kind, kind, 2**32 - 1, 0, 0, 0, 0, 0, _BUFFER)
    buffer = bytearray(key + bytes(_BUFFER))
    fcntl.ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, buffer)
    count, position = _KEY.unpack_from(buffer)[9], _KEY.size
    for _ in range(count):
        _, _, item_offset, _, length = _ITEM.unpack_from(buffer, position)
        position += _ITEM.size
        yield item_offset, bytes(buffer[position : position + length])
        position += length


def _items(fd: int, inode: int, kind: int) -> Iterator[tuple[int, bytes]]:
    offset: int | None = 0
    while offset is not None:
        last = None
        for last, data in _search(fd, inode, kind, offset):
            yield last, data
        offset = None if last is None or last == _MAX else last + 1


def _references(fd: int, inode: int) -> Iterator[tuple[int, bytes]]:
    for parent, data in _items(fd, inode, BTRFS_INODE_REF_KEY):
        position = 0
        while position < len(data):
            _, length = _REF.unpack_from(data, position)
            position += _REF.size
            yield parent, data[position : position + length]
            position += length
    for _, data in _items(fd, inode, BTRFS_INODE_EXTREF_KEY):
        position = 0
        while position < len(data):
            parent, _, length = _EXTREF.unpack_from(data, position)
            position += _EXTREF.size
            yield parent, data[position : position + length]
            position += length


def _directory(fd: int, inode: int) -> bytes:
    buffer = bytearray(_LOOKUP.pack(0, inode).ljust(4096, b"\0"))
    fcntl.ioctl(fd, BTRFS_IOC_INO_LOOKUP, buffer)
    return bytes(buffer[_LOOKUP.size :]).split(b"\0", 1)[0]


def names(fd: int, inode: int) -> Iterator[bytes]:
    """Yield every path of ``inode`` in the subvolume that ``fd`` is in; none if it does not exist.

    Raises:
        OSError: the ioctl failed; ENAMETOOLONG for a directory deeper than 4080 bytes.
    """
    known: dict[int, bytes] = {}
    for parent, name in _references(fd, inode):
        if parent not in known:
            known.clear()
            known[parent] = _directory(fd, parent)
        yield known[parent] + name
