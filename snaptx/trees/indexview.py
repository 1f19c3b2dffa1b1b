"""A tree as its index tells it: nothing of the tree itself is read but what no index holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from snaptx.model import Row
from snaptx.overlay import scan, xattrs
from snaptx.overlay.manifest import Manifest
from snaptx.trees.treeview import Seen, TreeView

_FORMATS = {kind: form for form, kind in scan.KINDS.items()}
_LABEL = xattrs.LABEL.decode()
_DIGEST = "digest"
"""Stands for all attributes that are part of what a file is."""


class IndexView(TreeView):
    """The tree at ``root`` as ``index`` has it; ``known`` are rows at hand, None where there is no path.

    Contents, link targets and attributes are their digests; labels are those
    of the tree.
    """

    def __init__(self, root: int, index: Manifest, known: Mapping[bytes, Row | None]) -> None:
        super().__init__(root)
        self._index = index
        self._known = known

    def _row(self, path: bytes) -> Row | None:
        return self._known[path] if path in self._known else self._index.get(path)

    def _present(self, path: bytes) -> Row:
        row = self._row(path)
        if row is None:
            raise FileNotFoundError(path)
        return row

    def look(self, path: bytes) -> Seen | None:
        """Return what is at ``path``, None if nothing is."""
        row = self._row(path)
        if row is None:
            return None
        mode = _FORMATS[row.kind] | row.mode
        return Seen(row.inode, mode, row.uid, row.gid, row.size, row.mtime_ns, row.ctime_ns, row.device)

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, in no order."""
        return [row.path.rpartition(b"/")[2] for row in self._index.children(path)]

    def target(self, path: bytes) -> bytes:
        """Return the digest of a symbolic link's target."""
        return self._present(path).sha256

    def xattrs(self, path: bytes) -> dict[str, bytes]:
        """Return the digest of the extended attributes under one name, and the label under its own."""
        digest = self._present(path).xattrs
        found = {_DIGEST: digest} if digest else {}
        with suppress(OSError):
            found[_LABEL] = self.label(path)
        return found

    def label(self, path: bytes) -> bytes:
        """Return the SELinux label in the tree; OSError if there is none."""
        directory, _, name = path.rpartition(b"/")
        place = xattrs.by_name(self.directory(directory), name or b".")
        return os.getxattr(place, _LABEL, follow_symlinks=False)

    def same_data(self, path: bytes, other: TreeView, other_path: bytes, size: int) -> bool:
        """Return whether two files have the same digest; both trees are known by their indexes."""
        if not isinstance(other, IndexView):
            raise TypeError("an index tells nothing of a tree without one")
        return self._present(path).sha256 == other._present(other_path).sha256
