"""State files that are JSON and yet none of snaptx's: told as damaged, and mended by ``repair``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box, made

INTENT: dict[str, Any] = {
    "format": 1, "transaction": "a", "act": "commit", "generation": 2, "base": 1, "targets": [],
    "boot_id": "x", "pid": 1, "actor": {}, "start": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give a sandbox with generations 1 and 2."""
    tree = tmp_path_factory.mktemp("payload")
    (tree / "file").touch()
    with made() as one:
        one.ok("apply", str(tree), "--commit")
        yield one


def _mended(box: Box, path: Path, data: bytes, said: str) -> None:
    """Put ``data`` in place; who reads it says so without a traceback, and ``repair`` has an answer."""
    kept = path.read_bytes() if path.exists() else None
    for words in (("status",), ("list",), ("log",), ("log", "--verify"), ("verify",), ("diff",)):
        path.write_bytes(data)
        found = box.run(*words)
        assert found.code in (0, 40, 70), found.err
    assert said in box.ok("repair")
    assert box.ok("log", "--verify")
    assert box.run("list").code == 0
    if kept:
        path.write_bytes(kept)
    box.run("repair")


@pytest.mark.parametrize(
    "changed",
    [
        {"created": "x"}, {"created": None}, {"number": 1}, {"number": "2"}, {"message": 5}, {"base": "1"},
        {"content": "a"}, {"pinned": "no"}, {"counts": {"added": "x"}}, {"counts": [1]}, {"payload": "x"},
        {"payload": {"source": 1, "sha256": "", "size": 0}}, {"updates": [1]}, {"verdict": []},
        {"created": float("nan")}, {"created": float("inf")}, {"created": 1e300}, {"created": -1e18},
        {"created": 10**400}, {"arrived": float("nan")}, {"base": 2}, {"base": 99},
    ],
    ids=str,
)  # fmt: skip
def test_records_of_generations(grown: Box, changed: dict[str, Any]) -> None:
    path = grown.state / "generations/2/generation.json"
    data = json.dumps({**json.loads(path.read_bytes()), **changed}).encode()

    _mended(grown, path, data, "the record of generation 2 is damaged")


@pytest.mark.parametrize(
    "changed",
    [{"actor": []}, {"generation": "2"}, {"pid": "1"}, {"act": 3}, {"targets": [[2]]}, {"targets": ["2"]}],
    ids=str,
)
def test_journals(grown: Box, changed: dict[str, Any]) -> None:
    data = json.dumps({**INTENT, **changed}).encode()

    _mended(grown, grown.state / "journal/open", data, "the journal is damaged")


@pytest.mark.parametrize(
    "changed",
    [{"format": "x"}, {"format": None}, {"seq": "3"}, {"seq": None}, {"time": "x"}, {"time": 1e300},
     {"time": 1e17}, {"who": "x"}, {"argv": 5}, {"seconds": "x"}, {"error": "x"}, {"counts": {"a": 1}},
     {"packages": 5}],
    ids=str,
)  # fmt: skip
def test_audit_records(grown: Box, changed: dict[str, Any]) -> None:
    path = grown.state / "audit/log"
    lines = path.read_bytes()
    record = {**json.loads(lines.splitlines()[-1]), **changed}

    _mended(grown, path, lines + json.dumps(record).encode() + b"\n", "audit log: ")


def test_what_was_set_aside_stays_when_the_same_is_damaged_again(grown: Box) -> None:
    path = grown.state / "generations/2/generation.json"
    for text in ("one", "two"):
        path.write_text(text)
        grown.ok("repair")

    kept = {aside.read_text() for aside in (grown.state / "journal").glob("damaged-record-2*")}
    assert {"one", "two"} <= kept


@pytest.mark.parametrize("place", ["generations/2/generation.json", "audit/log", "journal/open"])
def test_nests_of_brackets(grown: Box, place: str) -> None:
    _mended(grown, grown.state / place, b"[" * 100_000 + b"\n", "")


RUN = {"time": 1.5, "result": "failed", "message": "", "code": 1}
MEMORY = {"format": 1, "last": RUN, "succeeded": 0, "next": 0, "failures": 0, "offered": [], "seen": {}}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({**MEMORY, "last": {**RUN, "time": "x"}}, 70),
        ({**MEMORY, "last": {**RUN, "time": 1e300}}, 70),
        ({**MEMORY, "next": 10**400}, 70),
        ({**MEMORY, "next": float("nan")}, 70),
        ({**MEMORY, "succeeded": float("-inf")}, 70),
        ({**MEMORY, "failures": float("inf")}, 70),
        ({**MEMORY, "seen": {"/shop": {"name": "shop", "version": "7", "digest": ""}}}, 70),
        ({**MEMORY, "format": 2}, 71),
        ("[" * 100_000, 70),
        (None, 70),
    ],
    ids=[
        "a word",
        "a date",
        "a large number",
        "nan",
        "infinity",
        "count",
        "seen",
        "newer",
        "nest",
        "directory",
    ],
)
def test_what_is_remembered_of_updates(grown: Box, data: object, code: int) -> None:
    path = grown.state / "update/state.json"
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if data is None else path.write_text(data if isinstance(data, str) else json.dumps(data))
    said, told = grown.run("status"), grown.run("--json", "status")
    assert grown.run("update", "--source", "/shop").code == code
    path.rmdir() if data is None else path.unlink()

    assert (said.code, told.code) == (code, code), said.err
    assert "update" in said.complaint[0]
    assert "booted:   generation 1" in said.out, "what is not damaged is told all the same"
    assert "kept:     2 generation(s)" in said.out
    assert "updates:" not in said.out
    assert (told.json["default"], told.json["error"]["code"]) == (2, code)
