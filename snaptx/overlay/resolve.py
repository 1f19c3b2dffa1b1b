"""Find directories below a root, never outside it, and keep their descriptors.

The kernel does the guarding: every directory is opened by ``openat2`` below the
root's descriptor with symlinks, magic links, mount points and ``..`` beyond the
root refused.  Only when that finds a symlink are the components looked at one
by one: a symlink of the base (merged-/usr: ``lib -> usr/lib``) is resolved as
text inside the root, one that the payload itself wrote is never followed.

Two spellings of a directory share one `Directory`, under its canonical path.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from snaptx.errors import HostileError
from snaptx.overlay import xattrs
from snaptx.overlay.failure import shown, translate
from snaptx.overlay.scan import is_foreign, open_directory

_CACHED = 128
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS


class Directory:
    """An open directory: its canonical path, and what it does to new entries.

    ``inherits`` says that it has a default ACL, ``touched`` that its entries
    changed since it was opened, ``made`` that the payload alone put entries there.
    """

    __slots__ = ("fd", "inherits", "made", "path", "touched")

    def __init__(self, fd: int, path: bytes, inherits: bool) -> None:
        self.fd = fd
        self.path = path
        self.inherits = inherits
        self.touched = False
        self.made = False

    def join(self, name: bytes) -> bytes:
        """Return the path of an entry."""
        return self.path + b"/" + name if self.path else name


def _never(path: bytes) -> bool:
    return False


class Beneath:
    """The directories below ``root_fd``; at most 128 descriptors are open.

    ``written`` tells whether the payload put a symlink there; ``made`` is told
    of each directory that was created on the way.
    """

    def __init__(
        self,
        root_fd: int,
        written: Callable[[bytes], bool] = _never,
        made: Callable[[Directory, bytes], None] | None = None,
    ) -> None:
        self._root_fd = root_fd
        self._root = os.fstat(root_fd)
        self._written = written
        self._made = made
        self._open: OrderedDict[bytes, Directory] = OrderedDict()
        self._alias: dict[bytes, bytes] = {}

    def parent(self, path: bytes, *, create: bool = False) -> tuple[Directory, bytes]:
        """Return the directory that holds ``path``, and its name there.

        With ``create``, missing directories are made (0755).  Raises
        HostileError for a way through a payload's symlink, out of the root, in
        a loop, into a mount or nested subvolume, or over something that is no
        directory; FileNotFoundError when a directory is missing.
        """
        head, _, name = path.rpartition(b"/")
        return self.directory(head, create=create), name

    def directory(self, path: bytes, *, create: bool = False) -> Directory:
        """Return the directory ``path`` itself, under the same rules as `parent`."""
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        canonical = self._alias.get(path)
        if canonical is not None:
            return self.directory(canonical)
        try:
            return self._enter(path)
        except OSError as err:
            if err.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                raise self._refusal(err, path) from err
        try:
            return self._walk(path, create)
        except FileNotFoundError as err:
            if not create:
                raise
            raise HostileError(f"{shown(path)} leads to nothing", hint="name the real directory") from err

    def is_foreign(self, st: os.stat_result) -> bool:
        """Return whether ``st`` lies in another filesystem or subvolume than the root."""
        return is_foreign(st, self._root)

    def forget(self, path: bytes) -> None:
        """Close what is known of ``path`` and below it: it was removed, replaced or got a default ACL."""
        if not path:
            self.close()
        self._alias.clear()
        prefix = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(prefix)]:
            os.close(self._open.pop(known).fd)

    def close(self) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def _enter(self, path: bytes) -> Directory:
        fd = open_directory(self._root_fd, path)
        try:
            if path and self.is_foreign(os.fstat(fd)):
                raise HostileError(
                    f"{shown(path)} is a nested subvolume or another filesystem",
                    hint="leave its files out of the payload",
                )
            found = Directory(fd, path, xattrs.has_default_acl(fd))
        except BaseException:
            os.close(fd)
            raise
        self._open[path] = found
        if len(self._open) > _CACHED:
            os.close(self._open.popitem(last=False)[1].fd)
        return found

    def _known(self, path: bytes) -> Directory:
        """Return a directory whose path is canonical."""
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        try:
            return self._enter(path)
        except OSError as err:
            raise self._refusal(err, path) from err

    def _refusal(self, err: OSError, path: bytes) -> Exception:
        if err.errno == errno.ENOENT:
            return err
        if err.errno == errno.EXDEV:
            reason, hint = "leads out of the root or into a mount", "leave its files out of the payload"
        elif err.errno in (errno.ENOTDIR, errno.ELOOP):
            reason, hint = "is not a directory", "remove it with a whiteout first"
        else:
            return translate(err, path)
        return HostileError(f"{shown(path)} {reason}", hint=hint)

    def _walk(self, path: bytes, create: bool) -> Directory:
        """Resolve ``path`` component by component; ``(name, from_link)`` are still to come."""
        todo = [(name, False) for name in reversed(path.split(b"/"))]
        done: list[bytes] = []
        links = 0
        while todo:
            name, from_link = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                done = self._up(done, path)
                continue
            target = self._look(self._known(b"/".join(done)), name, create and not from_link)
            if target is None:
                done.append(name)
                continue
            links += 1
            self._check_link(b"/".join([*done, name]), links)
            if target.startswith(b"/"):
                done = []
            todo.extend((part, True) for part in reversed(target.split(b"/")))
        return self._remember(path, b"/".join(done))

    def _remember(self, path: bytes, canonical: bytes) -> Directory:
        found = self._known(canonical)
        if path != canonical:
            if len(self._alias) >= _CACHED:
                self._alias.clear()
            self._alias[path] = canonical
        return found

    def _up(self, done: list[bytes], path: bytes) -> list[bytes]:
        if not done:
            raise HostileError(f"{shown(path)} leads out of the root", hint="name the real directory")
        self._known(b"/".join(done))
        return done[:-1]

    def _look(self, here: Directory, name: bytes, create: bool) -> bytes | None:
        """Return the target of a symlink, None for anything else; a missing directory is made."""
        try:
            return os.readlink(name, dir_fd=here.fd)
        except FileNotFoundError:
            if not create:
                return None
        except OSError as err:
            if err.errno == errno.EINVAL:
                return None
            raise translate(err, here.join(name)) from err
        try:
            os.mkdir(name, 0o755, dir_fd=here.fd)
        except OSError as err:
            raise translate(err, here.join(name)) from err
        if self._made:
            self._made(here, name)
        return None

    def _check_link(self, path: bytes, links: int) -> None:
        if self._written(path):
            raise HostileError(
                f"the payload writes through {shown(path)}, a symlink of its own",
                hint="do not trust this payload",
            )
        if links > _MAX_LINKS:
            raise HostileError(f"{shown(path)} is a loop of symlinks", hint="name the real directory")
