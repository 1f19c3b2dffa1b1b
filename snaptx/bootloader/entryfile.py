"""The entry file's text: a GRUB script that carries its own state.

GRUB runs the ``set`` and ``menuentry`` lines; snaptx reads the one ``# state``
line, JSON of a BootState.  The last line is the SHA-256 of everything before
it, so that a file cut short or altered is never believed.  Pure functions.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from snaptx import durable
from snaptx.bootloader.quoting import quote
from snaptx.errors import BootError, FormatError
from snaptx.model import BootEntry, BootState, jsonable, require_kinds

FORMAT = 1
NAME = "snaptx.cfg"
SUBMENU_AFTER = 5
"""So many entries stand in the first menu, the others in a submenu."""

TITLE = 70
"""So many characters of a title GRUB shows whole on a terminal of 80 columns."""

DAMAGED_HINT = "run: snaptx repair"
TRIAL = "panic=30 systemd.crash_reboot rd.shell=0 rd.emergency=reboot snaptx.trial"
"""What the kernel of a generation on trial is told: to restart where it would stand still, by itself after
so many seconds, in systemd, in dracut; and that it is counted."""

FALLBACK = "snaptx.fallback"
"""What the kernel is told of the generation that the initramfs turned to, which it counts as well."""

WHY = "snaptx.why="
"""Begins the word on the kernel's command line that says why another than the default boots."""


def entry_title(about: str, version: str) -> str:
    """Return the title of an entry: ``about``, cut where it is too long, and the kernel's version."""
    end = f" ({version})" if version else ""
    room = TITLE - len(end)
    return (about if len(about) <= room else about[: room - 2].rstrip() + "..") + end


def render(state: BootState, uuid: str) -> str:
    """Return the entry file for ``state``; ``uuid`` is the filesystem that holds the kernels."""
    uuid_of_counter, _, path_of_counter = state.counter.partition(":")
    head = [
        "# The boot entries of snaptx. Replaced as a whole: do not edit.",
        "# state " + json.dumps({"format": FORMAT, **jsonable(state)}, sort_keys=True),
        f"set snaptx_default='{entry_id(state.default)}'",
        f"set snaptx_fallback='{entry_id(state.fallback)}'",
        f"set snaptx_nonce={quote(state.nonce)}",
        f"set snaptx_tries='{state.tries}'",
        f"set snaptx_ok='{int(state.confirmed)}'",
        f"set snaptx_counter_uuid={quote(uuid_of_counter)}",
        f"set snaptx_counter={quote(path_of_counter)}",
    ]
    entries = _in_reach(state)
    numbers = [entry.number for entry in entries]
    if state.fallback != state.default and state.fallback in numbers:
        head.append(f"set fallback='{numbers.index(state.fallback)}'")
    blocks = [_menuentry(entry, uuid, state) for entry in entries]
    first, older = blocks[:SUBMENU_AFTER], blocks[SUBMENU_AFTER:]
    if older:
        first += ["submenu 'Older generations' $snaptx_access --id 'snaptx-older' {", *older, "}"]
    return _signed("\n".join([*head, *first]) + "\n")


def escape(state: BootState) -> BootState | None:
    """Return the state that turns away from a default that used up its tries, None if there is no way out.

    Where the loader can't count, the initramfs does: it puts this in the place of ``state``.
    """
    if state.confirmed or state.counter or state.fallback == state.default:
        return None
    entries = [_turned_to(entry, entry.number == state.fallback) for entry in state.entries]
    entries.sort(key=lambda entry: entry.number != state.fallback)
    return state._replace(
        default=state.fallback,
        confirmed=True,
        failed=state.default,
        entries=tuple(entries),
    )


def _turned_to(entry: BootEntry, fallback: bool) -> BootEntry:
    cmdline = entry.cmdline.removesuffix(f" {TRIAL}")
    return entry._replace(cmdline=f"{cmdline} {FALLBACK}" if fallback else cmdline)


