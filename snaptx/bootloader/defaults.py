"""/etc/default/grub: what the administrator says of GRUB's menu, its terminal and the kernel's command line.

grub-mkconfig has a shell read the file, then Debian's and Ubuntu's fragments
in ``grub.d``.  Here nothing of a generation is run.  Assignments at the
beginning of a line are read, bash's ``+=`` too, with quotes, continued lines
and references to what was set before (``"$GRUB_CMDLINE_LINUX quiet"``).  A
variable for which a shell would have to do more, such as run a command, counts
as not set: better nothing than half of what was meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from snaptx import system

FILE = "etc/default/grub"
FRAGMENTS = "etc/default/grub.d"

_ASSIGNMENT = re.compile(r"(?m)^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)(\+?)=((?:.*\\\n)*.*)$", re.ASCII)
_PIECE = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|((?:[^\s'"\\;&|<>()]|\\.)+)""")
"""Part of a word: in single quotes, in double quotes, bare."""
_TOKEN = re.compile(r"\\(.)|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})|([^\\$`])", re.ASCII)
"""A backslash and what it keeps as it is, a reference, or a character that means itself."""

Known = Mapping[str, str | None]


def read(root: Path) -> dict[str, str]:
    """Return the variables that the files of a root set; links are resolved as if ``root`` were /."""
    return _set(known(root))


def known(root: Path) -> Known:
    """Do as `read`, with None for a variable for which a shell would have to do more than is done here."""
    fragments = sorted(name for name in system.names_in_root(root, FRAGMENTS) if name.endswith(".cfg"))
    files = [FILE, *(os.path.join(FRAGMENTS, name) for name in fragments)]
    texts = (system.read_in_root(root, name).decode(errors="replace") for name in files)
    return _known("\n".join(texts))


def parse(text: str) -> dict[str, str]:
    """Return the variables that ``text`` sets; a later assignment counts."""
    return _set(_known(text))


def _set(variables: Known) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value is not None}


def _known(text: str) -> Known:
    known: dict[str, str | None] = {}
    for name, more, written in _ASSIGNMENT.findall(text):
        value = _value(written.replace("\\\n", ""), known)
        before = known.get(name, "") if more else ""
        known[name] = None if value is None or before is None else before + value
    return known


def words(text: str) -> list[str]:
    """Return the words of kernel arguments as GRUB's shell reads them, where no variable is set.

    What would be more than words to it is split at its blanks.
    """
    found, rest = [], text.strip()
    while rest:
        read = _word(rest, {})
        if read is None:
            return text.split()
        word, at = read
        found.append(word)
        rest = rest[at:].lstrip()
    return [word for word in found if word]


def _value(text: str, known: Known) -> str | None:
    """Return the word that ``text`` is, but for a comment, None if it is another thing for a shell."""
    read = _word(text, known)
    if read is None:
        return None
    value, at = read
    rest = text[at:].strip()
    return value if not rest or rest.startswith("#") else None


def _word(text: str, known: Known) -> tuple[str, int] | None:
    """Return the word that ``text`` begins with and where it ends, None if a shell has more to do."""
    value, at = "", 0
    while at < len(text) and not text[at].isspace():
        piece = _PIECE.match(text, at)
        part = _meaning(*piece.groups(), known=known) if piece else None
        if piece is None or part is None:
            return None
        value, at = value + part, piece.end()
    return value, at


def _meaning(single: str | None, double: str | None, bare: str | None, *, known: Known) -> str | None:
    if single is not None:
        return single
    if double is not None:
        return _expanded(double, known, r'\$`"')
    return _expanded(bare or "", known, "")


def _expanded(text: str, known: Known, special: str) -> str | None:
    """Return ``text`` with references replaced; a backslash counts before ``special``, "" for any.

    None if there is more for a shell to do.
    """
    found, at = "", 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        escaped, name, braced, plain = token.groups()
        part: str | None = plain
        if escaped is not None:
            part = escaped if not special or escaped in special else f"\\{escaped}"
        elif name or braced:
            part = known.get(name or braced, "")
        if part is None:
            return None
        found, at = found + part, token.end()
    return found
