"""``diff``, ``log``, ``list`` and ``status``: what is told is true, and nothing changes by telling."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptx.errors import OutputError
from tests.boxes import Box, changes, made
from tests.fs.conftest import command


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Box]:
    """Give a sandbox whose generation 2 was committed by a payload and 3 is staged by a command."""
    overlay = tmp_path_factory.mktemp("payload")
    (overlay / "etc").mkdir()
    (overlay / "etc/hostname").write_text("longer than before\n")
    (overlay / "etc/new").write_text("new\n")
    (overlay / "etc/.wh.group").touch()
    with open(os.fsencode(overlay) + b"/etc/odd-\xff\n\x1b[31m", "wb"):
        pass
    with made(source=programs) as one:
        (one.root / "etc/group").write_text("x")
        (one.root / "etc/moves").write_text("moves")
        (one.root / "opt").mkdir()
        one.ok("apply", str(overlay), "--commit", "-m", "first")
        script = "mv /etc/moves /etc/moved; chmod 600 /etc/hostname; ln /etc/new /etc/link; rm -r /opt"
        one.ok("run", "-m", "second", "--", "sh", "-c", script)
        yield one


def test_every_change_with_its_aspects_and_sizes(changed: Box) -> None:
    found = {change["path"]: change for change in changed.json("diff", "1", "2")["changes"]}

    assert {path for path in found if "odd" not in path} == {"etc/hostname", "etc/new", "etc/moves", "opt"}
    assert found["etc/hostname"]["op"] == "c"
    assert "content" in found["etc/hostname"]["aspects"]
    assert (found["etc/hostname"]["old_size"], found["etc/hostname"]["new_size"]) == (4, 19)
    assert (found["etc/new"]["op"], found["etc/new"]["kind"], found["etc/new"]["new_size"]) == (
        "+",
        "file",
        4,
    )


def test_renames_links_modes_and_removals(changed: Box) -> None:
    found = {change["path"]: change for change in changed.json("diff", "2", "3")["changes"]}

    assert (found["etc/moved"]["op"], found["etc/moved"]["renamed_from"]) == (">", "etc/moves")
    assert found["etc/hostname"]["aspects"] == ["mode"]
    assert found["etc/link"]["op"] == "+"
    assert found["opt"]["op"] == "-"


SHUFFLE = """
cd /etc; mkdir -p a/b a/c; echo x >a/b/x; echo y >a/c/y; ln a/b/x a/link; ln -s x a/b/s; mkfifo a/p
"""
RESHUFFLE = """
cd /etc; mv a/b moved; echo more >>moved/x; mv a/c/y a/y; rm a/link; ln -sf y moved/s; rm a/p; mkdir a/p
touch -d @5 hostname; chmod 700 a; rm -r a/c; ln a/y a/z
"""


def test_indexes_tell_what_the_trees_do(programs: Path) -> None:
    with made(source=programs) as one:
        for script in (SHUFFLE, RESHUFFLE):
            one.ok("run", "--commit", "--", "sh", "-c", script)
        asked = [("diff", old, new) for old in "123" for new in "123"]
        told = [one.ok(*words) for words in asked]
        for index in (one.state / "manifests").iterdir():
            index.rename(index.with_suffix(".away"))
        seen = [one.run(*words) for words in asked]

        assert told == [done.out for done in seen]
        assert all("index can't be read" in done.err for done in seen)
        assert "> /etc/a/b -> /etc/moved" in told[5].splitlines()


@pytest.mark.parametrize(
    ("damage", "warned"), [("DROP TABLE touched", True), ("DELETE FROM meta WHERE name = 'parent'", False)]
)
def test_indexes_that_do_not_know_what_was_touched_are_compared_whole(
    programs: Path, damage: str, warned: bool
) -> None:
    with made(source=programs) as one:
        for script in (SHUFFLE, RESHUFFLE):
            one.ok("run", "--commit", "--", "sh", "-c", script)
        told = [one.ok("diff", old, "3") for old in "12"]
        with sqlite3.connect(one.state / "manifests/3.sqlite") as db:
            db.execute(damage)
        db.close()
        seen = [one.run("diff", old, "3") for old in "12"]

        assert told == [done.out for done in seen]
        assert all(("whole indexes are compared" in done.err) == warned for done in seen)


def test_lines_names_and_counts(changed: Box) -> None:
    lines = changed.ok("diff", "2", "3").splitlines()
    names = changed.ok("diff", "--name-only", "1", "2").splitlines()
    stat = changed.ok("diff", "--stat", "1", "2")

    assert "> /etc/moves -> /etc/moved" in lines
    assert "c /etc/hostname  [mode]" in lines
    assert "- /opt" in lines
    assert "/etc/new" in names
    assert all(name.isprintable() for name in names)
    assert "/etc/odd-\\xff\\n\\x1b[31m" in names
    counts = changed.json("diff", "--stat", "1", "2")["counts"]
    assert f"{counts['added']} added" in stat


def test_the_root_itself_is_named_as_it_is_typed(programs: Path) -> None:
    with made(source=programs) as box:
        box.ok("run", "--", "chmod", "711", "/")

        assert box.ok("diff", "--name-only") == "/\n"


def test_what_is_left_out_is_the_base_and_the_newest(changed: Box) -> None:
    assert changed.ok("diff") == changed.ok("diff", "3") == changed.ok("diff", "2", "3")
    assert changed.ok("diff", "2") == changed.ok("diff", "1", "2")
    assert changed.ok("diff", "1") == changed.ok("diff", "1", "1") == ""


def test_looking_changes_nothing(changed: Box) -> None:
    before, records = changed.facts(), len(changed.audit())
    for words in (("diff", "2", "3"), ("status",), ("list",), ("log",), ("log", "--verify"), ("verify", "2")):
        changed.ok(*words)

    assert changes(before, changed.facts()) == {}
    assert len(changed.audit()) == records


def test_unknown_generations(changed: Box) -> None:
    assert "no generation 8" in changed.refuses(51, "diff", "1", "8")
    assert "no generation 8" in changed.refuses(51, "verify", "8")


def test_list_and_status(changed: Box) -> None:
    rows = [line.split() for line in changed.ok("list").splitlines()]
    status = changed.json("status")

    assert rows[0] == ["NR", "MARKS", "STATE", "DATE", "BASE", "CHANGED", "MESSAGE"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        ("1", "NG", "committed", "found"),
        ("2", "RT", "committed", "first"),
        ("3", "-", "staged", "second"),
    ]
    assert [(one["marks"], one["running"]) for one in changed.json("list")] == [
        ("NG", True),
        ("RT", False),
        ("", False),
    ]
    assert (status["booted"], status["default"], status["fallback"], status["staged"]) == (1, 2, 1, [3])
    assert status["reboot_needed"]
    assert "generation 2 boots next" in changed.ok("status")


def test_log_tells_everything_in_order(changed: Box) -> None:
    records = changed.json("log")

    assert [(r["verb"], r["result"]) for r in records] == [
        ("init", "done"), ("apply", "done"), ("apply", "done"), ("run", "done"),
    ]  # fmt: skip
    assert all(r["seconds"] >= 0 and r["who"]["uid"] == 0 and r["transaction"] for r in records)
    assert changed.json("log", "--last", "1") == records[-1:]
    assert changed.json("log", "-g", "2") == records[1:3]
    text = changed.ok("log")
    assert "why: second" in text
    assert "sh -c 'mv /etc/moves" in text


def test_log_is_safe_on_a_terminal(box: Box, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff-\x1b[2J")
    os.mkdir(odd)
    Path(odd, "file").write_text("x")
    box.ok("apply", odd, "-m", "line\nbreak \x1b[31mred")
    box.ok("commit", "-m", "line\nbreak \x1b[31mred")

    for words in (("log",), ("list",), ("status",)):
        assert all(line.isprintable() for line in box.ok(*words).splitlines())
        json.loads(box.ok("--json", *words))
    command("grub-script-check", box.entry)


def _alter(lines: list[bytes]) -> None:
    record = json.loads(lines[1])
    lines[1] = json.dumps({**record, "message": "something else"}, sort_keys=True).encode() + b"\n"


def _remove(lines: list[bytes]) -> None:
    del lines[1]


def _reorder(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _truncate(lines: list[bytes]) -> None:
    del lines[-1]


def _cut(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-30]


@pytest.mark.parametrize("tamper", [_alter, _remove, _reorder, _truncate, _cut])
def test_tampering_with_the_trail_is_found_and_mended(
    changed: Box, tamper: Callable[[list[bytes]], Any]
) -> None:
    path, head = changed.state / "audit/log", changed.state / "audit/head"
    kept, kept_head = path.read_bytes(), head.read_bytes()
    lines = path.read_bytes().splitlines(keepends=True)
    tamper(lines)
    path.write_bytes(b"".join(lines))
    try:
        assert "audit" in changed.refuses(40, "log", "--verify")
        assert changed.run("verify").code == 40
        assert "audit log" in changed.ok("repair")
        assert changed.ok("log", "--verify")
        assert changed.audit()[-1]["verb"] == "repair"
        assert changed.ok("verify")
    finally:
        path.write_bytes(kept)
        head.write_bytes(kept_head)
        for damaged in path.parent.glob("damaged-*"):
            damaged.unlink()


def _without_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = open(1, "w")  # noqa: SIM115


@pytest.mark.parametrize("words", [("diff", "1", "2"), ("--json", "diff", "1", "2"), ("list",), ("status",)])
def test_a_result_that_can_not_be_written_is_an_error_of_its_own(
    changed: Box, words: tuple[str, ...]
) -> None:
    said = changed.start(*words, before=_without_output).wait()

    assert said.code == OutputError.code
    assert "could not be written" in said.complaint[0]


def test_a_base_that_was_removed_is_known_as_it_was_when_work_began(box: Box, tmp_path: Path) -> None:
    for number in "234":
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / f"etc/{number}").write_text(number)
        box.ok("apply", str(tmp_path), "--commit")
        box.reboot()
    box.ok("confirm")
    box.ok("prune", "--keep", "1")
    assert list(box.marks()) == [1, 4]
    assert [record["verb"] for record in box.json("log", "-g", "3")][-1] == "prune"
    assert [record["verb"] for record in box.json("log", "-g", "4")][-1] == "confirm"

    assert box.ok("diff", "--name-only") == box.ok("diff", "--name-only", "4") == "/etc/4\n"
    assert box.ok("diff", "--stat").startswith("generation 3 to 4: 1 added, ")
    assert "no generation 3" in box.refuses(51, "diff", "3", "4")
    assert "package manager" in box.refuses(34, "diff", "--packages")
    command("btrfs", "subvolume", "delete", box.tree(4, "origin"))
    said = box.refuses(51, "diff", "--stat")
    assert said.splitlines() == [
        "generation 3, the base of 4, was removed",
        f"name another: {box.program} diff A 4",
    ]