def _in_reach(state: BootState) -> list[BootEntry]:
    """Return the entries with the fallback in the first menu: GRUB finds it there by its place only."""
    entries = list(state.entries)
    place = next((at for at, entry in enumerate(entries) if entry.number == state.fallback), 0)
    if place >= SUBMENU_AFTER:
        entries.insert(SUBMENU_AFTER - 1, entries.pop(place))
    return entries


def entry_id(number: int) -> str:
    """Return the id that GRUB knows the generation's entry by."""
    return f"snaptx-{number}"


def _menuentry(entry: BootEntry, uuid: str, state: BootState) -> str:
    words = [quote(word) for word in shlex.split(entry.cmdline)]
    known = f"$snaptx_access --id '{entry_id(entry.number)}' --class gnu-linux --class os"
    lines = [
        f"menuentry {quote(entry.title)} {known} {{",
        f"    search --no-floppy --fs-uuid --set=root {quote(uuid)}",
    ]
    load = _load(entry, words if entry.number == state.default else [*words, "$snaptx_why"])
    if entry.number == state.default:
        # What boots after this one could not be loaded is told why.
        lines += ["    snaptx_count trial", f"    set snaptx_why='{WHY}load'"]
        lines += ["    if snaptx_whole; then", *(f"    {line}" for line in load), "    fi"]
    else:
        lines += ["    snaptx_count fallback"] if entry.number == state.fallback else []
        lines += load
    return "\n".join([*lines, "}"])


def _load(entry: BootEntry, words: list[str]) -> list[str]:
    """Return the lines that load the kernel and its images, all or none."""
    commands = [f"        linux {quote(entry.kernel)} {' '.join(words)}"]
    commands += [f"        initrd {_quoted(entry.images)}"] if entry.images else []
    return [f"    if snaptx_there {_quoted(entry.files)}; then", *commands, "    fi"]


def _quoted(paths: Iterable[str]) -> str:
    return " ".join(map(quote, paths))


def _signed(body: str) -> str:
    return body + f"# sha256 {hashlib.sha256(body.encode()).hexdigest()}\n"


def text(path: Path) -> str:
    """Return the text of an entry file.

    Raises:
        BootError: it is no regular file.
        OSError: it can't be read.
    """
    try:
        return durable.read(path).decode(errors="replace")
    except ValueError as error:
        raise BootError(f"the boot entry file is damaged: {error}", hint=DAMAGED_HINT) from error


def parse(text: str) -> BootState:
    """Return the state an entry file carries; its line ends have to be as they were read from the disk.

    Raises:
        BootError: it is empty, cut short or altered.
        FormatError: a newer snaptx wrote it.
    """
    body, _, _ = text.rpartition("# sha256 ")
    if not body or _signed(body) != text:
        raise BootError("the boot entry file is damaged", hint=DAMAGED_HINT)
    for line in body.split("\n"):
        if line.startswith("# state "):
            return _state(line.removeprefix("# state "))
    raise BootError("the boot entry file carries no state", hint=DAMAGED_HINT)


def _state(text: str) -> BootState:
    try:
        return _decode(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise BootError(f"the boot entry file's state is damaged: {error}", hint=DAMAGED_HINT) from error


def _decode(data: dict[str, Any]) -> BootState:
    if data["format"] > FORMAT:
        raise FormatError("a newer snaptx wrote the boot entries", hint="use that version or newer")
    for record, values in ((BootState, data), *((BootEntry, entry) for entry in data["entries"])):
        require_kinds(record, values)
    entries = tuple(_entry(_known(BootEntry, entry)) for entry in data["entries"])
    return BootState(**{**_known(BootState, data), "entries": entries})


def _entry(values: dict[str, Any]) -> BootEntry:
    early = values.pop("early", [])
    if not isinstance(early, list) or not all(isinstance(path, str) for path in early):
        raise TypeError("early is no list of paths")
    return BootEntry(**values, early=tuple(early))


def _known(cls: type[NamedTuple], data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in cls._fields if name in data}
