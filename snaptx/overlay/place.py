"""Where a member goes in the tree, what gives way to it, and the record of it.

What contradicts itself is refused here: the same path twice, a directory where
there is something else or the other way round, a file that is replaced after a
hard link was made to it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import NamedTuple, NoReturn

from snaptx.errors import HostileError
from snaptx.model import Kind, Member, Row
from snaptx.overlay import nodes, xattrs
from snaptx.overlay.base import Base
from snaptx.overlay.failure import shown
from snaptx.overlay.names import PATH_MAX
from snaptx.overlay.record import Action, Record
from snaptx.overlay.resolve import Beneath, Directory

_MAX_NS = (1 << 63) - 1  # what SQLite and the kernel's nanoseconds can hold
_TRUST = "do not trust this payload"


class Spot(NamedTuple):
    """A place: an open directory, the name there, the whole path, what has that name now."""

    parent: Directory
    name: bytes
    path: bytes
    st: os.stat_result | None


def touch(parent: Directory, record: Record) -> None:
    """Record once that a directory's entries change."""
    if not parent.touched:
        record.touch(parent.path)
        parent.touched = True


def checked(member: Member) -> Member:
    """Return ``member`` as the kernel will show it; refuse paths and times that no reader lets pass."""
    if member.path and _is_unclean(member.path):
        raise HostileError(f"{shown(member.path)} is not a path inside the root", hint=_TRUST)
    if len(member.path) > PATH_MAX:
        raise HostileError(f"{shown(member.path)}: the path is too long", hint=_TRUST)
    if member.kind is Kind.HARDLINK and (not member.link or _is_unclean(member.link)):
        raise HostileError(f"{shown(member.link)} is not a path inside the root", hint=_TRUST)
    if member.kind is Kind.SYMLINK and not member.link:
        raise HostileError(f"{shown(member.path)} is a symlink without a target", hint=_TRUST)
    if not -_MAX_NS <= member.mtime_ns <= _MAX_NS:
        raise HostileError(f"{shown(member.path)} has an impossible time", hint=_TRUST)
    if not member.xattrs:
        return member
    mode, attributes = xattrs.canonical(member.mode, member.xattrs)
    return replace(member, mode=mode, xattrs=attributes)


def _is_unclean(path: bytes) -> bool:
    slashed = b"/" + path + b"/"
    return b"//" in slashed or b"/../" in slashed or b"/./" in slashed or b"\0" in path


class Places:
    """The tree as a set of places, below the root of ``root_fd``."""

    def __init__(self, root_fd: int, base: Base, record: Record) -> None:
        self.base = base
        self.record = record
        self.beneath = Beneath(root_fd, record.wrote, self._imply)

    def find_row(self, member: Member) -> tuple[Member, Row | None]:
        """Return the base's row, and the member under its canonical path where symlinks led to it."""
        row = self.base.row(member.path)
        if row is None and member.path:
            parent, name = self.beneath.parent(member.path, create=True)
            path = parent.join(name)
            if path != member.path:
                return replace(member, path=path), self.base.row(path)
        return member, row

    def locate(self, member: Member) -> Spot:
        """Find where a member goes; refuse what is there twice or of a kind that does not give way."""
        if not member.path:
            raise HostileError("the payload replaces the root directory itself", hint=_TRUST)
        parent, name = self.beneath.parent(member.path, create=True)
        path = parent.join(name)
        wants_directory = member.kind is Kind.DIRECTORY
        self.refuse_twice(path, directory=wants_directory)
        st = nodes.look(parent, name)
        if st is not None:
            if stat.S_ISDIR(st.st_mode) and not wants_directory:
                self.clash(path, f"a {member.kind}", "a directory")
            if wants_directory and not (stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode)):
                self.clash(path, "a directory", "something else")
        return Spot(parent, name, path, st)

    def refuse_twice(self, path: bytes, *, directory: bool = False) -> None:
        """Raise HostileError when the payload named ``path`` before."""
        action = self.record.action(path)
        if action is None or (action is Action.IMPLIED and directory):
            return
        if action is Action.IMPLIED:
            self.clash(path, "no directory", "a directory")
        raise HostileError(f"{shown(path)} is in the payload twice", hint=_TRUST)

    def clash(self, path: bytes, new: str, old: str) -> NoReturn:
        """Raise HostileError: what is there does not give way."""
        message = f"{shown(path)} is {new} in the payload, but there is {old}"
        raise HostileError(message, hint="remove it with a whiteout first")

    def vacate(self, spot: Spot) -> None:
        """Take the name from what has it; other names of the same file keep it."""
        touch(spot.parent, self.record)
        if spot.st is None:
            return
        if spot.st.st_nlink > 1:
            if self.record.is_linked(spot.path):
                message = f"{shown(spot.path)} is replaced after the payload made a hard link to it"
                raise HostileError(message, hint=_TRUST)
            self.record.link(spot.path, spot.st.st_ino)
        os.unlink(spot.name, dir_fd=spot.parent.fd)
        if stat.S_ISLNK(spot.st.st_mode):
            self.beneath.forget(spot.path)

    def _imply(self, parent: Directory, name: bytes) -> None:
        """Give a parent directory that the payload did not name its metadata: 0755, and root's."""
        touch(parent, self.record)
        path = parent.join(name)
        wanted = Member(path, Kind.DIRECTORY, mode=0o755, uid=os.geteuid(), gid=os.getegid())
        directory = self.beneath.directory(path)
        st = nodes.dress(directory.fd, wanted, fresh=False, times=False)
        directory.inherits = False
        self.note(Spot(parent, name, path, None), wanted, st, b"", Action.IMPLIED)

    def note(
        self, spot: Spot, member: Member, st: os.stat_result, content: bytes, action: Action | None = None
    ) -> None:
        """Record what was asked for, with the inode and ctime (ns) it got."""
        if action is None:
            action = Action.ADDED if spot.st is None else Action.CHANGED
        mode = 0o777 if member.kind is Kind.SYMLINK else member.mode
        size = member.size if member.kind is Kind.FILE else len(member.link)
        attributes = xattrs.digest(member.xattrs) if member.xattrs else b""
        row = Row(
            spot.path, member.kind, mode, member.uid, member.gid, size, member.mtime_ns,
            os.makedev(*member.device), content, attributes, st.st_ino, st.st_ctime_ns,
        )  # fmt: skip
        self.record.add(row, action)
