"""What a machine starts by: the firmware's boot order, or the first sectors of its disks.

A package of GRUB installs itself where the one before it was, and so takes the
place of snaptx's: the machine goes on starting, but from then on by the menu of
the generation that ran, whatever is committed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from snaptx import system

GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Of the firmware's own variables (EFI_GLOBAL_VARIABLE, UEFI specification, "Globally Defined Variables")."""

_ATTRIBUTES = 4
"""Bytes that efivarfs puts before each value."""

_OPTION = Struct("<IH")
"""EFI_LOAD_OPTION begins with its attributes and the length of its path; the description follows."""

_NODE = Struct("<BBH")
"""EFI_DEVICE_PATH_PROTOCOL: type, subtype, length with this head."""

_ACTIVE = 1
_FILE_PATH = (4, 4)  # MEDIA_DEVICE_PATH, MEDIA_FILEPATH_DP
_GRUB = re.compile(r"(?i)(?:shim|grub)\w*\.efi$")
"""What distributions call the file that their own entry starts."""

_CODE = 440
"""Bytes of code in the first sector; the partition table follows."""

_KERNEL_AT = 0x5C
"""Where GRUB's boot.img has the first sector of the core image, 8 bytes (GRUB_BOOT_MACHINE_KERNEL_SECTOR)."""

_SECTOR = 512


class Option(NamedTuple):
    """One entry of the firmware's boot order: what it is called, and the file it starts, "" for none."""

    label: str
    file: str


def order(variables: Path) -> list[Option]:
    """Return the active entries of the boot order; none where the firmware's variables can't be read."""
    found = _value(variables / f"BootOrder-{GUID}")
    numbers = [int.from_bytes(found[at : at + 2], "little") for at in range(0, len(found) - 1, 2)]
    values = (_value(variables / f"Boot{number:04X}-{GUID}") for number in numbers)
    return [option for value in values if (option := _option(value))]


def _value(path: Path) -> bytes:
    try:
        return path.read_bytes()[_ATTRIBUTES:]
    except OSError:
        return b""


def _option(value: bytes) -> Option | None:
    if len(value) < _OPTION.size:
        return None
    attributes, length = _OPTION.unpack_from(value)
    text = value[_OPTION.size :].decode("utf-16-le", errors="replace")
    label = text.partition("\0")[0]
    start = _OPTION.size + 2 * (len(label) + 1)
    return Option(label, _file(value[start : start + length])) if attributes & _ACTIVE else None


def _file(path: bytes) -> str:
    at = 0
    while at + _NODE.size <= len(path):
        kind, subtype, length = _NODE.unpack_from(path, at)
        if (kind, subtype) == _FILE_PATH:
            return path[at + _NODE.size : at + length].decode("utf-16-le", errors="replace").rstrip("\0")
        at += max(length, _NODE.size)
    return ""


def is_first(options: Sequence[Option], label: str) -> bool:
    """Return whether ``label`` is started, and no distribution's GRUB before it; another system may be."""
    for option in options:
        if option.label == label:
            return True
        if _GRUB.search(option.file):
            return False
    return False


def sectors(disks: Sequence[str], core: int) -> str:
    """Return the digests of the code that each disk starts, a core image of ``core`` bytes, a line each.

    Raises:
        OSError: a disk can't be read.
    """
    return "".join(f"{digest}\n" for digest in sorted(_digests(disks, core)))


def _digests(disks: Sequence[str], core: int) -> Iterator[str]:
    for disk in disks:
        with system.descriptor(Path(disk), os.O_RDONLY) as fd:
            first = os.pread(fd, _SECTOR, 0)
            kernel = int.from_bytes(first[_KERNEL_AT : _KERNEL_AT + 8], "little")
            state = hashlib.sha256(first[:_CODE])
            if kernel < 1 << 48:  # or GRUB has not written it
                state.update(os.pread(fd, core, kernel * _SECTOR))
            yield state.hexdigest()
