"""Application trees on real Btrfs, with a real server that is handed its socket, under load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.appload import ask, loaded
from tests.boxes import Box
from tests.webapp import Web


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


@pytest.mark.parametrize(
    "address", ["localhost:{}", "127.1:{}", "[0:0:0:0:0:0:0:1]:{}", ":{}", "127.0.0.1:0{}"]
)
def test_a_socket_is_handed_on_however_its_address_is_written(web: Web, address: str) -> None:
    web.box.ok("app", "stop", "web")
    web.configure(listen=f'["{address.format(web.port)}"]', check="")
    web.box.ok("app", "start", "web")
    web.apply("two")

    assert web.box.json("app", "switch", "web")["handed_on"]
    assert web.at() == (3, [3])


def test_a_file_makes_no_way_for_a_socket(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    web.box.ok("app", "stop", "web")
    web.configure(listen=f'["{path}"]', check="")

    said = web.box.run("app", "start", "web")
    assert said.code == 50
    assert said.complaint[0] == f"cannot listen at {path}: what is there is no socket"
    assert path.read_text() == "precious"


def test_sockets_block_unless_the_settings_say_otherwise(web: Web) -> None:
    def blocks() -> bool:
        pid = ask(web.port).split()[1]
        flags = Path(f"/proc/{pid}/fdinfo/3").read_text().partition("flags:")[2].split()[0]
        return not int(flags, 8) & os.O_NONBLOCK

    assert blocks()
    web.configure(nonblocking="true")
    web.apply("two")
    web.box.ok("app", "switch", "web")
    assert not blocks()
    web.box.ok("app", "stop", "web")
    web.box.ok("app", "start", "web")
    assert not blocks()


def test_a_yes_or_no_is_not_a_number(web: Web) -> None:
    web.configure(nonblocking="1")

    assert "nonblocking: 1 is not true or false" in web.box.refuses(3, "app", "switch", "web")
    web.configure()


def test_a_private_check_needs_a_socket_to_take_the_place_of(web: Web) -> None:
    web.apply("two")
    web.configure(check_at='"private"', listen="")

    assert "needs start and listen" in web.box.refuses(3, "app", "switch", "web")
    web.configure()


def test_more_than_a_file_s_rights_are_no_mode_of_a_socket(web: Web) -> None:
    web.configure(socket_mode="660")

    assert "socket_mode is no file mode" in web.box.refuses(3, "app", "switch", "web")
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


def test_what_stays_behind_in_its_tree_is_told(web: Web) -> None:
    web.apply("two")
    web.box.ok("app", "switch", "web")
    web.apply("three")
    web.box.ok("app", "rollback", "web")
    for number in range(22):
        (web.box.root / f"run/snaptx/apps/web/5/etc/mine{number:02}").touch()

    told = web.box.ok("app", "switch", "web", "4").splitlines()[-1]
    assert told.startswith("  stays in generation 5, of which this does not stem: /etc/mine00, /etc/mine01, ")
    assert told.endswith(", /etc/mine19 and 2 more")


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
    told = web.box.run("--json", "app", "start", "--all").json
    assert (told["names"], told["error"]["code"]) == (["web"], 31)
    settings.unlink()
    assert web.box.json("app", "start", "--all")["names"] == ["web"]
    assert web.at() == (2, [2])


def test_what_all_would_start_or_stop_is_told_alone(web: Web) -> None:
    web.box.ok("app", "create", "tree")
    web.box.ok("app", "create", "other")
    (web.box.root / "etc/snaptx/apps/other.conf").write_text('start = ["/bin/server"]\n')

    assert web.box.ok("app", "start", "--all", "--dry-run") == "would start other\n"
    assert web.box.ok("app", "stop", "--all", "--dry-run") == "would stop web\n"
    assert web.box.json("app", "stop", "--all", "--dry-run") == {"action": "stop", "names": ["web"]}
    assert web.at() == (2, [2])
    web.box.ok("app", "stop", "web")
    assert web.box.ok("app", "stop", "--all", "--dry-run") == "would stop nothing\n"


def test_applications_are_listed_in_words(web: Web) -> None:
    web.box.ok("app", "create", "tree")
    head, *rows = web.box.ok("app", "list").splitlines()

    assert head.split() == ["NAME", "GENERATION", "RUNNING"]
    assert [row.split() for row in rows] == [["tree", "1", "-"], ["web", "2", "2"]]


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


@pytest.mark.parametrize("text", [None, "half of a"], ids=["lost", "damaged"])
def test_one_whose_pointer_is_of_no_use_hides_no_other(web: Web, text: str | None) -> None:
    web.box.ok("app", "create", "other")
    pointer = web.box.state / "apps/other/grub/current"
    pointer.unlink()
    if text is not None:
        pointer.write_text(text)

    said = web.box.run("--json", "app", "list")
    assert said.json == [
        {"name": "other", "generation": None, "running": []},
        {"name": "web", "generation": 2, "running": [2]},
    ]
    assert "other" in said.err
    assert web.box.ok("app", "list").splitlines()[1].split() == ["other", "-", "-"]


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


def _meanwhile(box: Box, *words: str) -> Callable[[], None]:
    """Return what makes a verb find another one's work done where it takes the lock for its own."""

    def prepare() -> None:
        from snaptx import transaction

        before = transaction.exclusive

        def waits(*arguments: Any) -> Any:
            transaction.exclusive = before
            box.ok(*words)
            return before(*arguments)

        transaction.exclusive = waits  # type: ignore[assignment]

    return prepare


@pytest.mark.parametrize("handed_on", [True, False])
def test_what_another_one_did_before_it_had_its_turn_is_seen(web: Web, *, handed_on: bool) -> None:
    if not handed_on:
        web.box.ok("app", "stop", "web")
        web.configure(start=f'["/bin/server", "{web.port}"]', listen="")
        web.box.ok("app", "start", "web")
    web.apply("two")
    web.box.ok("app", "switch", "web")
    web.apply("three")
    said = web.box.start("app", "switch", "web", before=_meanwhile(web.box, "app", "rollback", "web")).wait()

    assert said.code == 0, said.err
    assert web.at() == (4, [4])
    assert {ask(web.port).split()[0] for _ in range(10)} == {"three"}
