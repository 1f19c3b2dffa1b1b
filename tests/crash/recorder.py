"""A disk that remembers everything it was told, and can be told to fail.

::

    file system -> loop device -> file in a FUSE mount -> this server -> image
                                                               `-> log (see logfile)

The server is a process of its own that speaks the FUSE protocol itself.  A
write arrives at once and before the file system hears of it; a flush of the
loop device arrives as FSYNC.  The server ends when whoever started it ends:
the kernel then answers every request with an error, so that nothing hangs.  It
has mounts of its own: were it the last to hold those of the starter, it would
unmount them while it ends, and wait for its own answers for ever.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaptx import mounting, system
from tests.crash import fuse
from tests.crash.fuse import Op
from tests.crash.logfile import LogWriter
from tests.crash.sparse import copy_image, punch

KINDS = ("read", "write", "flush")


@dataclass(frozen=True, slots=True)
class Disk:
    """One image to export, and where its log goes."""

    name: str
    image: Path
    log: Path


@dataclass
class _Export:
    image: int
    size: int
    log: LogWriter


@dataclass
class _Fault:
    """Fail the ``nth`` request of a kind from now on, ``times`` in a row, all later ones if ``lasting``."""

    nth: int
    number: int
    lasting: bool
    times: int = 1


@dataclass
class _Server:
    """Answers the kernel; runs in the server process."""

    device: int
    control: socket.socket
    exports: dict[int, _Export]
    names: dict[bytes, int]
    exact: bool = False
    serial: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    faults: dict[str, _Fault] = field(default_factory=dict)

    def serve(self) -> None:
        """Answer until the starter has gone or says stop."""
        buffer = memoryview(mmap.mmap(-1, fuse.BUFFER))
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        poll.register(self.control.fileno(), select.POLLIN)
        if not self._command():  # there is nothing to read before the mount
            return
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self.device in ready and not self._request(buffer):
                return
            if self.control.fileno() in ready and not self._command():
                return

    def _request(self, buffer: memoryview) -> bool:
        try:
            length = os.readv(self.device, [buffer])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return True  # the request was withdrawn
            return bool(error.errno != errno.ENODEV)  # unmounted
        _, code, unique, node, *_ = fuse.HEADER.unpack_from(buffer)
        body = buffer[fuse.HEADER.size : length]
        if code in (Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT):
            return True
        try:
            answer, failure = self._answer(code, node, body), 0
        except OSError as error:
            answer, failure = b"", error.errno or errno.EIO
        reply = fuse.REPLY.pack(fuse.REPLY.size + len(answer), -failure, unique)
        os.writev(self.device, [reply, answer])
        return bool(code != Op.DESTROY)

    def _answer(self, code: int, node: int, body: memoryview) -> bytes:
        match code:
            case Op.INIT:
                return fuse.init_reply(0 if self.exact else struct.unpack_from("<I", body, 8)[0])
            case Op.LOOKUP:
                return self._lookup(bytes(body[:-1]))
            case Op.GETATTR | Op.SETATTR:
                return fuse.attr_reply(node, self.exports[node].size if node in self.exports else 0)
            case Op.OPEN | Op.OPENDIR:
                return fuse.open_reply()
            case Op.STATFS:
                return fuse.statfs_reply()
            case Op.READDIR | Op.RELEASE | Op.RELEASEDIR | Op.FLUSH | Op.DESTROY:
                return b""
            case _:
                return self._transfer(code, node, body)

    def _transfer(self, code: int, node: int, body: memoryview) -> bytes:
        match code:
            case Op.READ:
                return self._read(self.exports[node], body)
            case Op.WRITE:
                return self._write(self.exports[node], body)
            case Op.FSYNC:
                return self._flush(self.exports[node])
            case Op.FALLOCATE:
                return self._punch(self.exports[node], body)
            case _:
                raise OSError(errno.ENOSYS, "not needed")

    def _lookup(self, name: bytes) -> bytes:
        node = self.names.get(name)
        if node is None:
            raise OSError(errno.ENOENT, "no such disk")
        return fuse.entry_reply(node, self.exports[node].size)

    def _counted(self, kind: str) -> None:
        """Count a request, and raise what it shall fail with."""
        self.counts[kind] += 1
        fault = self.faults.get(kind)
        if fault is not None:
            fault.nth -= 1
            if -fault.times < fault.nth <= 0 or (fault.nth < 0 and fault.lasting):
                raise OSError(fault.number, "as told")

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def _read(self, export: _Export, body: memoryview) -> bytes:
        self._counted("read")
        _, offset, size, _ = fuse.READ.unpack_from(body)
        return os.pread(export.image, size, offset)

    def _write(self, export: _Export, body: memoryview) -> bytes:
        self._counted("write")
        _, offset, size, *_ = fuse.WRITE.unpack_from(body)
        data = body[fuse.WRITE.size : fuse.WRITE.size + size]
        os.pwrite(export.image, data, offset)
        export.log.write(self._next(), offset, data)
        return struct.pack("<II", size, 0)

    def _flush(self, export: _Export) -> bytes:
        self._counted("flush")
        export.log.flush(self._next())
        return b""

    def _punch(self, export: _Export, body: memoryview) -> bytes:
        self._counted("write")
        _, offset, length, mode, _ = fuse.FALLOCATE.unpack_from(body)
        if not mode & (fuse.PUNCH_HOLE | fuse.ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, "the size is fixed")
        punch(export.image, offset, length)
        export.log.discard(self._next(), offset, length)
        return b""

    def _command(self) -> bool:
        text = self.control.recv(4096)
        if not text:
            return False
        given = json.loads(text)
        match given.pop("do"):
            case "mark":
                serial = self._next()
                for export in self.exports.values():
                    export.log.mark(serial, given["text"])
            case "fail":
                kind = given.pop("kind")
                self.faults[kind] = _Fault(**given)
            case "mend":
                self.faults.clear()
            case "copy":
                copy_image(Path(given["image"]), Path(given["target"]))
            case "stop":
                self.close()
                self.control.send(b"{}")
                return False
        self.control.send(json.dumps(self.counts).encode())
        return True

    def close(self) -> None:
        """Complete the logs."""
        for export in self.exports.values():
            export.log.close()


class Recorder:
    """The recording disks, in a with block; needs mounts of its own (loop.leave_for_private_mounts).

    ``exact``: each page is asked for when it is needed, none ahead.
    """

    def __init__(self, place: Path, disks: tuple[Disk, ...], *, exact: bool = False) -> None:
        self.place = place
        self._disks = disks
        self._exact = exact

    def __enter__(self) -> Recorder:
        self.place.mkdir(exist_ok=True)
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.fork()
            if not self.pid:
                _serve(device, other, self._control, self._disks, self._exact)
            self._control.recv(1)  # it has left for mounts of its own
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0,max_read={fuse.MAX_WRITE}"
            mounting.mount("snaptx-recorder", str(self.place), "fuse", options=options)
        finally:
            os.close(device)
            other.close()
        self._tell(do="count")
        return self

    def file(self, name: str) -> Path:
        """Return where a disk is exported."""
        return self.place / name

    def _tell(self, **command: Any) -> Mapping[str, int]:
        self._control.send(json.dumps(command).encode())
        answer = self._control.recv(4096)
        if not answer:
            raise RuntimeError("the recorder has ended")
        return dict(json.loads(answer))

    def mark(self, text: str) -> None:
        """Put a remark into every log."""
        self._tell(do="mark", text=text)

    def counts(self) -> Mapping[str, int]:
        """Return how many reads, writes and flushes there were."""
        return self._tell(do="count")

    def fail(
        self, kind: str, nth: int = 1, number: int = errno.EIO, *, lasting: bool = False, times: int = 1
    ) -> None:
        """Let the ``nth`` read, write or flush from now fail with an errno, so many ``times`` in a row.

        All later ones too if ``lasting``.
        """
        self._tell(do="fail", kind=kind, nth=nth, number=number, lasting=lasting, times=times)

    def copy(self, name: str, target: Path) -> None:
        """Copy the image of a disk as it is between two requests: what a power cut would leave."""
        image = next(disk.image for disk in self._disks if disk.name == name)
        self._tell(do="copy", image=str(image), target=str(target))

    def mend(self) -> None:
        """Let nothing fail."""
        self._tell(do="mend")

    def __exit__(self, *_: object) -> None:
        try:
            self._tell(do="stop")
        finally:
            self._control.close()
            mounting.unmount(str(self.place), mounting.MNT_DETACH)
            os.waitpid(self.pid, 0)


def _serve(
    device: int, control: socket.socket, other: socket.socket, disks: tuple[Disk, ...], exact: bool
) -> None:
    """Be the server process; does not return."""
    try:
        system.die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        other.close()
        system.unshare(system.CLONE_NEWNS)
        mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_PRIVATE)
        control.send(b".")
        exports, names = {}, {}
        for node, disk in enumerate(disks, fuse.ROOT + 1):
            image = os.open(disk.image, os.O_RDWR)
            exports[node] = _Export(image, os.fstat(image).st_size, LogWriter(disk.log))
            names[disk.name.encode()] = node
        _Server(device, control, exports, names, exact).serve()
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
