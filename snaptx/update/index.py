"""The index of a directory of overlays: what there is, in which order, and until when that is true.

``index.json``, with its detached signature ``index.json.sig``::

    {
     "format": 1,
     "name": "web",
     "version": 7,
     "expires": "2026-12-23T00:00:00+00:00",
     "entries": [
      {"number": 1, "file": "tls.tar.zst", "size": 81920, "sha256": "…", "message": "newer TLS"}
     ]
    }

Entries are laid one over the other in the order of their numbers, which only
grow, and so does ``version`` with every index.  All here is pure: bytes in,
decision out, and nothing is believed that was not signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from snaptx.errors import FormatError, LimitError, SourceError, TrustError
from snaptx.update.state import Seen, moment

FORMAT = 1
NAME = "index.json"
SIGNATURE = NAME + ".sig"

MAX_BYTES = 1 << 20
"""The largest index that is read."""

MOST = 1 << 53
"""Beyond this, JSON's numbers are not exact everywhere."""

RESERVED = "packages"
"""What the package manager is called in the records of generations."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One overlay: its place in the order, its file, size in bytes, SHA-256, and what it is for."""

    number: int
    file: str
    size: int
    sha256: str
    message: str = ""

    @property
    def identity(self) -> str:
        """Return what a generation is at once it has this entry and those before it."""
        return f"{self.number}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Index:
    """An index; ``expires`` is in seconds since the epoch, ``digest`` the SHA-256 of its bytes."""

    name: str
    version: int
    expires: float
    entries: tuple[Entry, ...]
    digest: str = ""


def parse(data: bytes) -> Index:
    """Return the index that ``data`` holds.

    Raises:
        LimitError: it is too large.
        FormatError: it was made for a newer snaptx.
        SourceError: it is no index.
    """
    if len(data) > MAX_BYTES:
        raise LimitError(f"the index has more than {MAX_BYTES} bytes", hint="its maker has to shorten it")
    try:
        return _index(json.loads(data), sha256(data).hexdigest())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SourceError(f"the index is malformed: {reason}", hint="its maker has to mend it") from error


def _index(data: Any, digest: str) -> Index:
    if _number(data["format"], "format") > FORMAT:
        raise FormatError("the index was made for a newer snaptx", hint="use that version or newer")
    entries = tuple(_entry(item) for item in data["entries"])
    numbers = [entry.number for entry in entries]
    if numbers != sorted(set(numbers)):
        raise ValueError("the entries are not in the order of their numbers")
    name, expires = _text(data["name"], _NAME, "name"), datetime.fromisoformat(data["expires"])
    if name == RESERVED:
        raise ValueError(f"'{name}' is the name of the package manager")
    if expires.tzinfo is None:
        raise ValueError("expires has no time zone")
    return Index(name, _number(data["version"], "version"), moment(expires.timestamp()), entries, digest)


def _entry(data: Any) -> Entry:
    message = data.get("message", "")
    if not isinstance(message, str) or len(message) > _MESSAGE or not message.isprintable():
        raise ValueError("a message is no short line of text")
    return Entry(
        _number(data["number"], "number"),
        _text(data["file"], _FILE, "file"),
        _number(data["size"], "size"),
        _text(data["sha256"], _SHA256, "sha256"),
        message,
    )


def _number(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MOST:
        raise ValueError(f"{what} is no number from 1 on")
    return value


def _text(value: Any, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"{what} is not of the form {form.pattern}")
    return value


def dump(index: Index) -> bytes:
    """Return the bytes of an index."""
    expires = datetime.fromtimestamp(index.expires, UTC).isoformat(timespec="seconds")
    data: Mapping[str, Any] = {
        "format": FORMAT,
        "name": index.name,
        "version": index.version,
        "expires": expires,
        "entries": [asdict(entry) for entry in index.entries],
    }
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def accept(index: Index, seen: Seen | None, now: float) -> Seen:
    """Return what is to be remembered of a signed index.

    ``seen`` is what was remembered of its source before, ``now`` in seconds since the epoch.

    Raises:
        TrustError: it is out of date, another source's, or older than one seen before.
    """
    if index.expires <= now:
        until = datetime.fromtimestamp(index.expires, UTC).isoformat(timespec="minutes")
        hint = "its maker has to publish it anew; is the clock of this machine right?"
        raise TrustError(f"the index '{index.name}' has expired ({until})", hint=hint)
    fresh = Seen(index.name, index.version, index.digest)
    if seen is None:
        return fresh
    if seen.name != index.name:
        hint = "if that is meant, name the source by another path or URL"
        raise TrustError(f"the source has become '{index.name}', it was '{seen.name}'", hint=hint)
    if index.version < seen.version or (index.version == seen.version and index.digest != seen.digest):
        raise TrustError(
            f"the index '{index.name}' is replayed: it has version {index.version}, {seen.version} was seen",
            hint="somebody offers an old state, or its maker has lost track: publish with a higher version",
        )
    return fresh


def level(identity: str) -> int:
    """Return the number of the last entry that a generation has; 0 for none."""
    number = identity.partition(":")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


def pending(index: Index, installed: str) -> tuple[Entry, ...]:
    """Return the entries that a generation lacks, in their order."""
    return tuple(entry for entry in index.entries if entry.number > level(installed))
