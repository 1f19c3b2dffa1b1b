"""Listening sockets that outlive the process that opened them.

No daemon of snaptx keeps them: the next instance is given what the one before
has open (pidfd_getfd(2), Linux 5.6), so that not one connection in the queue is
lost, and only where none runs they are opened anew.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snaptx import system
from snaptx.errors import StorageError, storage_error

SYS_PIDFD_GETFD = 438
BACKLOG = 511


@contextmanager
def listening(
    addresses: tuple[str, ...], heir_of: int, *, nonblocking: bool = False, mode: int = 0o666
) -> Iterator[list[socket.socket]]:
    """Give a listening socket for each address, taken from process ``heir_of`` (0 for none) if it has it.

    That they block is left to who has them otherwise: this is one for both instances.
    ``mode`` are the rights to a Unix socket that is made: who may write to it may connect.

    Raises:
        StorageError: an address can't be listened at.
    """
    owned = {_key(one.family, one.getsockname()): one for one in _listening_of(heir_of)} if heir_of else {}
    given: list[socket.socket] = []
    try:
        for address in addresses:
            family, place = _resolved(address)
            key = _key(family, place)
            given.append(owned.pop(key) if key in owned else _opened(address, family, place, mode))
            if nonblocking:
                given[-1].setblocking(False)
        yield given
    finally:
        for one in (*given, *owned.values()):
            one.close()


def _listening_of(pid: int) -> Iterator[socket.socket]:
    """Yield copies of the listening sockets that a process has open."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        for number in _descriptors(pid):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    yield from _if_listening(system.syscall(SYS_PIDFD_GETFD, process, int(number), 0))
    finally:
        os.close(process)


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:  # it has just ended
        return []


def _if_listening(fd: int) -> Iterator[socket.socket]:
    one = socket.socket(fileno=fd)
    with suppress(OSError):
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield one
            return
    one.close()


def private(addresses: tuple[str, ...], place: Path) -> tuple[str, ...]:
    """Return as many addresses at which nobody else asks: free ports, and Unix sockets in ``place``."""
    return tuple(_private(address, place / f"{number}.sock") for number, address in enumerate(addresses))


def _private(address: str, path: Path) -> str:
    if address.startswith("/"):
        return str(path)
    return "[::1]:0" if address.startswith("[") else "127.0.0.1:0"


def shown(one: socket.socket) -> str:
    """Return how a client is told where a socket listens."""
    name = _name(one.getsockname())
    return f"[{name.rpartition(':')[0]}]:{name.rpartition(':')[2]}" if one.family == socket.AF_INET6 else name


def _key(family: int, place: Any) -> tuple[int, str]:
    """Return what tells sockets apart: a file may have the name that an address is written as."""
    return family, _name(place)


def _name(place: Any) -> str:
    if isinstance(place, bytes):  # abstract, of any bytes, or none
        return os.fsdecode(place)
    return place if isinstance(place, str) else f"{place[0]}:{place[1]}"


def _resolved(address: str) -> tuple[socket.AddressFamily, Any]:
    """Return an address as the kernel tells it of a socket that is bound there, with its family.

    Raises:
        StorageError: it is none, or nobody knows the host's name.
    """
    if address.startswith("/"):
        return socket.AF_UNIX, address
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, 0, family, flags=socket.AI_PASSIVE)[0][4]
        return family, (found[0], int(port), *found[2:])
    except (OSError, ValueError) as error:
        raise _refused(address, error) from error


def _opened(address: str, family: socket.AddressFamily, place: Any, mode: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _make_way(address)
            _bind(one, address, mode)
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(place)
        one.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        one.close()
        raise _refused(address, error) from error
    return one


def _bind(one: socket.socket, path: str, mode: int) -> None:
    """Bind a Unix socket, whose own mode and the umask decide on that of the file (unix_bind in Linux)."""
    os.fchmod(one.fileno(), mode)
    before = os.umask(0)
    try:
        one.bind(path)
    finally:
        os.umask(before)


def _make_way(path: str) -> None:
    """Remove the socket that an earlier instance left; what is no socket is somebody's data.

    Raises:
        FileExistsError: it is none.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "what is there is no socket")
        os.unlink(path)


def _refused(address: str, error: Exception) -> StorageError:
    about = f"cannot listen at {address}"
    if isinstance(error, OSError):
        return storage_error(error, about)
    return StorageError(f"{about}: {error}", hint="as in: 127.0.0.1:8080, [::1]:8080 or /run/app.sock")
