"""A snaptx beside another one, and after one that did not end: who is at work, who has ended, and how."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaptx import recover, system, verify
from snaptx.journal import Journal
from snaptx.overlay import transplant
from snaptx.storage.btrfs import BtrfsStorage
from tests.boxes import Box, Running, Said, changes, made
from tests.fs.conftest import command
from tests.minimal_root import eventually
from tests.points import hear, striking, watch


@pytest.fixture
def update(tmp_path: Path) -> str:
    """Give a small update."""
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/new").write_text("new")
    return str(tmp_path / "update")


@pytest.fixture(scope="module")
def machine() -> Iterator[Box]:
    """Give a sandbox to all tests that leave it as it was."""
    with made(size=256 << 20) as one:
        yield one


@contextlib.contextmanager
def stalled(box: Box, update: str) -> Iterator[Running]:
    """Give an ``apply -`` whose standard input has brought a part and brings no more."""
    command("tar", "-cf", f"{update}.tar", "-C", update, "etc")
    reading, writing = os.pipe()

    def before() -> None:
        hear()
        os.close(writing)

    try:
        running = box.start("apply", "-", stdin=reading, before=before)
        os.write(writing, Path(f"{update}.tar").read_bytes()[:1300])
        eventually(lambda: _step(box) == "write")
        yield running
    finally:
        os.close(reading)
        os.close(writing)


def _step(box: Box) -> str:
    journal = Journal(box.state / "journal")
    return journal.last_step() if journal.path.exists() else ""


def struck(box: Box, point: str, number: int, *words: str) -> Said:
    """Run a verb that gets a signal at a point."""

    def before() -> None:
        hear()
        watch(striking(point, number))

    return box.start(*words, before=before).wait()


def test_one_at_work_is_not_taken_for_interrupted(machine: Box, update: str) -> None:
    with stalled(machine, update) as running:
        status = machine.json("status")
        assert (status["at_work"], status["interrupted"], status["ended_by"]) == ("apply", "", "")
        assert "at work:  'snaptx apply'" in machine.ok("status")
        assert machine.json("verify")["problems"] == []
        for reader in (("list",), ("log", "--verify"), ("diff", "1")):
            machine.ok(*reader)
        said = machine.run("pin", "1")
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait().code == 143
    assert said.code == 4
    since = r", since [0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
    assert f"another snaptx is at work: 'snaptx apply', process {running.pid}" in said.complaint[0]
    assert re.search(since, said.complaint[0])


def test_confirm_waits_for_another_one(machine: Box, update: str) -> None:
    with stalled(machine, update) as running:
        assert machine.run("confirm", "1", "--bad", "--wait", "0.5").code == 4
        waiting = machine.start("confirm", "1", "--bad", "--wait", "60")
        time.sleep(0.5)
        os.kill(running.pid, signal.SIGTERM)
        running.wait()
        assert waiting.wait().code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_waiting_for_a_payload_that_stalls(machine: Box, update: str, number: int) -> None:
    before = machine.facts()
    with stalled(machine, update) as running:
        os.kill(running.pid, number)
        code = running.wait().code

    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGKILL:
        assert "'snaptx apply' was interrupted at write" in machine.run("repair").err
    assert changes(before, machine.facts()) == {}


def test_two_in_the_same_instant(machine: Box) -> None:
    for turn in range(6):
        reading, writing = os.pipe()
        words = ("pin" if turn % 2 == 0 else "unpin", "1")

        def wait(writing: int = writing, reading: int = reading) -> None:
            os.close(writing)
            os.read(reading, 1)

        both = [machine.start(*words, before=wait) for _ in range(2)]
        os.close(writing)
        said = [one.wait() for one in both]
        os.close(reading)

        assert sorted(one.code for one in said) in ([0, 0], [0, 4])
        for one in said:
            if one.code:
                message = one.complaint[0]
                assert any(f"process {other.pid}," in message for other in both) or "not said" in message
    assert machine.json("verify")["problems"] == []


def test_a_lock_left_behind_hinders_nobody(machine: Box, update: str) -> None:
    assert struck(machine, "step write", signal.SIGKILL, "apply", update).code == -9
    assert '"verb": "apply"' in (machine.state / "lock").read_text()

    machine.ok("pin", "1")
    holder = {"pid": os.getpid(), "verb": "apply", "since": 0, "start": system.process_start(os.getpid())}
    (machine.state / "lock").write_text(json.dumps(holder))
    machine.ok("unpin", "1")


@pytest.mark.parametrize("pid", [os.getpid(), 1 << 30, -1, "x"], ids=["mine", "none", "negative", "text"])
def test_what_an_earlier_holder_wrote_is_not_believed(machine: Box, pid: object) -> None:
    path = machine.state / "lock"
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.write_text(json.dumps({"pid": pid, "verb": "apply", "since": 0, "start": 1}))
        said = machine.refuses(4, "pin", "1")

    assert "it has not said what it does" in said


RESTARTED, ENDED = "the machine was restarted", "process [0-9]+ ended"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"boot_id": "an earlier one"}, RESTARTED),
        ({"boot_id": "an earlier one", "pid": os.getpid()}, RESTARTED),
        ({}, ENDED),
        ({"pid": 1}, ENDED),
        ({"pid": os.getpid()}, ENDED),
    ],
)
def test_what_ended_the_one_before(machine: Box, update: str, change: dict[str, object], said: str) -> None:
    before = machine.facts()
    assert struck(machine, "step write", signal.SIGKILL, "apply", update).code == -9
    path = machine.state / "journal/open"
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(first) | change).encode() + b"\n" + rest)

    assert re.search(f"'snaptx apply' was interrupted, {said};", machine.ok("status"))
    assert machine.run("verify").code == 40
    assert re.search(f"'snaptx apply' was interrupted at write, {said}: discarded", machine.run("repair").err)
    assert changes(before, machine.facts()) == {}


def patched(module: object, name: str, number: int, at: int) -> Callable[[], None]:
    """Return what makes the ``at``-th call of a function send a signal before it goes on."""

    def before() -> None:
        hear()
        call, left = getattr(module, name), [at]

        def told(*args: object, **options: object) -> object:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), number)
            return call(*args, **options)

        setattr(module, name, told)

    return before


ANEW = [("snapshot", at) for at in (1, 2, 3, 4)] + [
    (name, at) for name in ("barrier", "delete") for at in (1, 2)
]
"""What a commit calls that finds the root it runs in written to after it has sealed the new one."""


@pytest.mark.parametrize(
    ("module", "name", "at", "number"),
    [
        (transplant, "transplant", 2, signal.SIGTERM),
        (transplant, "transplant", 2, signal.SIGKILL),
        *((BtrfsStorage, *call, signal.SIGKILL) for call in ANEW),
    ],
)
def test_in_the_middle_of_carrying_over(
    box: Box, update: str, module: object, name: str, at: int, number: int
) -> None:
    box.ok("apply", update)
    for edited in ("one", "two", "three"):
        (box.root / f"etc/{edited}").write_text(edited)
    code = box.start("commit", before=patched(module, name, number, at)).wait().code
    assert code == (-9 if number == signal.SIGKILL else 143)
    box.run("repair")
    assert box.boot().default == 1
    assert box.json("verify")["problems"] == []

    (box.root / "etc/two").write_text("two again")
    (box.root / "etc/three").unlink()
    box.ok("commit")
    found = {path.name: path.read_text() for path in (box.tree(2) / "etc").iterdir() if path.name in EDITED}
    assert found == {"new": "new", "one": "one", "two": "two again"}


EDITED = {"new", "one", "two", "three"}


def test_in_the_middle_of_verifying(machine: Box) -> None:
    before = machine.facts()
    said = machine.start("verify", before=patched(verify, "_differences", signal.SIGTERM, 5)).wait()

    assert said.code == 143
    told = f"'{machine.program} status' tells how things stand"
    assert said.complaint == ("interrupted by SIGTERM", told)
    assert changes(before, machine.facts()) == {}


def test_a_second_signal_does_not_keep_it_from_settling(machine: Box, update: str) -> None:
    before = machine.facts()

    def both() -> None:
        patched(recover, "discard", signal.SIGHUP, 1)()
        watch(striking("step write", signal.SIGTERM))

    said = machine.start("apply", update, before=both).wait()

    assert said.code == 143
    assert "interrupted by SIGTERM: 'snaptx apply' was discarded" in said.err
    assert changes(before, machine.facts()) == {}
