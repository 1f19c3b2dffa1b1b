"""Which paths differ between two read-only Btrfs snapshots, as ``btrfs send`` finds it.

The kernel compares the two trees block by block, skipping what they share, and
writes the difference as a stream of commands into a pipe; a thread waits in the
ioctl while this side reads.  Without file data the stream is a few hundred
bytes for each changed file.  The format is that of fs/btrfs/send.h, version 1:

    "btrfs-stream\\0"  version:u32
    command: length:u32 number:u16 crc32c:u32, then attributes
    attribute: type:u16 length:u16 value

What a command says beyond its paths is of no interest: the caller looks at both
trees anyway.  A path too many costs a look, a path too few loses a change, so
commands of a kind not known here count for the path they carry.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from snaptx import threads
from snaptx.errors import StorageError, storage_error
from snaptx.storage.inodenames import names
from snaptx.storage.pathtrie import Trie

# linux/btrfs.h
BTRFS_IOC_SEND = 1 << 30 | 72 << 16 | 0x94 << 8 | 38
BTRFS_SEND_FLAG_NO_FILE_DATA = 1
_SEND_ARGS = struct.Struct("=qQQQQI28x")

# fs/btrfs/send.h
MAGIC = b"btrfs-stream\0"
VERSION = 1
SUBVOL, SNAPSHOT, MKFILE, SYMLINK = 1, 2, 3, 8
RENAME, LINK, UNLINK, RMDIR, UTIMES, END = 9, 10, 11, 12, 20, 21
ATTRIBUTE_CTIME, ATTRIBUTE_MTIME = 9, 10
ATTRIBUTE_PATH, ATTRIBUTE_PATH_TO = 15, 16
COMMAND_LIMIT = 64 * 1024

_TOO_LONG = {errno.ENAMETOOLONG, errno.ENOMEM}
"""What the kernel says of a path over PATH_MAX; the second up to 6.13 (fs_path_ensure_buf in send.c)."""

_HEADER = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")
_TIME = struct.Struct("<qI")
_PIPE_SIZE = 1024 * 1024


def _broken(what: str) -> StorageError:
    return StorageError(f"the difference of two snapshots can't be read: {what}", hint="run it again")


def _attribute(body: bytes, wanted: int) -> bytes:
    position = 0
    while position + _ATTRIBUTE.size <= len(body):
        kind, length = _ATTRIBUTE.unpack_from(body, position)
        position += _ATTRIBUTE.size
        if position + length > len(body):
            break
        if kind == wanted:
            return body[position : position + length]
        position += length
    raise _broken("a command names no path")


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut the stream into (number, attributes); the last one is END."""
    data, position, start = b"", 0, len(MAGIC) + 4
    for chunk in chunks:
        data, position = data[position:] + chunk, 0
        if start:
            if len(data) < start:
                continue
            if data[: len(MAGIC)] != MAGIC or int.from_bytes(data[len(MAGIC) : start], "little") != VERSION:
                raise _broken("the stream has an unknown format")
            position, start = start, 0
        while position + 10 <= len(data):
            length, number, _ = _HEADER.unpack_from(data, position)
            if length > COMMAND_LIMIT:
                raise _broken("a command is too long")
            end = position + 10 + length
            if end > len(data):
                break
            yield number, data[position + 10 : end]
            position = end
            if number == END:
                return
    raise _broken("it ends too early")


def _step(trie: Trie, number: int, path: bytes, body: bytes) -> None:
    if MKFILE <= number <= SYMLINK:
        trie.make(path)
    elif number == RENAME:
        trie.move(path, _attribute(body, ATTRIBUTE_PATH_TO))
    elif number == LINK:
        trie.link(path)
    elif number in (UNLINK, RMDIR):
        trie.remove(path)
    else:
        trie.modify(path)


def parse(chunks: Iterable[bytes], only_read: Callable[[bytes, bytes], bool] = lambda *_: False) -> Trie:
    """Return the paths a stream mentions.

    ``only_read`` is asked about each command that sets times, with its path and
    attributes, and says whether that stands for nothing but a read.

    Raises:
        StorageError: the stream is not one, or is cut off.
    """
    trie = Trie()
    last: tuple[bool, bytes] | None = None
    for number, body in _frames(chunks):
        if number in (SUBVOL, SNAPSHOT, END):
            continue
        path = _attribute(body, ATTRIBUTE_PATH)
        again = (number > RMDIR, path)
        if (again == last and number > RMDIR) or (number == UTIMES and only_read(path, body)):
            continue
        try:
            _step(trie, number, path, body)
        except ValueError as error:
            raise _broken(str(error)) from error
        last = again
    return trie


