"""Lay a sifted payload over a generation's tree, piece by piece.

The tree is a private, writable snapshot of the base that nobody else uses, so
files get their final name at once; a payload that fails half-way is discarded
with the whole generation.  What the base already holds is not written again::

    sift.py, beside this process             here
    member --> hash --> compare --> Piece --> still as the base has it?  --yes--> record "unchanged"
                                                  | no
                                                  v
                              find the place (Beneath) --> write --> dress --> record the row

    base.py     what the base holds           place.py    where a member goes
    files.py    regular files                 others.py   everything else
    removal.py  whiteouts                     record.py   what was done, on disk
    nodes.py, content.py                      the calls that change the tree
    settle.py   directory times, the manifest
    readback.py reading back what was written

Rules for what contradicts itself, all HostileError: the same path twice; a
directory where the base or the payload has something else, or the other way
round, unless a whiteout came before; a way through the payload's own symlinks;
a hard link to something that is no regular file of the tree, or to a file that
is replaced or removed as well.  Two things are kept on purpose: the metadata of
the root itself, and a symlink of the base that leads to a directory where the
payload has a directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from snaptx.model import Counts, Kind, Member
from snaptx.overlay.content import Meter, Progress
from snaptx.overlay.failure import impossible, translate
from snaptx.overlay.files import Files
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.others import Others
from snaptx.overlay.place import Places
from snaptx.overlay.record import Record
from snaptx.overlay.removal import Remover
from snaptx.overlay.settle import settle
from snaptx.overlay.sift import Match, Piece, Sifted

_FILE = Kind.FILE


class Writer:
    """Applies pieces to the tree at ``root_fd``; end with `finish` or `close`.

    ``base_fd`` is the live base directory; ``manifest`` the new generation's,
    forked from the base's and writable.  ``progress`` gets the members so
    far, at most every 100 ms.  Both descriptors stay the
    caller's.
    """

    def __init__(
        self, root_fd: int, base_fd: int, manifest: Manifest, *, progress: Progress | None = None
    ) -> None:
        self._root_fd = root_fd
        self._manifest = manifest
        self._record = Record(manifest)
        self._record.begin()
        self._places = Places(root_fd, self._record)
        self._meter = Meter(progress)
        self._files = Files(self._places, base_fd)
        remover, others = Remover(self._places.beneath, self._record), Others(self._places, manifest)
        self._handlers: dict[Kind, Callable[[Member, Piece], None]] = dict.fromkeys(Kind, others.node)
        self._handlers |= {
            Kind.DIRECTORY: others.directory,
            Kind.HARDLINK: others.hardlink,
            Kind.WHITEOUT: lambda member, _: remover.whiteout(member.path),
            Kind.OPAQUE: lambda member, _: remover.opaque(member.path),
        }

    def write(self, pieces: Iterator[Sifted]) -> None:
        """Bring all members into the tree; a path alone is a member that is the base's row there.

        Raises HostileError and SourceError for what is wrong with the payload,
        NoSpaceError, ReadOnlyError or StorageError for what is wrong with the
        filesystem.  After any error the tree is to be discarded.
        """
        for told in pieces:
            if isinstance(told, list):
                for path in self._places.keep(told):
                    self._bring(self._in_full(path), pieces)
                self._meter.tick(len(told))
            else:
                self._bring(told, pieces)
                self._meter.tick()
        self._record.flush()

    def _in_full(self, path: bytes) -> Piece:
        """Return the piece of a member that the base has, and the tree not any more."""
        row = self._manifest.get(path)
        if row is None:
            raise RuntimeError("the base has no such row")
        times = (row.mtime_ns, row.size)
        member = Member(path, row.kind, row.mode, row.uid, row.gid, *times)
        return Piece(member, row, Match.ALL, row.size, row.sha256)

    def _bring(self, piece: Piece, more: Iterator[Sifted]) -> None:
        """Bring one member into the tree; ``more`` yields what follows of its content."""
        member = piece.member
        if member is None:
            raise RuntimeError("content without a file")
        try:
            if member.kind is _FILE:
                self._files.apply(member, piece, more)
            else:
                self._handlers[member.kind](member, piece)
        except OSError as err:
            raise translate(err, member.path) from err
        except (OverflowError, ValueError) as err:
            raise impossible(err, member.path) from err

    def finish(self) -> Counts:
        """Complete the manifest, set the directories' times and return what was done.

        The record of what was written stays for ``readback.reading_back``,
        which drops it.  Nothing is durable before the caller's barrier.
        """
        try:
            settle(self._root_fd, self._record, self._places.beneath)
        except OSError as err:
            raise translate(err, b"") from err
        counts = self._record.counts(self._files.bytes_written)
        self._manifest.commit()
        self._meter.finish()
        self.close()
        return counts

    def close(self) -> None:
        """Release all descriptors; the tree and the manifest stay as they are."""
        self._places.beneath.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
