"""Where a member goes in the tree, what gives way to it, and the record of it.

What contradicts itself is refused here: the same path twice, a directory where
there is something else or the other way round, a file that is replaced after a
hard link was made to it.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

from snaptx.errors import HostileError
from snaptx.model import Kind, Member
from snaptx.overlay import nodes, xattrs
from snaptx.overlay.failure import shown
from snaptx.overlay.manifest import held
from snaptx.overlay.record import Action, Record
from snaptx.overlay.resolve import Beneath, Directory
from snaptx.overlay.sift import Match, Piece

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


class Places:
    """The tree as a set of places, below the root of ``root_fd``."""

    def __init__(self, root_fd: int, record: Record) -> None:
        self.record = record
        self.beneath = Beneath(root_fd, record.wrote, self._imply)

    def keep(self, paths: Sequence[bytes]) -> Iterator[bytes]:
        """Do as `keeps` for many paths; yield those where it is not so."""
        return itertools.filterfalse(self.keeps, self.record.keep_new(paths))

    def keeps(self, path: bytes) -> bool:
        """Record as unchanged what the base, and so the tree at ``path``, holds just as it is asked for.

        Return whether that is so; what the payload removed is not the base's any more.
        """
        if self.record.is_gone(path):
            return False
        if not self.record.keep(path):
            self.refuse_twice(path)
        return True

    def has(self, piece: Piece, path: bytes) -> bool:
        """Do as `keeps`, if the piece is what the base has at ``path``."""
        row = piece.row
        return row is not None and piece.match is Match.ALL and row.path == path and self.keeps(path)

    def locate(self, member: Member) -> Spot:
        """Find where a member goes; refuse what is there twice or of a kind that does not give way."""
        if not member.path:
            raise HostileError("the payload replaces the root directory itself", hint=_TRUST)
        parent, name = self.beneath.parent(member.path, create=True)
        path = parent.join(name)
        wants_directory = member.kind is Kind.DIRECTORY
        named = self.refuse_twice(path, directory=wants_directory)
        st = nodes.look(parent, name) if named or not parent.made else None
        if st is not None:
            if stat.S_ISDIR(st.st_mode) and not wants_directory:
                self.clash(path, f"a {member.kind}", "a directory")
            if wants_directory and not (stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode)):
                self.clash(path, "a directory", "something else")
        return Spot(parent, name, path, st)

    def refuse_twice(self, path: bytes, *, directory: bool = False) -> bool:
        """Raise HostileError when the payload named ``path`` before; say if it implied a directory there."""
        action = self.record.action(path)
        if action is None or (action is Action.IMPLIED and directory):
            return action is not None
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
        directory.made = directory.touched = True
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
        values = (
            spot.path, str(member.kind), mode, member.uid, member.gid, size, held(member.mtime_ns),
            os.makedev(*member.device), content, attributes, st.st_ino, st.st_ctime_ns,
        )  # fmt: skip
        self.record.put(values, action)