def _send(new_fd: int, target: int, parent_id: int, failed: list[OSError]) -> None:
    # A signal would interrupt the kernel in the middle of the stream, and SIGPIPE ends
    # the process where its default is in force.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # No clone sources: looking for them costs time, and clones are changes like others.
    flags = BTRFS_SEND_FLAG_NO_FILE_DATA
    try:
        fcntl.ioctl(new_fd, BTRFS_IOC_SEND, _SEND_ARGS.pack(target, 0, 0, parent_id, flags, 0))
    except OSError as error:
        failed.append(error)
    finally:
        os.close(target)


@contextmanager
def stream(new_fd: int, parent_id: int) -> Iterator[Iterator[bytes]]:
    """Have the kernel compare a snapshot with the subvolume ``parent_id`` and give its stream in chunks.

    Leaving early ends the comparison.

    Raises:
        StorageError: the kernel refused or failed; also when the stream ends.
    """
    failed: list[OSError] = []
    source, target = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    sender = threading.Thread(target=_send, args=(new_fd, target, parent_id, failed), daemon=True)

    def chunks() -> Iterator[bytes]:
        while chunk := os.read(source, _PIPE_SIZE):
            yield chunk
        sender.join()
        if failed:
            raise storage_error(failed[0], "cannot compare two snapshots") from failed[0]

    try:
        threads.begin(sender)
        yield chunks()
    finally:
        os.close(source)
        if sender.ident is None:  # it was not begun; if it was, that end is its own to close
            os.close(target)
        else:
            sender.join()


def _reads_of(old_fd: int) -> Callable[[bytes, bytes], bool]:
    """Return what tells a read from a change: a read moves the time of access and neither ctime nor mtime.

    A system that is in use has read most of its files since the last snapshot.
    """

    def only_read(path: bytes, body: bytes) -> bool:
        try:
            st = os.stat(path or b".", dir_fd=old_fd, follow_symlinks=False)
        except OSError:
            return False
        times = (_nanoseconds(_attribute(body, kind)) for kind in (ATTRIBUTE_CTIME, ATTRIBUTE_MTIME))
        return tuple(times) == (st.st_ctime_ns, st.st_mtime_ns)

    return only_read


def _nanoseconds(time: bytes) -> int:
    if len(time) != _TIME.size:
        raise _broken("a time has an unknown form")
    seconds, nanoseconds = _TIME.unpack(time)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _other_names(fd: int, path: bytes, other_fd: int) -> Iterator[bytes]:
    """Yield all names of the inode at ``path`` in both trees if it has more than one."""
    try:
        found = os.stat(path, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return
    if found.st_nlink > 1:
        yield from names(fd, found.st_ino)
        yield from names(other_fd, found.st_ino)


def touched(old_fd: int, new_fd: int, parent_id: int) -> set[bytes] | None:
    """Return every path that may differ between two read-only snapshots of one subvolume.

    The descriptors are of the snapshots' roots, ``parent_id`` is the id of the
    old one.  A path stands for itself in either tree; b"" is the root.  Needs
    memory and time for what changed, not for the trees.  None if a path is too
    long for the kernel to tell it (PATH_MAX, 4096 bytes).

    Raises:
        StorageError: the kernel can't compare them.
    """
    try:
        return _touched(old_fd, new_fd, parent_id)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _TOO_LONG:
            return None
        raise


def _touched(old_fd: int, new_fd: int, parent_id: int) -> set[bytes]:
    with stream(new_fd, parent_id) as chunks:
        trie = parse(chunks, _reads_of(old_fd))
        for _ in chunks:
            pass
    found = set(trie.paths())
    try:
        for path in trie.modified():
            found.update(_other_names(new_fd, path or b".", old_fd))
    except OSError as error:
        raise storage_error(error, "cannot find the names of a hard-linked file") from error
    return found
