"""Every way snaptx can fail, by origin, with its exit code and the cure.

One tree, one code per class, no two classes with the same code: the table in
the manual page is compared with this.  A programmer's mistake is none of
these and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from snaptx.idle import MOUNTS


class SnaptxError(Exception):
    """The work failed and nothing that boots has changed."""

    code: ClassVar[int] = 1
    result: Any = None
    """What is to be told along with it, for ``--json``."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SnaptxError):
    """The command line asks for something that does not exist or fit."""

    code = 2


class ConfigError(SnaptxError):
    """A configuration file can't be read or holds an impossible value."""

    code = 3


class LockError(SnaptxError):
    """Another snaptx is at work."""

    code = 4


class PrivilegeError(SnaptxError):
    """The caller lacks the rights: snaptx needs root."""

    code = 5


class OutputError(SnaptxError):
    """The result could not be written; what was done stands."""

    code = 6


class SourceError(SnaptxError):
    """The payload is missing, unreadable, truncated or malformed."""

    code = 20


class HostileError(SourceError):
    """The payload tries to reach outside the generation or contradicts itself."""

    code = 21


class LimitError(SourceError):
    """The payload exceeds a limit of the configuration."""

    code = 22


class DigestError(SourceError):
    """The payload is not the one that was announced."""

    code = 23


class FetchError(SourceError):
    """The source of updates can't be reached, or breaks off again and again."""

    code = 24


class TrustError(SourceError):
    """The source of updates is not signed by a trusted key, out of date, or older than one seen before."""

    code = 25


class CommandError(SnaptxError):
    """A command run inside a generation ended with a non-zero status."""

    code = 31


class HealthError(SnaptxError):
    """A required health check failed."""

    code = 32


class RejectedError(SnaptxError):
    """The only updates on offer were judged bad or rolled back before."""

    code = 33


class PackageError(SnaptxError):
    """No package manager was found, or it can't do its work: locked, damaged, cut off from its source."""

    code = 34


class VerifyError(SnaptxError):
    """Something is not what its record says."""

    code = 40


class ConflictError(SnaptxError):
    """The running root and the new generation changed the same path."""

    code = 41


class StorageError(SnaptxError):
    """The filesystem refused."""

    code = 50


class NotFoundError(StorageError):
    """There is no such generation, or a part of it is missing."""

    code = 51


class BusyError(StorageError):
    """Something still uses what has to go, or forbids it (booted, pinned, …)."""

    code = 52


class NoSpaceError(StorageError):
    """The filesystem or the quota is full."""

    code = 53


class ReadOnlyError(StorageError):
    """The filesystem, or a /boot of its own, is read-only, or turned read-only."""

    code = 54


class LayoutError(StorageError):
    """This root can't be adopted as it is."""

    code = 55


class OutcomeUnknownError(StorageError):
    """The switch was made, its barrier failed: the next boot decides."""

    code = 59


class BootError(SnaptxError):
    """The boot entry, a kernel or the loader is missing or damaged."""

    code = 60


class LiveError(SnaptxError):
    """The running system can't take up a generation without a restart."""

    code = 61


class JournalError(SnaptxError):
    """The journal can't be read."""

    code = 70


class FormatError(JournalError):
    """A state file was written by a newer snaptx."""

    code = 71


NOTHING_TO_DO = 77
"""Exit code of ``--unchanged-exit-77``, as rpm-ostree has it."""


def every_error(root: type[SnaptxError] = SnaptxError) -> Iterator[type[SnaptxError]]:
    """Yield ``root`` and every error class below it, by exit code."""
    found = [root]
    for cls in found:
        found.extend(cls.__subclasses__())
    yield from sorted(found, key=lambda cls: cls.code)


SPACE_HINT = "free space or raise the quota; 'snaptx prune' removes old generations"
FULL_HINT = "delete files, or raise the quota"
"""What is left to do where space has to be free to remove a generation."""

_MEMORY = "end other programs, or raise the limit: ulimit -v, MemoryMax= of the service"

_CURES = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "all programs together have too many files open: end some, or raise fs.file-max",
    errno.EAGAIN: "raise the limit of memory or of processes: ulimit -v, ulimit -u, TasksMax= of the service",
    errno.EISDIR: "a directory has the name of a file: move it away",
    errno.EFBIG: "raise the limit of a file's size: ulimit -f",
}


def cure_of(number: int | None) -> str:
    """Return the hint for an errno that no class of errors stands for."""
    return _CURES.get(number or 0, "the kernel log (dmesg) may say more")


def no_memory(notes: Iterable[str] = ()) -> SnaptxError:
    """Return the error of the tree for a MemoryError; ``notes`` say what became of the work."""
    return SnaptxError(": ".join(["out of memory", *notes]), hint=_MEMORY)


def storage_error(error: OSError, doing: str) -> StorageError:
    """Return the error of the tree for what the filesystem said while ``doing`` something."""
    reason = error.strerror or str(error)
    message = f"{doing}: {reason}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpaceError(message, hint=SPACE_HINT)
        case errno.EROFS:
            return ReadOnlyError(message, hint="look at the kernel log: a damaged filesystem turns read-only")
        case errno.EBUSY | errno.ETXTBSY:
            return BusyError(message, hint="end what uses it and try again")
        case errno.ENOENT if str(error.filename) == MOUNTS:
            return StorageError(message, hint="first: mount -t proc proc /proc")
        case errno.ENOENT:
            return NotFoundError(
                message, hint="'snaptx list' shows what there is, 'snaptx repair' puts it right"
            )
        case _:
            return StorageError(message, hint=cure_of(error.errno))
