"""Random changes to a small tree with few names, from a seed."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

FICLONE = 0x40049409
NAMES = (b"a", b"b", b"c", b"d.1", b"d", b"\xff\xfe", b"e f\n", b"o257-7-0")
SIZES = (0, 1, 10, 4096, 70_000)
DEPTH = 5


class Mutator:
    """Changes below one directory; ``log`` tells what was done since the last call of ``mutate``."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = os.fsencode(root)
        self.random = random.Random(seed)
        self.log: list[str] = []
        self._operations = (
            [self._create] * 8
            + [self._directory] * 8
            + [self._rename_directory, self._rename, self._link] * 3
            + [self._swap, self._chain, self._symlink] * 2
            + [self._unlink, self._remove_tree, self._file_for_directory, self._directory_for_file]
            + [self._directory_anew, self._chmod, self._chown, self._xattr, self._touch]
            + [self._truncate, self._append, self._overwrite, self._sparse, self._hole, self._reflink]
            + [self._rewrite, self._retarget, self._fifo, self._device]
        )

    def mutate(self, count: int) -> None:
        """Do ``count`` random changes; what is not possible just now is left out."""
        self.log.clear()
        for _ in range(count):
            operation = self.random.choice(self._operations)
            try:
                operation()
            except (OSError, IndexError, shutil.Error) as error:
                self.log.append(f"({operation.__name__}: {error})")

    def _say(self, what: str, *paths: bytes) -> None:
        self.log.append(f"{what} " + " ".join(repr(path[len(self.root) + 1 :]) for path in paths))

    def _all(self, wanted: Callable[[bytes], bool], *, with_root: bool = False) -> list[bytes]:
        found = [self.root] if with_root else []
        for place, directories, files in os.walk(self.root):
            directories.sort()
            found += [os.path.join(place, name) for name in sorted(directories + files)]
        return [path for path in found if wanted(path)]

    def _any(self, wanted: Callable[[bytes], bool] = lambda path: True, *, with_root: bool = False) -> bytes:
        return self.random.choice(self._all(wanted, with_root=with_root))

    def _file(self) -> bytes:
        return self._any(lambda path: os.path.isfile(path) and not os.path.islink(path))

    def _dir(self) -> bytes:
        return self._any(_is_directory)

    def _small_dir(self) -> bytes:
        """Return a directory whose loss leaves most of the tree."""
        return self._any(lambda path: _is_directory(path) and sum(1 for _ in os.walk(path)) < 4)

    def _name(self) -> bytes:
        """Return a path that may or may not exist, in a directory that does."""
        place = self._any(
            lambda path: _is_directory(path) and path.count(b"/") - self.root.count(b"/") < DEPTH,
            with_root=True,
        )
        return os.path.join(place, self.random.choice(NAMES))

    def _free(self) -> bytes:
        path = self._name()
        if os.path.lexists(path):
            raise FileExistsError(path)
        return path

    def _bytes(self) -> bytes:
        return self.random.randbytes(self.random.choice(SIZES))

    def _write(self, path: bytes, data: bytes, flags: int = 0, offset: int = 0) -> None:
        fd = os.open(path, os.O_WRONLY | flags, 0o644)
        try:
            os.pwrite(fd, data, offset) if offset else os.write(fd, data)
        finally:
            os.close(fd)

    def _create(self) -> None:
        path = self._free()
        self._write(path, self._bytes(), os.O_CREAT | os.O_EXCL)
        self._say("create", path)

    def _directory(self) -> None:
        path = self._free()
        os.mkdir(path)
        self._say("mkdir", path)

    def _unlink(self) -> None:
        path = self._any(lambda path: not _is_directory(path))
        os.unlink(path)
        self._say("unlink", path)

    def _remove_tree(self) -> None:
        path = self._small_dir()
        shutil.rmtree(path)
        self._say("remove tree", path)

    def _move(self, path: bytes, target: bytes) -> None:
        os.rename(path, target)
        self._say("rename", path, target)

    def _rename(self) -> None:
        self._move(self._any(), self._name())

    def _rename_directory(self) -> None:
        self._move(self._dir(), self._free())

    def _swap(self) -> None:
        one, other = self._any(), self._any()
        if (one + b"/").startswith(other + b"/") or (other + b"/").startswith(one + b"/"):
            return
        aside = os.path.join(self.root, b"aside")
        self._move(one, aside)
        self._move(other, one)
        self._move(aside, other)

    def _chain(self) -> None:
        one, other, target = self._dir(), self._dir(), self._free()
        if one != other:
            self._move(other, target)
            self._move(one, other)

    def _file_for_directory(self) -> None:
        path = self._small_dir()
        shutil.rmtree(path)
        self._write(path, self._bytes(), os.O_CREAT)
        self._say("file for directory", path)

    def _directory_for_file(self) -> None:
        path = self._file()
        os.unlink(path)
        os.mkdir(path)
        self._write(os.path.join(path, b"a"), self._bytes(), os.O_CREAT)
        self._say("directory for file", path)

    def _directory_anew(self) -> None:
        path = self._dir()
        names = [name for name in os.listdir(path) if not _is_directory(os.path.join(path, name))]
        shutil.rmtree(path)
        os.mkdir(path)
        for name in names:
            self._write(os.path.join(path, name), self._bytes(), os.O_CREAT)
        self._say("directory anew", path)

    def _link(self) -> None:
        path, target = self._file(), self._free()
        os.link(path, target)
        self._say("link", path, target)

    def _chmod(self) -> None:
        path = self._any(lambda path: not os.path.islink(path), with_root=True)
        os.chmod(path, self.random.choice((0o600, 0o644, 0o755, 0o4755, 0o700)))
        self._say("chmod", path)

    def _chown(self) -> None:
        path = self._any(with_root=True)
        os.chown(path, self.random.randrange(3), self.random.randrange(3), follow_symlinks=False)
        self._say("chown", path)

    def _xattr(self) -> None:
        path = self._any(with_root=True)
        key = self.random.choice(("trusted.a", "trusted.b"))
        if self.random.random() < 0.3:
            os.removexattr(path, key, follow_symlinks=False)
        else:
            os.setxattr(path, key, self._bytes()[:1000], follow_symlinks=False)
        self._say("xattr", path)

    def _truncate(self) -> None:
        path = self._file()
        os.truncate(path, self.random.choice(SIZES))
        self._say("truncate", path)

    def _append(self) -> None:
        path = self._file()
        self._write(path, self._bytes(), os.O_APPEND)
        self._say("append", path)

    def _overwrite(self) -> None:
        path = self._file()
        self._write(path, self._bytes())
        self._say("overwrite", path)

    def _sparse(self) -> None:
        path = self._file()
        self._write(path, b"x", offset=self.random.choice((300_000, 1_000_000, 2_000_000)))
        self._say("sparse write", path)

    def _hole(self) -> None:
        path = self._file()
        fd = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(fd).st_size
            os.ftruncate(fd, size // 2)
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
        self._say("hole at the end", path)

    def _reflink(self) -> None:
        path, target = self._file(), self._file()
        source = os.open(path, os.O_RDONLY)
        fd = os.open(target, os.O_WRONLY)
        try:
            fcntl.ioctl(fd, FICLONE, source)
        finally:
            os.close(source)
            os.close(fd)
        self._say("reflink", path, target)

    def _rewrite(self) -> None:
        path = self._file()
        with open(path, "rb") as file:
            data = file.read()
        found = os.lstat(path)
        os.unlink(path)
        self._write(path, data, os.O_CREAT)
        if self.random.random() < 0.5:
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        self._say("rewrite", path)

    def _touch(self) -> None:
        path = self._any(with_root=True)
        os.utime(path, (1, self.random.randrange(5)), follow_symlinks=False)
        self._say("touch", path)

    def _symlink(self) -> None:
        path = self._free()
        os.symlink(self.random.choice(NAMES), path)
        self._say("symlink", path)

    def _retarget(self) -> None:
        path = self._any(os.path.islink)
        os.unlink(path)
        os.symlink(self.random.choice((*NAMES, b"/etc")), path)
        self._say("retarget", path)

    def _fifo(self) -> None:
        path = self._free()
        os.mkfifo(path)
        self._say("fifo", path)

    def _device(self) -> None:
        path = self._name()
        if os.path.lexists(path) and not _is_directory(path):
            os.unlink(path)
        os.mknod(path, 0o020600, os.makedev(1, self.random.choice((3, 5))))
        self._say("device", path)


def _is_directory(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
