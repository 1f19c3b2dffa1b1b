"""What a member means beside what it is: both dialects of "remove this".

OCI layers say it with names (see ``names``); the upper directory of an overlayfs
with a character device 0/0, and with xattrs on directories
(Documentation/filesystems/overlayfs.rst).  The result has only one form: a
WHITEOUT member whose path is what has to go, and an OPAQUE member whose path is
the directory that shows nothing of what lies below.  Neither carries metadata.
"""

from __future__ import annotations

from collections.abc import Mapping

from snaptx.errors import SourceError
from snaptx.model import Kind, Member
from snaptx.overlay import names

_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
# An enum's member costs as much to look up as the rest of a test for it.
_HARDLINK, _CHAR = Kind.HARDLINK, Kind.CHAR
_ELSEWHERE = (b"redirect", b"metacopy")


def is_special(member: Member) -> bool:
    """Return whether ``interpret`` has something to say; quick, for every member is asked."""
    if member.path.find(names.PREFIX) >= 0:
        return True
    kind = member.kind
    if kind is _HARDLINK and member.link.find(names.PREFIX) >= 0:
        return True
    if kind is _CHAR and member.device == (0, 0):
        return True
    return bool(member.xattrs) and any(key.startswith(_OVERLAY) for key in member.xattrs)


def interpret(member: Member) -> tuple[Member, ...]:
    """Return what ``member`` stands for: itself, what it hides, or nothing.

    Raises:
        HostileError: a reserved name carries data or is no plain file.
        SourceError: overlayfs keeps the member's content in another layer.
    """
    if names.is_metadata(member.path):
        return ()
    hidden = names.whiteout(member.path)
    if hidden:
        return (_from_name(member, *hidden),)
    if member.kind is Kind.CHAR and member.device == (0, 0):
        return (Member(member.path, Kind.WHITEOUT),)
    if member.kind is Kind.HARDLINK and names.whiteout(member.link):
        raise names.hostile("hard link to a whiteout", member.path)
    return _from_xattrs(member)


def _from_name(member: Member, kind: Kind, path: bytes) -> Member:
    if member.kind not in (Kind.FILE, Kind.HARDLINK) or member.size:
        raise names.hostile("whiteout that is not an empty file", member.path)
    return Member(path, kind)


def _from_xattrs(member: Member) -> tuple[Member, ...]:
    ours, kept = _split(member.xattrs)
    elsewhere = [key for key in _ELSEWHERE if key in ours]
    if elsewhere:
        raise SourceError(
            f"content of another layer ({elsewhere[0].decode()}): {names.show(member.path)}",
            hint="read the payload from the merged mount of the overlayfs, not from its upper directory",
        )
    if member.kind is Kind.FILE and not member.size and b"whiteout" in ours:
        return (Member(member.path, Kind.WHITEOUT),)
    bare = member._replace(xattrs=kept)
    if member.kind is Kind.DIRECTORY and ours.get(b"opaque") == b"y":
        return bare, Member(member.path, Kind.OPAQUE)
    return (bare,)


def _split(xattrs: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    ours: dict[bytes, bytes] = {}
    kept: dict[bytes, bytes] = {}
    for key, value in xattrs.items():
        if key.startswith(_OVERLAY):
            ours[key.split(b".", 2)[2]] = value
        else:
            kept[key] = value
    return ours, kept
