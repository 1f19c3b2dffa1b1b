"""Text as one word of a GRUB script."""

from __future__ import annotations


def quote(text: str) -> str:
    """Return ``text`` as one word of a GRUB script (GRUB manual, section Quoting)."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return "'" + printable.replace("'", "'\\''") + "'"
