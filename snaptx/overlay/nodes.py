"""Make things in an open directory and give them owner, mode, attributes and times.

The order is the kernel's: a change of owner clears set-uid bits and
capabilities, so mode and attributes come after it, and times last.  A call that
would change nothing is left out, since each costs a transaction's share of work.
"""

from __future__ import annotations

import os
import stat

from snaptx.model import Kind, Member
from snaptx.overlay import xattrs
from snaptx.overlay.resolve import Directory

_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
_WRITE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_WRONLY | os.O_CLOEXEC
_EDIT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_FORMAT = {
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.SOCKET: stat.S_IFSOCK,
}


def look(parent: Directory, name: bytes) -> os.stat_result | None:
    """Return the stat of an entry, None if there is none; a link is not followed."""
    try:
        return os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def create_file(parent: Directory, name: bytes, mode: int) -> int:
    """Make a new file and open it for writing; whatever has that name is an error."""
    return os.open(name, _CREATE, mode & 0o777, dir_fd=parent.fd)


def write_file(parent: Directory, name: bytes) -> int:
    """Open an existing file to write into it."""
    return os.open(name, _WRITE, dir_fd=parent.fd)


def edit_file(parent: Directory, name: bytes) -> int:
    """Open an existing file to change what is known about it."""
    return os.open(name, _EDIT, dir_fd=parent.fd)


def make_node(parent: Directory, name: bytes, member: Member) -> None:
    """Make a symlink, FIFO, socket or device."""
    if member.kind is Kind.SYMLINK:
        os.symlink(member.link, name, dir_fd=parent.fd)
    else:
        kind = _FORMAT[member.kind]
        os.mknod(name, kind | member.mode & 0o777, os.makedev(*member.device), dir_fd=parent.fd)


def dress(fd: int, member: Member, *, fresh: bool, times: bool = True) -> os.stat_result:
    """Give an open file or directory the owner, mode, attributes and times of ``member``.

    ``fresh`` says that it carries no attributes yet.  Returns its final stat.
    """
    if times and not member.xattrs and (fresh or not xattrs.any_on(fd)):
        # Most files have the right owner and mode: one look tells, and is the final one.
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        st = os.fstat(fd)
        if (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (member.mode, member.uid, member.gid):
            return st
    st = os.fstat(fd)
    mode = stat.S_IMODE(st.st_mode)
    if st.st_uid != member.uid or st.st_gid != member.gid:
        os.fchown(fd, member.uid, member.gid)
        mode = -1 if mode & _SPECIAL else mode
    if mode != member.mode:
        os.fchmod(fd, member.mode)
    if member.xattrs or not fresh:
        xattrs.change(fd, member.xattrs, {} if fresh else xattrs.read(fd))
    if times:
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
    return os.fstat(fd)


def dress_node(parent: Directory, name: bytes, member: Member) -> os.stat_result:
    """Do as `dress` for what can't be opened: the node was just made in ``parent``."""
    st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    if st.st_uid != member.uid or st.st_gid != member.gid:
        os.chown(name, member.uid, member.gid, dir_fd=parent.fd, follow_symlinks=False)
    if member.kind is not Kind.SYMLINK and stat.S_IMODE(st.st_mode) != member.mode:
        os.chmod(name, member.mode, dir_fd=parent.fd)
    if member.xattrs or parent.inherits:
        target = xattrs.by_name(parent.fd, name)
        xattrs.change(target, member.xattrs, xattrs.read(target))
    os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
    return os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
