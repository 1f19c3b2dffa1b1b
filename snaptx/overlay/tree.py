"""A directory as a payload: the same members a tar of it would give.

The walk goes by descriptors from the root of the payload: every directory is
opened with ``openat2`` beneath it, without links and without crossing a mount
point, every file with ``O_NOFOLLOW``.  A mount point inside the payload is
refused: what is mounted there is hardly meant, what it hides is out of sight,
and leaving either out silently would lose data.

The order is fixed: the entries of a directory sorted by the bytes of their
names, then its subdirectories one after the other.  So parents come before
children, each directory is opened once, and two equal trees give equal streams.

The root itself is no member: the directory that holds the overlay, often a
private temporary one, says nothing about ``/``.  Sockets are left out, as tar
does.  Whiteouts of OCI layers and of overlayfs are understood (``whiteouts``).

Every file is hashed as it is read, and a digest over all members grows on the
way; it does not depend on where the tree lies, on times of access or on how
the filesystem stores holes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from hashlib import sha256

from snaptx.errors import SourceError
from snaptx.model import Kind, Member
from snaptx.overlay import names, scan, whiteouts, xattrs
from snaptx.overlay.limits import Limits, checked

_CHUNK = 1 << 20
_MAX_EXTENTS = 65536

Extents = tuple[tuple[int, int], ...]


class Digest:
    """What has been read so far: a SHA-256 over the members, and the bytes of their data.

    Per member, fields separated by NUL or preceded by their length: kind, path,
    link, mode, owner, group, mtime, size and device in decimal, the digest of
    the extended attributes, the digest of the content.
    """

    def __init__(self) -> None:
        self.bytes_read = 0
        self._state = sha256()

    def add(self, member: Member, content: bytes) -> None:
        """Take in one member and the digest of its data (empty if it has none)."""
        numbers = (member.mode, member.uid, member.gid, member.mtime_ns, member.size, *member.device)
        fields = (b"%d %d %d %d %d %d %d" % numbers, xattrs.digest(member.xattrs), content)
        record = b"\0".join((member.kind.encode(), member.path, member.link, *fields))
        self._state.update(b"%d:" % len(record) + record)

    def hexdigest(self) -> str:
        """Return the digest over all members so far."""
        return self._state.hexdigest()


class _Data:
    """An open file: its content, hashed on the way, and a watch over changes."""

    __slots__ = ("_digest", "_hash", "_left", "_path", "_st", "fd")

    def __init__(self, fd: int, st: os.stat_result, path: bytes, digest: Digest) -> None:
        self.fd, self._st, self._path, self._digest = fd, st, path, digest
        self._left = st.st_size
        self._hash = sha256()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        try:
            part = os.read(self.fd, wanted)
        except OSError as error:
            raise unreadable(self._path, error) from None
        if not part:
            raise _changed(self._path, "it shrank")
        self._left -= len(part)
        self._digest.bytes_read += len(part)
        self._hash.update(part)
        return part

    def finish(self) -> bytes:
        """Read what is left and return the SHA-256 of the whole content.

        Raises:
            SourceError: the file changed since it was opened.
        """
        while self._left:
            self.read(_CHUNK)
        st = os.fstat(self.fd)
        if (st.st_size, st.st_mtime_ns) != (self._st.st_size, self._st.st_mtime_ns):
            raise _changed(self._path, "it was written to")
        return self._hash.digest()


def _changed(path: bytes, how: str) -> SourceError:
    return SourceError(
        f"the payload changed while it was read, {how}: {names.show(path)}",
        hint="stop what writes to it, or take a snapshot of it, and try again",
    )


def unreadable(path: bytes, error: OSError) -> SourceError:
    """Return what a failed call on ``path`` means for the payload."""
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.ENXIO):
        return _changed(path, "it vanished")
    if error.errno == errno.EXDEV:
        hint = "unmount it, or give what is mounted there as a payload of its own"
        return SourceError(f"mount point inside the payload: {names.show(path)}", hint=hint)
    reason = os.strerror(error.errno or 0)
    return SourceError(f"can't read the payload: {names.show(path)}: {reason}", hint="look at its source")


def read_tree(root_fd: int, limits: Limits | None = None, digest: Digest | None = None) -> Iterator[Member]:
    """Yield what the directory ``root_fd`` holds; the descriptor stays the caller's.

    The data of a file can be read until the next member is asked for; what is
    not read is read then, for ``digest``.

    Raises:
        SourceError: something can't be read, is a mount point, or changes during the walk.
        HostileError: a reserved name is misused, or a path is longer than Linux allows.
        LimitError: it goes beyond ``limits``.
    """
    return checked(_Walk(root_fd, digest or Digest()).members(), limits or Limits())


class _Walk:
    """One walk: the directories still to come, and the hard links seen."""

    def __init__(self, root_fd: int, digest: Digest) -> None:
        self._root = root_fd
        self._digest = digest
        self._pending = [b""]
        self._linked: dict[tuple[int, int], bytes] = {}

    def members(self) -> Iterator[Member]:
        """Yield everything below the root."""
        yield from self._opaque_root()
        while self._pending:
            path = self._pending.pop()
            try:
                fd = scan.open_directory(self._root, path)
            except OSError as error:
                raise unreadable(path, error) from None
            try:
                yield from self._directory(fd, path)
            finally:
                os.close(fd)

    def _opaque_root(self) -> Iterator[Member]:
        bare = Member(b"", Kind.DIRECTORY, xattrs=self._attributes(self._root, b""))
        for member in whiteouts.interpret(bare):
            if member.kind is Kind.OPAQUE:
                yield self._recorded(member)

    def _directory(self, dirfd: int, path: bytes) -> Iterator[Member]:
        try:
            entries = sorted(map(os.fsencode, os.listdir(dirfd)))
        except OSError as error:
            raise unreadable(path, error) from None
        below: list[bytes] = []
        for name in entries:
            full = path + b"/" + name if path else name
            if len(full) > names.PATH_MAX:
                raise names.hostile(f"path longer than {names.PATH_MAX} bytes", full)
            for member in self._entry(dirfd, name, full):
                if member.kind is Kind.DIRECTORY:
                    below.append(full)
                yield member
        self._pending += reversed(below)

    def _entry(self, dirfd: int, name: bytes, path: bytes) -> Iterator[Member]:
        """Yield what one directory entry stands for."""
        try:
            st = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
            kind = scan.KINDS[stat.S_IFMT(st.st_mode)]
            if kind is Kind.SOCKET:
                return
            if kind is Kind.FILE and (st.st_nlink == 1 or (st.st_dev, st.st_ino) not in self._linked):
                yield from self._file(dirfd, name, path, st)
                return
            member = self._plain(dirfd, name, path, st, kind)
        except OSError as error:
            raise unreadable(path, error) from None
        for meant in whiteouts.interpret(member) if whiteouts.is_special(member) else (member,):
            yield self._recorded(meant)

    def _recorded(self, member: Member) -> Member:
        self._digest.add(member, b"")
        return member

    def _plain(self, dirfd: int, name: bytes, path: bytes, st: os.stat_result, kind: Kind) -> Member:
        """Return a member without data: a directory, a link, a FIFO or a device."""
        device = (os.major(st.st_rdev), os.minor(st.st_rdev))
        if kind is not Kind.DIRECTORY and not (kind is Kind.CHAR and device == (0, 0)):
            first = self._first(st, path)
            if first:
                return Member(path, Kind.HARDLINK, link=first)
        link = os.readlink(name, dir_fd=dirfd) if kind is Kind.SYMLINK else b""
        found = self._attributes(xattrs.by_name(dirfd, name), path)
        if kind not in (Kind.CHAR, Kind.BLOCK):
            device = (0, 0)
        mode = stat.S_IMODE(st.st_mode)
        return Member(path, kind, mode, st.st_uid, st.st_gid, st.st_mtime_ns, 0, link, device, found)

    def _first(self, st: os.stat_result, path: bytes) -> bytes:
        """Return the path under which this inode was met before, or b"" and remember this one.

        A whiteout is not remembered: the result holds no such file to link another to.
        """
        if st.st_nlink < 2:
            return b""
        inode = (st.st_dev, st.st_ino)
        if path.rpartition(b"/")[2].startswith(names.PREFIX):
            return self._linked.get(inode, b"")
        first = self._linked.setdefault(inode, path)
        return b"" if first == path else first

    def _attributes(self, target: int | bytes, path: bytes) -> dict[bytes, bytes]:
        try:
            return xattrs.read(target)
        except OSError as error:
            raise unreadable(path, error) from None

    def _file(self, dirfd: int, name: bytes, path: bytes, before: os.stat_result) -> Iterator[Member]:
        """Yield a regular file with its data open as long as the caller needs it."""
        fd = scan.open_file(dirfd, name)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or st.st_ino != before.st_ino:
                raise _changed(path, "it was replaced")
            self._first(st, path)
            data = _Data(fd, st, path, self._digest)
            found = self._attributes(fd, path)
            extents = _extents(fd, st.st_size) if st.st_blocks * 512 < st.st_size else None
            mode = stat.S_IMODE(st.st_mode)
            owner, mtime, size = (st.st_uid, st.st_gid), st.st_mtime_ns, st.st_size
            member = Member(path, Kind.FILE, mode, *owner, mtime, size, b"", (0, 0), found, data, extents)
            yield from self._offered(member, data)
        finally:
            os.close(fd)

    def _offered(self, member: Member, data: _Data) -> Iterator[Member]:
        for meant in whiteouts.interpret(member) if whiteouts.is_special(member) else (member,):
            yield meant
            self._digest.add(meant, data.finish() if meant.kind is Kind.FILE else b"")


def _extents(fd: int, size: int) -> Extents | None:
    """Return where a file of ``size`` bytes carries data (lseek(2)), None if everywhere.

    After a great many holes the rest counts as data: memory stays bounded.
    """
    found: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(fd, start, os.SEEK_HOLE) if len(found) < _MAX_EXTENTS else size
        end = min(end, size)
        found.append((start, end - start))
    os.lseek(fd, 0, os.SEEK_SET)
    return None if found == [(0, size)] else tuple(found)
