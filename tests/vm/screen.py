"""What GRUB's menu looks like on a serial terminal, and what of it is selected.

GRUB places the cursor and repaints single rows, so the bytes of the line make
sense on a screen only.  This one knows what GRUB and OVMF send: cursor
positions, erasing, and text; colours are passed over.  GRUB speaks ASCII, and
OVMF draws its frames in code page 437.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROWS, COLUMNS = 50, 132

_SEQUENCE = re.compile(r"\x1b(?:\[([0-9:;?=]*)[ -/]*([@-~])|[()][A-Z0-9]|[=>78cDM])")
_INCOMPLETE = re.compile(r"\x1b(?:\[[0-9:;?=]*|[()])?$")
_ENTRY = re.compile(r"^[ \0][|│](?P<mark>[ *])(?P<title>[^\0]*?) *[|│]")
_FRAME = re.compile(r"^[ \0][+┌└][-─]+[+┐┘]")
_UNPAINTED = "\0"
_HEADING = re.compile(r"GNU GRUB\s+version")


@dataclass(frozen=True)
class Menu:
    """The entries in view, and which of them is selected (an index)."""

    entries: tuple[str, ...]
    selected: int

    @property
    def title(self) -> str:
        """The selected entry's title."""
        return self.entries[self.selected]


class Screen:
    """A terminal of fixed size that bytes are written to."""

    def __init__(self) -> None:
        self._rest = ""
        self._clear()

    def _clear(self) -> None:
        self._cells = [[_UNPAINTED] * COLUMNS for _ in range(ROWS)]
        self._row = self._column = 0

    @property
    def text(self) -> list[str]:
        """The rows, without trailing blanks."""
        return ["".join(row).replace(_UNPAINTED, " ").rstrip() for row in self._cells]

    def feed(self, data: bytes) -> None:
        """Write ``data``; a sequence may be continued by the next call."""
        text = self._rest + data.decode("cp437")
        cut = _INCOMPLETE.search(text)
        self._rest = text[cut.start() :] if cut else ""
        text = text[: cut.start()] if cut else text
        position = 0
        while position < len(text):
            if found := _SEQUENCE.match(text, position):
                self._control(found[1] or "", found[2] or "")
                position = found.end()
            else:
                self._put(text[position])
                position += 1

    def _control(self, arguments: str, final: str) -> None:
        numbers = [_number(part) for part in arguments.split(";")]
        match final:
            case "H" | "f":
                row, column = (*numbers, 0, 0)[:2]
                self._row, self._column = min(max(row, 1), ROWS) - 1, min(max(column, 1), COLUMNS) - 1
            case "J":
                self._erase_screen(numbers[0])
            case "K":
                self._cells[self._row][self._column :] = [_UNPAINTED] * (COLUMNS - self._column)
            case "A":
                self._row = max(0, self._row - max(numbers[0], 1))
            case "B":
                self._row = min(ROWS - 1, self._row + max(numbers[0], 1))
            case "C":
                self._column = min(COLUMNS - 1, self._column + max(numbers[0], 1))
            case "D":
                self._column = max(0, self._column - max(numbers[0], 1))

    def _erase_screen(self, how: int) -> None:
        if how == 2:
            self._clear()
            return
        self._cells[self._row][self._column :] = [_UNPAINTED] * (COLUMNS - self._column)
        for row in range(self._row + 1, ROWS):
            self._cells[row] = [_UNPAINTED] * COLUMNS

    def _put(self, character: str) -> None:
        match character:
            case "\r":
                self._column = 0
            case "\n":
                self._row = min(self._row + 1, ROWS - 1)
            case "\b":
                self._column = max(0, self._column - 1)
            case _ if character.isprintable():
                self._cells[self._row][self._column] = character
                self._column = min(self._column + 1, COLUMNS - 1)

    def menu(self) -> Menu | None:
        """Return the menu on the screen; None while there is none, or a part of it is yet to be painted."""
        rows = ["".join(row) for row in self._cells]
        frame = [number for number, row in enumerate(rows) if _FRAME.match(row)]
        if len(frame) != 2 or not any(map(_HEADING.search, rows[: frame[0]])):
            return None
        inside = [_ENTRY.match(row) for row in rows[frame[0] + 1 : frame[1]]]
        entries = [found for found in inside if found and found["title"]]
        marked = [number for number, found in enumerate(entries) if found["mark"] == "*"]
        if None in inside or len(marked) != 1:
            return None
        return Menu(tuple(found["title"] for found in entries), marked[0])


def _number(digits: str) -> int:
    """Return the number; OVMF writes 100 as ":0", the tens in one character."""
    value = 0
    for digit in digits if digits.strip("0123456789:") == "" else "":
        value = value * 10 + ord(digit) - ord("0")
    return value
