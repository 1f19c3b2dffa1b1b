"""Paths as people read them: from / on, and not more of them than anybody reads."""

from __future__ import annotations

from pathlib import Path

from snaptx.cli import live
from snaptx.live import Switched

MANY = tuple(b"etc/%d" % number for number in range(25))


def told(carried: tuple[bytes, ...]) -> str:
    """Return what is said of paths that a live switch brought along."""
    return "\n".join(live.describe(Switched(2, 1, ("/usr",), 0.0, 0.0, (), carried), Path("/")))


def test_what_is_left_out_of_a_list_is_counted() -> None:
    said = told(MANY)

    assert "/etc/19 and 5 more" in said
    assert "/etc/20" not in said


def test_the_root_itself_is_called_as_it_is_typed() -> None:
    assert "brought along in /etc: /\n" in told((b"",))
