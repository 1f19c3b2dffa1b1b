"""Everything but regular files: directories, hard links, symlinks, FIFOs, devices."""

from __future__ import annotations

import os
import stat

from snaptx.errors import HostileError, SourceError
from snaptx.model import Kind, Member, Row
from snaptx.overlay import nodes, xattrs
from snaptx.overlay.base import same_inode
from snaptx.overlay.failure import shown
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.place import Places, Spot, touch
from snaptx.overlay.record import Action
from snaptx.overlay.scan import index_row
from snaptx.overlay.sift import Piece


class Others:
    """Applies what has no content of its own."""

    def __init__(self, places: Places, manifest: Manifest) -> None:
        self._places = places
        self._record = places.record
        self._manifest = manifest

    def directory(self, member: Member, piece: Piece) -> None:
        """Make or keep a directory; its mtime is restored when everything is written.

        The root's own metadata is left alone: a payload packed from a private
        directory would lock everybody out.
        """
        if not member.path:
            return
        if self._record.action(member.path) is None and self._places.has(piece, member.path):
            return
        spot = self._places.locate(member)
        if spot.st is not None and stat.S_ISLNK(spot.st.st_mode):
            self._keep_symlink(spot)
            return
        implied = self._record.action(spot.path) is Action.IMPLIED
        if spot.st is None:
            touch(spot.parent, self._record)
            os.mkdir(spot.name, member.mode & 0o777, dir_fd=spot.parent.fd)
            st, changed = self._dress_new(spot, member), True
        else:
            changed = self._dress(spot, member)
            st = os.stat(spot.name, dir_fd=spot.parent.fd)
        new = spot.st is None or implied
        action = Action.ADDED if new else Action.CHANGED if changed else Action.UNCHANGED
        self._places.note(spot, member, st, b"", action)

    def _dress_new(self, spot: Spot, member: Member) -> os.stat_result:
        """Give a directory that was just made what ``member`` asks for; return its stat."""
        directory = self._places.beneath.directory(spot.path)
        st = nodes.dress(directory.fd, member, fresh=not spot.parent.inherits, times=False)
        directory.inherits = xattrs.DEFAULT in member.xattrs
        directory.made = directory.touched = True  # its times are set anyway
        return st

    def _dress(self, spot: Spot, member: Member) -> bool:
        """Return whether the directory was not yet what ``member`` asks for."""
        directory = self._places.beneath.directory(spot.path)
        st = os.fstat(directory.fd)
        present = (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)
        if (
            present == (member.mode, member.uid, member.gid, member.mtime_ns)
            and xattrs.LABEL not in member.xattrs
            and xattrs.digest(xattrs.read(directory.fd)) == xattrs.digest(member.xattrs)
        ):
            return False
        nodes.dress(directory.fd, member, fresh=False, times=False)
        directory.inherits = xattrs.has_default_acl(directory.fd)
        return True

    def _keep_symlink(self, spot: Spot) -> None:
        """Leave a symlink of the base that leads to a directory, as dpkg and ``tar -h`` leave it."""
        try:
            self._places.beneath.directory(spot.path)
        except FileNotFoundError as err:
            message = f"{shown(spot.path)} leads to nothing"
            raise HostileError(message, hint="name the real directory") from err
        row = Row(spot.path, Kind.SYMLINK, 0, 0, 0, 0, 0, 0, b"", b"")
        self._record.add(row, Action.KEPT)

    def hardlink(self, member: Member, _: Piece) -> None:
        """Give a regular file of the tree another name; what the member says about metadata is the file's."""
        target = self._target(member)
        if target.st is None:
            raise RuntimeError("a hard link to nothing was let pass")
        spot = self._places.locate(member)
        action = Action.UNCHANGED
        row = self._row_of(target, target.st)._replace(path=spot.path)  # its ctime is that before the link
        if spot.st is None or spot.st.st_ino != target.st.st_ino:
            action = Action.ADDED if spot.st is None else Action.CHANGED
            self._places.vacate(spot)
            source, destination = target.parent.fd, spot.parent.fd
            os.link(target.name, spot.name, src_dir_fd=source, dst_dir_fd=destination, follow_symlinks=False)
        self._record.link(target.path, target.st.st_ino)
        self._record.add(row, action)

    def _target(self, member: Member) -> Spot:
        """Find the regular file inside the tree that a hard link joins."""
        try:
            parent, last = self._places.beneath.parent(member.link)
            st = nodes.look(parent, last)
        except FileNotFoundError:
            st = None
        what = f"{shown(member.path)} is a hard link to {shown(member.link)}"
        if st is None:
            if self._record.is_gone(member.link):
                raise HostileError(f"{what}, which the payload removes", hint="do not trust this payload")
            message = f"{what}, which is neither in the payload before it nor in the base"
            raise SourceError(message, hint="pack the payload again, with the file the link names")
        if not stat.S_ISREG(st.st_mode):
            # tar and ostree give one symlink two names: odd, but no attack.
            cure = "if you trust the payload, pack its files again with: tar --hard-dereference"
            hint = "do not trust this payload" if stat.S_ISDIR(st.st_mode) else cure
            raise HostileError(f"{what}, which is no regular file", hint=hint)
        return Spot(parent, last, parent.join(last), st)

    def _row_of(self, target: Spot, st: os.stat_result) -> Row:
        row = self._record.row(target.path)
        if row is None:
            row = self._manifest.get(target.path)
            if row is None or not same_inode(st, row):
                row = index_row(target.parent.fd, target.name, target.path)
        return row

    def node(self, member: Member, piece: Piece) -> None:
        """Make a symlink, FIFO, socket or device."""
        if self._places.has(piece, member.path):
            return
        spot = self._places.locate(member)
        if self._places.has(piece, spot.path):
            return
        self._places.vacate(spot)
        nodes.make_node(spot.parent, spot.name, member)
        st = nodes.dress_node(spot.parent, spot.name, member)
        self._places.note(spot, member, st, piece.digest)
