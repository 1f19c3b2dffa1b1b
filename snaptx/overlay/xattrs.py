"""Extended attributes: the canonical form, its digest, reading and writing.

Two sets of attributes are equal when their digests are.  The serialisation
under the digest is fixed here and nowhere else: for each attribute, in the
byte order of the names, the length of the name (32 bits, little endian), the
name, the length of the value, the value; SHA-256 over all of it, empty when
there is no attribute.

Two kinds of attributes belong to where a file lies and not to what it is, so
they take no part: ``btrfs.*`` (properties a directory hands down) and
``security.selinux`` (a label the kernel gives to each new file, by a policy
that may be another one in the payload, the base and the running root).  So a
new label alone is not verified, not carried over and no conflict.  It is shown
by ``diff``, and a command that only labels makes a generation.  A label that a
payload carries is written, and a file that is carried over takes its label along.

ACLs are attributes in the kernel's binary form (linux/posix_acl_xattr.h):
version 2, then entries of tag, permissions and id.  The kernel turns an access
ACL with nothing but owner, group and others into the mode; `canonical` does
the same beforehand, so that what is read back equals what was asked for, and
the same for capabilities of revision 3 that name no user namespace but the first.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from hashlib import sha256

from snaptx.errors import LimitError, SourceError
from snaptx.overlay.failure import RefusedError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
LABEL = b"security.selinux"
CAPABILITY = b"security.capability"

_NONE: Mapping[bytes, bytes] = {}
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_UNDEFINED = 0xFFFFFFFF
# What the kernel says of a value, or of an attribute on a kind of file, that it does not know (xattr(7)).
_UNFIT = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)
# linux/capability.h: revision 3 is revision 2 with the root of a user namespace behind it.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_CAPABILITY_3 = struct.Struct("<6I")
# A Btrfs attribute has to fit into one metadata node (16 KiB by default); a larger one gives ENOSPC.
_NODE_LIMIT = 15 << 10


def counts(name: bytes) -> bool:
    """Return whether the attribute ``name`` is part of what a file is."""
    return name != LABEL and not name.startswith(b"btrfs.")


def digest(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return the SHA-256 over ``xattrs`` in canonical form, empty if none counts."""
    names = sorted(filter(counts, xattrs))
    if not names:
        return b""
    state = sha256()
    for name in names:
        for part in (name, xattrs[name]):
            state.update(struct.pack("<I", len(part)))
            state.update(part)
    return state.digest()


def read(target: int | bytes) -> dict[bytes, bytes]:
    """Return the attributes of a descriptor, or of a path whose last link is not followed."""
    follow = isinstance(target, int)
    names = _names(target)
    return {os.fsencode(name): os.getxattr(target, name, follow_symlinks=follow) for name in names}


def _names(target: int | bytes) -> list[str]:
    try:
        return os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError as err:
        if err.errno == errno.ENOTSUP:
            return []
        raise


def any_on(fd: int) -> bool:
    """Return whether the open file ``fd`` has an attribute that counts."""
    return any(counts(os.fsencode(name)) for name in _names(fd))


def has_default_acl(fd: int) -> bool:
    """Return whether new entries of the directory ``fd`` inherit an ACL from it."""
    return DEFAULT.decode() in _names(fd)


def by_name(dirfd: int, name: bytes) -> bytes:
    """Return a path for what can't be opened for attributes: symlinks, FIFOs, devices.

    Linux has no ``setxattrat`` before 6.13; the magic link leads to the directory, ``name`` is not followed.
    """
    return b"/proc/self/fd/%d/%b" % (dirfd, name)


def change(target: int | bytes, wanted: Mapping[bytes, bytes], present: Mapping[bytes, bytes]) -> bool:
    """Make ``target`` have exactly ``wanted``, given what it has; return whether anything changed."""
    follow = isinstance(target, int)
    changed = False
    for name in present:
        if name not in wanted and counts(name):
            os.removexattr(target, name, follow_symlinks=follow)
            changed = True
    for name, value in wanted.items():
        if present.get(name) != value:
            _set(target, name, value, follow)
            changed = True
    return changed


def _set(target: int | bytes, name: bytes, value: bytes, follow: bool) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=follow)
    except OSError as err:
        too_large = err.errno in (errno.E2BIG, errno.ERANGE)
        if too_large or (err.errno == errno.ENOSPC and len(name) + len(value) > _NODE_LIMIT):
            message = f"the attribute {os.fsdecode(name)!r} of {len(value)} bytes is too large"
            raise LimitError(message, hint="remove the attribute from the payload") from err
        if err.errno == errno.EINVAL and name.startswith(b"btrfs."):
            return  # a property of where a file lies, and not every place takes it
        if err.errno in _UNFIT or (err.errno == errno.EPERM and not follow):
            raise RefusedError(err.errno, os.strerror(err.errno), os.fsdecode(name)) from err
        raise


def canonical(mode: int, xattrs: Mapping[bytes, bytes]) -> tuple[int, Mapping[bytes, bytes]]:
    """Return mode and attributes as the kernel will show them once they are written.

    Raises SourceError for an ACL that is none.
    """
    if not xattrs:
        return mode, _NONE
    result = dict(xattrs)
    if CAPABILITY in result:
        result[CAPABILITY] = _capability(result[CAPABILITY])
    access = _entries(result.pop(ACCESS, b""))
    default = _entries(result.pop(DEFAULT, b""))
    if access:
        mode = mode & ~0o777 | _mode_of(access)
    if len(access) > 3:
        result[ACCESS] = _packed(access)
    if default:
        result[DEFAULT] = _packed(default)
    return mode, result


def _capability(value: bytes) -> bytes:
    """Return capabilities without the root of a user namespace where that is the first one's."""
    if len(value) != _CAPABILITY_3.size:
        return value
    magic, *words, root = _CAPABILITY_3.unpack(value)
    if magic & _REVISION != _REVISION_3 or root:
        return value
    return struct.pack("<5I", magic & ~_REVISION | _REVISION_2, *words)


def _entries(blob: bytes) -> list[tuple[int, int, int]]:
    if not blob:
        return []
    if len(blob) % 8 != 4 or struct.unpack_from("<I", blob)[0] != 2:
        raise SourceError("the payload holds an ACL that can't be read", hint="pack the payload again")
    named = (_USER, _GROUP)
    found = struct.iter_unpack("<HHI", blob[4:])
    entries = [(tag, perm, who if tag in named else _UNDEFINED) for tag, perm, who in found]
    return sorted(entries, key=lambda entry: (entry[0], entry[2]))


def _packed(entries: list[tuple[int, int, int]]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _mode_of(entries: list[tuple[int, int, int]]) -> int:
    perms = {tag: perm & 7 for tag, perm, _ in entries}
    try:
        group = perms.get(_MASK, perms[_GROUP_OBJ])
        return perms[_USER_OBJ] << 6 | group << 3 | perms[_OTHER]
    except KeyError as err:
        raise SourceError("the payload holds an incomplete ACL", hint="pack the payload again") from err
