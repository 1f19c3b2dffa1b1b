"""GRUB's menu and terminal as /etc/default/grub has them, for a menu that grub-mkconfig does not make.

Pure: variables in, text out.  The names are those of grub-mkconfig (GRUB manual,
"Simple configuration").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from snaptx.bootloader.quoting import quote

NAME = "settings.cfg"
_WORDS = re.compile(r"[\w.:,=-]+")


def render(values: Mapping[str, str], *, original: str = "", rescue: str = "") -> str:
    """Return the settings file for the variables of an /etc/default/grub.

    ``original`` is the distribution's grub.cfg as GRUB finds it, ``rescue``
    what the kernel is told to find the root where GRUB can't see it.
    """
    lines = ["# From /etc/default/grub, by snaptx init.", *_lines(values, original, rescue)]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, str], original: str, rescue: str) -> Iterator[str]:
    timeout = values.get("GRUB_TIMEOUT", "")
    if re.fullmatch(r"-?\d+", timeout):
        yield f"set timeout={timeout}"
    if values.get("GRUB_TIMEOUT_STYLE") in ("menu", "hidden", "countdown"):
        yield f"set timeout_style={values['GRUB_TIMEOUT_STYLE']}"
    if serial := _safe(values.get("GRUB_SERIAL_COMMAND", "")):
        yield serial
    terminal = values.get("GRUB_TERMINAL", "")
    for kind in ("input", "output"):
        if names := _safe(values.get(f"GRUB_TERMINAL_{kind.upper()}", terminal)):
            yield f"terminal_{kind} {names}"
    if original:
        yield f"set snaptx_original={quote(original)}"
    if rescue:
        yield f"set snaptx_rescue={quote(rescue)}"
        yield "export snaptx_rescue"


def _safe(text: str) -> str:
    """Return the words of a command if none of them means anything to GRUB's shell, else ""."""
    words = text.split()
    return " ".join(words) if all(map(_WORDS.fullmatch, words)) else ""
