"""The names a payload may use.

A payload is hostile: its paths are bytes somebody else chose.  Every path
passes ``clean`` before anything else looks at it, and from then on is relative,
without ``.``, ``..`` and empty components; ``b""`` is the root itself.  How a
clean path is opened without following links is the writer's part.

Whiteouts are those of the OCI image specification (layer.md): an empty file
``.wh.NAME`` hides NAME of the layers below, ``.wh..wh..opq`` hides all that its
directory holds there.  The prefix is reserved: any other use of it is refused,
except for the metadata aufs leaves at the top of a layer (``.wh..wh.plnk``,
``.wh..wh.aufs``, ``.wh..wh.orph``), which is passed over as containerd does.
"""

from __future__ import annotations

from snaptx.errors import HostileError
from snaptx.model import Kind

# linux/limits.h: NAME_MAX, and PATH_MAX without its final NUL
NAME_MAX = 255
PATH_MAX = 4095

PREFIX = b".wh."
_SLASH = ord("/")
_AWKWARD = b"./"
_METADATA = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_HINT = "the payload is damaged or was made to do harm: do not use it"


def show(path: bytes) -> str:
    """Return ``path`` as text that is safe on a terminal: anything unprintable is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text) or "."


def hostile(message: str, path: bytes) -> HostileError:
    """Return the error for a ``path`` that no honest payload holds."""
    return HostileError(f"{message}: {show(path[:300])}", hint=_HINT)


def clean(path: bytes) -> bytes:
    """Return ``path`` in its one normal form, ``b""`` for the root itself.

    Raises:
        HostileError: it is absolute, holds ``..`` or NUL, or is longer than Linux allows.
    """
    # Every member comes by here: a path that needs nothing done is told by a few cheap tests.
    if path[:2] == b"./":
        path = path[2:]
    elif path[:1] == b"/":
        raise hostile("absolute path", path)
    # ("in" takes twice as long as "find": it asks first whether it was given a number.)
    find = path.find
    if find(b"\0") >= 0:
        raise hostile("path with a NUL byte", path)
    if not path or path[0] in _AWKWARD or find(b"/.") >= 0 or find(b"//") >= 0 or len(path) > NAME_MAX:
        return _join(path)
    return path if path[-1] != _SLASH else path[:-1]


def _join(path: bytes) -> bytes:
    parts = [part for part in path.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise hostile("path with ..", path)
    if any(len(part) > NAME_MAX for part in parts):
        raise hostile(f"name longer than {NAME_MAX} bytes", path)
    joined = b"/".join(parts)
    if len(joined) > PATH_MAX:
        raise hostile(f"path longer than {PATH_MAX} bytes", path)
    return joined


def whiteout(path: bytes) -> tuple[Kind, bytes] | None:
    """Return what a clean ``path`` hides, or None if it is an ordinary name.

    (WHITEOUT, path) hides that path, (OPAQUE, directory) all that the lower
    layers hold in it.

    Raises:
        HostileError: the reserved prefix is used in a way the specification does not know.
    """
    if path.find(PREFIX) < 0:
        return None
    parent, _, name = path.rpartition(b"/")
    if parent.startswith(PREFIX) or b"/" + PREFIX in parent:
        raise hostile("path below a whiteout", path)
    if not name.startswith(PREFIX):
        return None
    if name == _OPAQUE:
        return Kind.OPAQUE, parent
    target = name[len(PREFIX) :]
    if target in (b"", b".", b"..") or target.startswith(PREFIX):
        raise hostile("whiteout of an impossible name", path)
    return Kind.WHITEOUT, parent + b"/" + target if parent else target


def is_metadata(path: bytes) -> bool:
    """Return whether a clean ``path`` is metadata of aufs and not part of the layer."""
    return path.startswith(_METADATA) and path != _OPAQUE
