"""Which of two versions is newer, by the rules of Debian, RPM and pacman.

Debian Policy 5.6.12 and rpmvercmp (rpm's ``rpmio/rpmvercmp.c``), with what
pacman made of it (``lib/libalpm/version.c``).  Only the order is of
interest: whether something was upgraded or downgraded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest

Part = Callable[[str, str], int]


def debian_is_newer(one: str, other: str) -> bool:
    """Return whether ``one`` is newer, as dpkg compares."""
    return _compare(one, other, _debian_part) > 0


def rpm_is_newer(one: str, other: str) -> bool:
    """Return whether ``one`` is newer, as rpm compares [epoch:]version[-release]."""
    return _compare(one, other, _rpm_part) > 0


def pacman_is_newer(one: str, other: str) -> bool:
    """Return whether ``one`` is newer, as alpm compares: as rpm, but 1.0rc1 comes before 1.0."""
    return rpm_is_newer(*(re.sub(r"(?<=[0-9])(?=[a-zA-Z])", "~", text) for text in (one, other)))


def _compare(one: str, other: str, part: Part) -> int:
    (epoch, version, revision), (other_epoch, other_version, other_revision) = _split(one), _split(other)
    return (
        (epoch > other_epoch) - (epoch < other_epoch)
        or part(version, other_version)
        or part(revision, other_revision)
    )


def _split(text: str) -> tuple[int, str, str]:
    epoch, colon, rest = text.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", text
    version, dash, revision = rest.rpartition("-")
    return (int(epoch), version, revision) if dash else (int(epoch), rest, "")


def _debian_part(one: str, other: str) -> int:
    pairs = zip_longest(*(re.findall(r"(\D*)(\d*)", text) for text in (one, other)), fillvalue=("", ""))
    for (text, digits), (other_text, other_digits) in pairs:
        weights = _debian_weights(text), _debian_weights(other_text)
        if weights[0] != weights[1]:
            return 1 if weights[0] > weights[1] else -1
        numbers = int(digits or 0), int(other_digits or 0)
        if numbers[0] != numbers[1]:
            return 1 if numbers[0] > numbers[1] else -1
    return 0


def _debian_weights(text: str) -> list[int]:
    """Return how characters sort: ~ before the end, the end before letters, letters before the rest."""
    return [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text] + [0]


def _rpm_part(one: str, other: str) -> int:
    pieces, others = (re.findall(r"[0-9]+|[a-zA-Z]+|~|\^", text) for text in (one, other))
    for piece, second in zip_longest(pieces, others, fillvalue=""):
        if piece != second and (result := _rpm_piece(piece, second)):
            return result
    return 0


def _rpm_piece(one: str, other: str) -> int:
    """Compare two pieces: ~ before the end, the end before ^, that before all else; numbers last."""
    ranks = _rpm_rank(one), _rpm_rank(other)
    if ranks[0] != ranks[1]:
        return 1 if ranks[0] > ranks[1] else -1
    if one.isdigit():
        return (int(one) > int(other)) - (int(one) < int(other))
    return (one > other) - (one < other)


def _rpm_rank(piece: str) -> int:
    if piece in ("~", "", "^"):
        return ("~", "", "^").index(piece)
    return 4 if piece.isdigit() else 3
