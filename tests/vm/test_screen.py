"""GRUB's menu is read from what GRUB and OVMF paint, and only when it is painted to its end."""

from __future__ import annotations

import pytest

from tests.vm.screen import Menu, Screen

HEADING = b"\x1b[H\x1b[J\x1b[1;1H\x1b[2;3HGNU GRUB  version 2.12-9\r\n\r\n"
SERIAL = (
    HEADING + b"\x1b[m\x1b[4;2H+------+\x1b[5;2H|\x1b[5;9H|\x1b[6;2H|\x1b[6;9H|\x1b[7;2H+------+"
    b"\x1b[7m\x1b[5;3H*One  \x1b[m\x1b[5;8H\x1b[6;3H Two  \x1b[m\x1b[6;8H"
)
OVMF = (
    HEADING + b"\x1b[0m\x1b[04;02H\xda\xc4\xc4\xc4\xc4\xc4\xc4\xbf\x1b[05;02H\xb3\x1b[05;09H\xb3"
    b"\x1b[06;02H\xb3\x1b[06;09H\xb3\x1b[07;02H\xc0\xc4\xc4\xc4\xc4\xc4\xc4\xd9\x1b[05;:0H "
    b"\x1b[05;03H*One  \x1b[06;03H Two  "
)
DOWN = b"\x1b[5;3H One  \x1b[6;3H*Two  "


def _shown(data: bytes) -> Menu | None:
    screen = Screen()
    screen.feed(data)
    return screen.menu()


@pytest.mark.parametrize("painted", [SERIAL, OVMF])
def test_menu_is_read(painted: bytes) -> None:
    assert _shown(painted) == Menu(("One", "Two"), 0)
    assert _shown(painted + DOWN) == Menu(("One", "Two"), 1)


def test_menu_in_single_bytes_is_the_same() -> None:
    screen = Screen()
    for number in range(len(OVMF)):
        screen.feed(OVMF[number : number + 1])

    assert screen.menu() == Menu(("One", "Two"), 0)


@pytest.mark.parametrize("painted", [SERIAL, OVMF])
def test_no_part_of_a_menu_is_taken_for_it(painted: bytes) -> None:
    whole = _shown(painted)
    blank_to_come = len(b"  \x1b[m\x1b[6;8H")

    seen = {_shown(painted[:length]) for length in range(len(painted) - blank_to_come)}

    assert seen <= {None, whole}


@pytest.mark.parametrize("after", [b"\x1b[2J", b"\x1b[H\x1b[J", b"\x1b[5;3H One  "])
def test_what_is_gone_is_no_menu(after: bytes) -> None:
    assert _shown(SERIAL + after) is None
