"""Application trees on real Btrfs, with a real server that is handed its socket, under load."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from snaptx.errors import OutcomeUnknownError
from tests.appload import ask, build, free_port, loaded
from tests.boxes import Box

CHECK = """#!/bin/sh
printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 127.0.0.1 {port} | grep -q ' 200 OK'
"""
PRIVATE_CHECK = """#!{python}
import os, socket
address = os.environ["SNAPTX_CHECK_ADDRESS"]
with open("{asked}", "a") as asked:
    asked.write(f"of {{os.environ['SNAPTX_GENERATION']}} at {{address}}\\n")
path = address.startswith("/")
with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as one:
    host, _, port = address.rpartition(":")
    one.connect(address if path else (host, int(port)))
    one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    raise SystemExit(b" 200 OK" not in one.recv(4096))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the server's program."""
    return build(tmp_path_factory.mktemp("server"))


@dataclass
class Web:
    """An application called ``web`` in a sandbox."""

    box: Box
    place: Path
    server: Path
    port: int

    def configure(self, **changed: str) -> None:
        """Write its settings; values are TOML."""
        check = self.place / "check"
        check.write_text(CHECK.format(port=self.port))
        check.chmod(0o755)
        known = {
            "start": '["/bin/server"]',
            "listen": f'["127.0.0.1:{self.port}"]',
            "check": f'["{check}"]',
            "timeout": "2",
            "drain": "2",
        }
        path = self.box.root / "etc/snaptx/apps/web.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {**known, **changed}
        path.write_text("".join(f"{name} = {value}\n" for name, value in values.items() if value))

    def check_privately(self, asked: Path, *, unix: bool = False) -> None:
        """Check at an address of its own first; whoever is checked, and where, goes to the file ``asked``."""
        listen = f'["127.0.0.1:{self.port}"]'
        if unix:
            listen = f'["{self.place}/web.sock"]'
        self.configure(check_at='"private"', listen=listen)
        (self.place / "check").write_text(PRIVATE_CHECK.format(python=sys.executable, asked=asked))

    def apply(self, version: str, *marks: str) -> None:
        """Stage a version of the server; ``marks`` are files in /etc."""
        tree = self.place / f"tree-{version}"
        for name in ("bin", "etc", "dev", "proc"):
            (tree / name).mkdir(parents=True)
        shutil.copy(self.server, tree / "bin/server")
        (tree / "etc/version").write_text(f"{version}\n")
        for name in marks:
            (tree / "etc" / name).touch()
        self.box.ok("app", "apply", "web", str(tree))

    def at(self) -> tuple[int, list[int]]:
        """Return the generation it is at, and those that run."""
        found = next(one for one in self.box.json("app", "list") if one["name"] == "web")
        return found["generation"], found["running"]


@pytest.fixture
def web(box: Box, server: Path, tmp_path: Path) -> Iterator[Web]:
    """Give an application of which version one runs."""
    made = Web(box, tmp_path, server, free_port())
    made.configure()
    box.ok("app", "create", "web")
    made.apply("one")
    box.ok("app", "switch", "web")
    yield made
    box.run("app", "stop", "web")


def test_what_is_switched_to_answers(web: Web) -> None:
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")


def test_a_switch_and_a_rollback_lose_no_request(web: Web) -> None:
    web.apply("two")
    with loaded(web.port) as load:
        time.sleep(0.5)
        there = web.box.json("app", "switch", "web")
        time.sleep(0.5)
        back = web.box.json("app", "rollback", "web")
        time.sleep(0.5)

    assert load.lost == []
    assert set(load.answers) == {"one", "two"}
    assert (there["number"], back["number"], back["content"]) == (3, 4, 2)
    assert there["handed_on"]
    assert 0 < there["pause_seconds"] < 5
    assert web.at() == (4, [4])
    assert ask(web.port).startswith("one ")


def test_a_failing_check_is_taken_back_and_nobody_notices(web: Web) -> None:
    web.apply("bad", "broken")
    with loaded(web.port) as load:
        time.sleep(0.5)
        said = web.box.run("app", "switch", "web")

    assert said.code == 32, said.err
    assert "did not come up" in said.complaint[0]
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")
    # While the old one is held the bad one answers a few, and that is told.
    assert all("500" in trouble for trouble in load.lost)
    rows = {row["number"]: row["phase"] for row in web.box.json("app", "list", "web")}
    assert rows == {1: "committed", 2: "committed", 3: "staged"}


@pytest.mark.parametrize("unix", [False, True], ids=["port", "path"])
def test_a_private_check_lets_nobody_meet_what_is_bad(web: Web, tmp_path: Path, *, unix: bool) -> None:
    asked = tmp_path / "asked"
    web.check_privately(asked, unix=unix)
    web.apply("bad", "broken")
    with loaded(web.port) as load:
        time.sleep(0.5)
        said = web.box.run("app", "switch", "web")

    assert said.code == 32, said.err
    assert (load.lost, set(load.answers)) == ([], {"one"})
    assert web.at() == (2, [2])
    places = {line.partition("of 3 at ")[2] for line in asked.read_text().splitlines()}
    assert len(places) == 1
    assert places != {f"127.0.0.1:{web.port}"}


