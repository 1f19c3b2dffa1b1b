"""The words of snaptx as data: frozen, annotated, without behaviour that does I/O.

Records are NamedTuples, here and wherever verbs in daily use begin: Python
takes five times as long to make the class of a dataclass, each command makes
some fifty, and ``dataclasses`` itself loads half of the tools for source code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from functools import cache
from operator import add
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, get_type_hints

GENERATION_FORMAT = 1

LATEST = 253_402_300_800
"""The end of the year 9999, in seconds since the epoch."""

EMPTY: Mapping[Any, Any] = MappingProxyType({})
"""The mapping that is the default in records, and that nobody can put anything into."""


class Part(StrEnum):
    """The subvolumes of a generation; the values are their names on disk.

    BEFORE, LATEST and VIEWED live only as long as one call: the root before a
    command ran in it or a commit carried something into it, what a commit or a
    command looks at, and what diff does.  LIVE is the root as it was when it
    went live, as long as it is.
    """

    ORIGIN = "origin"
    ROOT = "root"
    SEALED = "sealed"
    BEFORE = "before"
    LATEST = "latest"
    VIEWED = "viewed"
    LIVE = "live"


class Verdict(StrEnum):
    """What is known of a committed generation's health."""

    TRIAL = "trial"
    GOOD = "good"
    BAD = "bad"


class Phase(StrEnum):
    """How far a generation has come; derived from what exists, never stored."""

    STAGED = "staged"
    COMMITTED = "committed"


class Tree(NamedTuple):
    """One part of one generation."""

    number: int
    part: Part

    def __str__(self) -> str:
        return f"{self.number}/{self.part}"


class Payload(NamedTuple):
    """Where an update came from: a path or ``-``, its SHA-256 and size in bytes."""

    source: str
    sha256: str
    size: int


class Counts(NamedTuple):
    """How many paths a transaction touched, and the bytes it wrote."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    bytes_written: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sum, field by field."""
        return Counts(*map(add, self, other))

    @property
    def touched(self) -> int:
        """Return the number of paths that differ from the base."""
        return self.added + self.changed + self.removed


class Generation(NamedTuple):
    """The record of one generation, ``generations/N/generation.json``.

    ``created`` is in seconds since the epoch.  ``base`` is the committed
    generation it grew from; ``arrived`` is when it was first seen running, 0
    before that; ``includes`` are staged generations whose work it
    took over.  ``content`` names the generation whose sealed tree a rollback
    brought back, ``copy`` the generation of whose running root this is one, made
    before a package manager changed it.  ``subvolume`` is set only where the root is not
    ``generations/N/root`` (generation 1, adopted in place).  ``updates`` says
    how far unattended updates have come in it: source to identity.
    """

    number: int
    base: int
    created: float
    verb: str
    message: str = ""
    subvolume: str = ""
    payload: Payload | None = None
    counts: Counts = Counts()
    includes: tuple[int, ...] = ()
    content: int = 0
    verdict: Verdict = Verdict.TRIAL
    reason: str = ""
    pinned: bool = False
    nested: tuple[str, ...] = ()
    arrived: float = 0.0
    updates: Mapping[str, str] = EMPTY
    copy: int = 0


class View(NamedTuple):
    """A generation with everything that is derived about it, as ``list`` shows it."""

    generation: Generation
    phase: Phase
    booted: bool
    default: bool
    live: bool = False

    @property
    def number(self) -> int:
        """Return the generation's number."""
        return self.generation.number

    @property
    def marks(self) -> str:
        """Return N(ow) L(ive) R(eboot) T(rial) G(ood) B(ad) P(inned) as they apply."""
        letters = "N" * self.booted + "L" * self.live + "R" * self.default
        if self.phase is Phase.COMMITTED:
            letters += self.generation.verdict.value[0].upper()
        return letters + "P" * self.generation.pinned


class Kind(StrEnum):
    """What a payload member or a path in a tree is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    FIFO = "fifo"
    CHAR = "char"
    BLOCK = "block"
    SOCKET = "socket"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque"


class Readable(Protocol):
    """The data of one member: ``read(n)`` gives at most n bytes, b"" at the end."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...


NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class Member(NamedTuple):
    """One thing a payload asks for; a tuple, for making one is much of what reading a payload costs.

    ``path`` is relative, without ``.``/``..``/empty components (the reader
    refuses others); ``b""`` is the root itself.  ``link`` is a symlink's
    target as it stands, or the path of the member a hard link joins, under
    the rules of ``path``.  ``mode`` holds permission bits only.  ``data``
    yields ``size`` bytes and must be read before the next member is asked for;
    ``extents`` are the (offset, length) pairs in bytes that carry data, None
    for a file without holes: ``data`` yields the whole file, holes as zeros.
    """

    path: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = NO_XATTRS
    data: Readable | None = None
    extents: tuple[tuple[int, int], ...] | None = None


class Row(NamedTuple):
    """What a manifest knows of one path; a tuple, as a `Member` is.

    ``sha256`` is the digest of a file's content (as ``hashing`` has it), of a
    symlink's target or empty; ``xattrs`` the digest over all extended attributes,
    empty if none.  ``inode`` and ``ctime_ns`` only tell whether a path still is
    what was indexed; they never take part in a verification.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    device: int
    sha256: bytes
    xattrs: bytes
    inode: int = 0
    ctime_ns: int = 0


class Aspect(StrEnum):
    """In what way a path differs between two trees."""

    CONTENT = "content"
    TYPE = "type"
    MODE = "mode"
    OWNER = "owner"
    XATTRS = "xattrs"
    LABEL = "label"
    TIME = "time"
    FLAGS = "flags"


class Op(Enum):
    """What happened to a path between two trees; the value is its mark."""

    ADDED = "+"
    REMOVED = "-"
    CHANGED = "c"
    RENAMED = ">"


class Change(NamedTuple):
    """One difference between two trees; sizes in bytes, 0 where there is no such side."""

    op: Op
    path: bytes
    kind: Kind
    aspects: tuple[Aspect, ...] = ()
    old_size: int = 0
    new_size: int = 0
    renamed_from: bytes = b""


class BootEntry(NamedTuple):
    """One bootable generation: paths are absolute from the loader's filesystem.

    ``cmdline`` has the words for the kernel as ``shlex`` joins them, ``early``
    are images that are loaded before the initrd.
    """

    number: int
    title: str
    kernel: str
    initrd: str
    cmdline: str
    early: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Return what is loaded after the kernel, in this order."""
        return (*self.early, self.initrd) if self.initrd else self.early

    @property
    def files(self) -> tuple[str, ...]:
        """Return every file that is loaded."""
        return (self.kernel, *self.images) if self.kernel else self.images


class BootState(NamedTuple):
    """What the entry file says: the one authority for what boots next.

    ``nonce`` changes with every switch that starts a new count of ``tries``;
    ``confirmed`` is whether the default has passed its health checks;
    ``counter`` is where the boot loader counts them, "" if it can't;
    ``failed`` a generation whose tries were used up, which something else than
    snaptx has turned away from.
    """

    default: int
    fallback: int
    nonce: str
    tries: int
    confirmed: bool
    entries: tuple[BootEntry, ...] = ()
    counter: str = ""
    failed: int = 0


def jsonable(value: Any) -> Any:
    """Return ``value`` as what JSON can hold; bytes become surrogate-escaped text."""
    match value:
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case Enum():
            return value.value
        case Mapping():
            return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return jsonable(value._asdict())
        case list() | tuple() | set() | frozenset():
            return [jsonable(item) for item in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: jsonable(getattr(value, name)) for name in value.__dataclass_fields__}
        case _:
            return value


_KINDS: Mapping[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
}


def require_kinds(cls: type, values: Mapping[str, Any]) -> None:
    """Check the simple ones of ``values`` against what the fields of the record ``cls`` are.

    Raises:
        TypeError: one is of another type.
    """
    for name, kind in _simple_fields(cls).items():
        if name in values and not isinstance(values[name], _KINDS[kind]):
            raise TypeError(f"{name} is not of type {kind.__name__}")


@cache
def _simple_fields(cls: type) -> dict[str, type]:
    return {name: kind for name, kind in get_type_hints(cls).items() if kind in _KINDS}
