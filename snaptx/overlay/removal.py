"""Whiteouts: take paths of the base out of the tree, by descriptors.

As in an OCI layer, a whiteout speaks about the base only: what this payload
wrote stays, in whatever order its members come.  A whiteout of something
missing is no error.  Other filesystems and nested subvolumes are refused, not
emptied.
"""

from __future__ import annotations

import errno
import os
import stat

from snaptx.errors import HostileError
from snaptx.overlay.failure import shown
from snaptx.overlay.nodes import look
from snaptx.overlay.place import touch
from snaptx.overlay.record import Record
from snaptx.overlay.resolve import Beneath, Directory


class Remover:
    """Removes below the root of ``beneath`` and tells ``record``."""

    def __init__(self, beneath: Beneath, record: Record) -> None:
        self._beneath = beneath
        self._record = record

    def whiteout(self, path: bytes) -> None:
        """Remove ``path``, with everything below it, as far as the base put it there."""
        if not path:
            message = "the payload removes the root directory itself"
            raise HostileError(message, hint="use an opaque directory")
        try:
            parent, name = self._beneath.parent(path)
        except FileNotFoundError:
            return
        st = look(parent, name)
        if st is None:
            return
        canonical = parent.join(name)
        written = self._record.action(canonical) is not None
        if stat.S_ISDIR(st.st_mode):
            self._clear(canonical, keep=written)
        elif not written:
            self._unlink(parent, name, st)
            if stat.S_ISLNK(st.st_mode):
                self._beneath.forget(canonical)

    def opaque(self, path: bytes) -> None:
        """Remove everything below the directory ``path`` that the base put there."""
        try:
            directory = self._beneath.directory(path)
        except FileNotFoundError:
            return
        self._clear(directory.path, keep=True)

    def _unlink(self, parent: Directory, name: bytes, st: os.stat_result) -> None:
        path = parent.join(name)
        if self._record.is_linked(path):
            message = f"the payload removes {shown(path)} and makes a hard link to it"
            raise HostileError(message, hint="do not trust this payload")
        touch(parent, self._record)
        os.unlink(name, dir_fd=parent.fd)
        self._record.remove(path)
        if st.st_nlink > 1:
            self._record.link(path, st.st_ino)

    def _clear(self, top: bytes, *, keep: bool) -> None:
        """Empty a tree from the leaves up; one directory is read at a time, whatever the depth."""
        written = self._record.any_below(top)
        todo = [(top, False)]
        while todo:
            path, emptied = todo.pop()
            if not emptied:
                todo.append((path, True))
                todo.extend((below, False) for below in self._empty(path, written))
            elif path != top or not keep:
                self._rmdir(path, written)
        self._beneath.forget(top)

    def _empty(self, path: bytes, written: bool) -> list[bytes]:
        """Remove what is no directory; return the directories."""
        here = self._beneath.directory(path)
        if here.path != path:
            self._refuse(path)
        directories = []
        with os.scandir(here.fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    directories.append(here.join(name))
                elif not written or self._record.action(here.join(name)) is None:
                    self._unlink(here, name, entry.stat(follow_symlinks=False))
        return directories

    def _rmdir(self, path: bytes, written: bool) -> None:
        if written and self._record.action(path) is not None:
            return
        parent, name = self._beneath.parent(path)
        self._beneath.forget(path)
        try:
            os.rmdir(name, dir_fd=parent.fd)
        except OSError as err:
            if written and err.errno == errno.ENOTEMPTY:
                return
            raise
        touch(parent, self._record)
        self._record.remove(path)

    def _refuse(self, path: bytes) -> None:
        raise HostileError(
            f"the payload removes {shown(path)}, which holds another filesystem or subvolume",
            hint="remove it by hand, or leave it out of the payload",
        )