def test_what_passes_in_private_is_checked_again_where_everybody_asks(web: Web, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    web.check_privately(asked)
    web.apply("two")
    with loaded(web.port) as load:
        time.sleep(0.5)
        web.box.ok("app", "switch", "web")
        time.sleep(0.5)

    assert (load.lost, set(load.answers)) == ([], {"one", "two"})
    places = list(dict.fromkeys(line.partition("of 3 at ")[2] for line in asked.read_text().splitlines()))
    assert len(places) == 2
    assert places[1] == f"127.0.0.1:{web.port}"


def test_what_is_started_is_told_where_it_listens(web: Web) -> None:
    web.box.ok("app", "stop", "web")
    made = web.box.json("app", "start", "web")
    environment = Path(f"/proc/{made['pid']}/environ").read_bytes().split(b"\0")

    assert f"SNAPTX_LISTEN=127.0.0.1:{web.port}".encode() in environment
    assert made["address"] == f"127.0.0.1:{web.port}"


def test_a_private_check_needs_a_socket_to_take_the_place_of(web: Web) -> None:
    web.apply("two")
    web.configure(check_at='"private"', listen="")

    assert "needs start and listen" in web.box.refuses(3, "app", "switch", "web")
    web.configure()


def test_what_does_not_start_is_taken_back(web: Web) -> None:
    web.apply("two")
    web.configure(start='["/bin/nothing"]')
    said = web.box.run("app", "switch", "web")

    assert said.code == 31
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")


def test_what_heeds_no_signal_is_killed_after_its_time(web: Web) -> None:
    web.apply("deaf", "deaf")
    web.box.ok("app", "switch", "web")
    web.apply("two")
    done = web.box.json("app", "switch", "web")

    assert done["killed"]
    assert done["drain_seconds"] >= 2
    assert ask(web.port).startswith("two ")


def test_without_a_socket_to_hand_on_it_is_down_for_a_moment(web: Web) -> None:
    web.box.ok("app", "stop", "web")
    web.configure(start=f'["/bin/server", "{web.port}"]', listen="")
    web.box.ok("app", "start", "web")
    web.apply("two")
    done = web.box.json("app", "switch", "web")

    assert not done["handed_on"]
    assert done["pause_seconds"] > 0
    assert ask(web.port).startswith("two ")


def test_without_a_socket_the_old_one_comes_back(web: Web) -> None:
    web.box.ok("app", "stop", "web")
    web.configure(start=f'["/bin/server", "{web.port}"]', listen="")
    web.box.ok("app", "start", "web")
    web.apply("bad", "broken")

    assert web.box.run("app", "switch", "web").code == 32
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")


def test_what_it_wrote_in_its_tree_is_carried_over(web: Web) -> None:
    state = web.box.state / "apps/web/generations/2/root"
    (state / "etc/learnt").write_text("while it ran\n")
    web.apply("two")
    (state / "etc/later").write_text("after the update was staged\n")
    done = web.box.json("app", "switch", "web")

    assert done["carried"] == ["etc/later"]
    fresh = web.box.state / "apps/web/generations/3/root/etc"
    assert {"learnt", "later"} <= set(os.listdir(fresh))


def test_what_was_stopped_starts_at_the_same_generation(web: Web) -> None:
    web.box.ok("app", "stop", "web")
    assert web.at() == (2, [])
    with pytest.raises(OSError, match="refused"):
        ask(web.port)
    web.box.ok("app", "start", "web")

    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")


def test_a_boot_starts_them_all_and_one_that_fails_keeps_no_other_from_it(web: Web) -> None:
    web.box.ok("app", "create", "bare")  # nothing to start
    web.box.ok("app", "create", "absent")
    settings = web.box.root / "etc/snaptx/apps/absent.conf"
    settings.write_text("start = ['/bin/nothing']\n")
    assert web.box.json("app", "stop", "--all")["names"] == ["web"]
    assert web.at() == (2, [])

    said = web.box.run("app", "start", "--all")
    assert said.code == 31
    assert "web" in said.out
    assert ask(web.port).startswith("one ")
    settings.unlink()
    assert web.box.json("app", "start", "--all")["names"] == ["web"]
    assert web.at() == (2, [2])


def test_it_takes_a_name_or_all_of_them(web: Web) -> None:
    for words in (("start",), ("stop", "web", "--all")):
        assert "a name or --all" in web.box.refuses(2, "app", *words)


@pytest.mark.parametrize("words", [("web",), ("--all",)], ids=" ".join)
@pytest.mark.parametrize("changed", ["'of no use", '["/bin/other"]', ""], ids=["broken", "another", "none"])
def test_what_runs_is_ended_as_it_was_started_whatever_is_set_since(
    web: Web, words: tuple[str, ...], changed: str
) -> None:
    web.configure(start=changed, listen="", check="", unit="" if changed else '"web@"')

    assert web.at() == (2, [2])
    web.box.ok("app", "stop", *words)
    assert web.at() == (2, [])
    web.box.ok("app", "remove", "web")


def test_audit_and_generations_are_its_own(web: Web) -> None:
    trail = web.box.json("app", "log", "web")
    assert [record["result"] for record in trail] == ["done"] * len(trail)
    assert [row["number"] for row in web.box.json("list")] == [1]
    assert "unbroken" in web.box.ok("app", "log", "web", "--verify")
    assert web.box.json("verify")["problems"] == []


def test_two_of_one_name_and_impossible_names_are_refused(web: Web) -> None:
    assert "there is an application web" in web.box.refuses(52, "app", "create", "web")
    assert "no name" in web.box.refuses(2, "app", "create", "../web")
    assert "there are: web" in web.box.refuses(51, "app", "switch", "other")


def test_what_runs_is_not_removed_and_undo_waits_for_it(web: Web) -> None:
    said = web.box.run("app", "remove", "web")
    assert (said.code, said.complaint[0]) == (52, "web runs")
    assert "application trees: web" in web.box.refuses(52, "init", "--undo")
    web.box.ok("app", "stop", "web")
    web.box.ok("app", "remove", "web")

    assert web.box.json("app", "list") == []
    assert not (web.box.state / "apps/web").exists()
    last = web.box.json("log")[-1]
    assert (last["argv"][-3:], last["application"]) == (["app", "remove", "web"], "web")
    web.box.ok("log", "--verify")
    web.box.ok("app", "create", "web")


STEPS = ("carry", "seal", "ready", "switch")


def _killed_at(step: str) -> Callable[[], None]:
    """Return what makes a verb be killed where it begins a step."""

    def prepare() -> None:
        from snaptx.journal import Journal

        before = Journal.step

        def stops(self: Journal, name: str) -> None:
            before(self, name)
            if name == step:
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.step = stops  # type: ignore[method-assign]

    return prepare


@pytest.mark.parametrize("step", STEPS)
def test_a_switch_that_is_killed_is_settled_by_the_next_verb(web: Web, step: str) -> None:
    web.apply("two")
    assert web.box.start("app", "switch", "web", before=_killed_at(step)).wait().code < 0
    assert ask(web.port).partition(" ")[0] in ("one", "two")

    web.box.ok("app", "start", "web")
    assert web.at() == (2, [2])
    assert ask(web.port).startswith("one ")
    web.box.ok("app", "switch", "web")
    assert ask(web.port).startswith("two ")


def _killed_while(name: str) -> Callable[[], None]:
    """Return what makes a verb be killed where it would call a function of the instances."""

    def prepare() -> None:
        from snaptx.apps import instances

        def dies(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(instances, name, dies)

    return prepare


def test_the_old_one_goes_on_when_snaptx_dies_while_it_is_held(web: Web) -> None:
    web.apply("bad", "broken")
    old = int(ask(web.port).split()[1])
    assert web.box.start("app", "switch", "web", before=_killed_while("require_healthy")).wait().code < 0

    assert _answers(web.port, f"one {old}")
    web.box.ok("app", "start", "web")
    assert web.at() == (2, [2])


def _answers(port: int, wanted: str) -> bool:
    """Return whether the answer comes that is wanted, of one of two servers."""
    for _ in range(200):
        with suppress(OSError):
            if ask(port) == wanted:
                return True
    return False


def test_the_new_one_stays_when_snaptx_dies_after_the_switch(web: Web) -> None:
    web.apply("two")
    assert web.box.start("app", "switch", "web", before=_killed_while("stop")).wait().code < 0
    assert web.at() == (3, [2, 3])

    web.box.ok("app", "start", "web")
    assert web.at() == (3, [3])
    assert ask(web.port).startswith("two ")


def _without_room_for_records() -> None:
    from snaptx.errors import NoSpaceError
    from snaptx.generations import Generations

    def refused(*_: object) -> None:
        raise NoSpaceError("cannot write generation.json: No space left on device", hint="make room")

    Generations.write = refused  # type: ignore[method-assign, assignment]


def test_what_fails_after_the_switch_does_not_hide_it(web: Web) -> None:
    web.apply("two")
    said = web.box.start("app", "switch", "web", before=_without_room_for_records).wait()

    assert said.code == OutcomeUnknownError.code
    assert said.complaint[0].startswith("web is at generation 3, but something failed: cannot write")
    assert web.at() == (3, [3])
    web.box.ok("app", "rollback", "web")
    assert ask(web.port).startswith("one ")
