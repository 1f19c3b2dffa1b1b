"""``update``: a machine that follows a source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snaptx import blame, reconcile, transaction
from snaptx.errors import NoSpaceError
from snaptx.machine import open_machine
from snaptx.model import Verdict
from snaptx.reconcile import Why
from snaptx.transaction import Request
from snaptx.update import state
from snaptx.update.state import Result, State
from tests.boxes import Box, changes
from tests.followers import cached, kept, source, update
from tests.updates import Server, Shop


def text(box: Box, number: int, name: str = "etc/motd") -> str:
    """Return a file of a generation."""
    return (box.tree(number) / name).read_text()


def test_a_signed_update_from_check_to_confirm(follower: Box, server: Server, shop: Shop) -> None:
    assert update(follower, server, "--check")["result"] == "available"
    assert update(follower, server, "--policy", "download")["result"] == "downloaded"
    staged = update(follower, server, "--policy", "stage")
    assert (staged["result"], staged["staged"]) == ("staged", 2)
    assert follower.marks() == {1: "NRG", 2: "s"}
    done = update(follower, server)
    assert (done["result"], done["committed"]["number"]) == ("committed", 2)
    assert server.count("motd.tar") == 1
    follower.reboot()
    assert (follower.root / "etc/motd").read_text() == "hello\n"
    assert follower.json("confirm")["verdict"] == "good"
    assert follower.run("update", *source(server), "--unchanged-exit-77").code == 77
    record = json.loads((follower.state / "generations/2/generation.json").read_text())
    assert (record["verb"], record["message"]) == ("update", "a greeting")
    assert record["updates"]["shop"].startswith("1:")
    assert record["payload"]["source"] == f"{server.url}motd.tar"
    assert cached(follower) == []
    assert follower.json("verify")["problems"] == []


def test_several_overlays_are_laid_one_over_the_other(follower: Box, shop: Shop) -> None:
    for name in ("two", "one"):
        shop.put(name, {"etc/motd": name.encode(), f"etc/{name}": b""})
    done = update(follower, shop)
    number = done["committed"]["number"]

    assert follower.marks() == {1: "NG", number: "RT"}
    assert text(follower, number) == "one", "the last that was published is on top, whatever its name"
    assert (follower.tree(number) / "etc/two").exists()


def test_status_tells_of_it(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    told = follower.json("status")["updates"]

    assert told["last"]["result"] == "committed"
    assert "a greeting" in told["last"]["message"]
    assert told["next"] > told["last"]["time"] + 17 * 3600
    assert "updates:" in follower.ok("status")


@pytest.mark.parametrize("way", ["judged", "rolled back", "rolled back before the restart"])
def test_what_was_not_wanted_is_not_installed_again(follower: Box, shop: Shop, way: str) -> None:
    update(follower, shop)
    if way != "rolled back before the restart":
        follower.reboot()
    if way == "judged":
        follower.ok("confirm", "2", "--bad", "slow")
    else:
        follower.ok("rollback", "1", "--as-used")
    follower.reboot()
    before = kept(follower)
    said = follower.run("update", *source(shop))
    assert (said.code, "judged bad or rolled back" in said.err) == (33, True)
    assert changes(before, kept(follower)) == {}
    follower.run("prune", "2")
    assert follower.run("update", *source(shop)).code == 33

    shop.put("zz", {"etc/motd": b"better\n"}, "mended")
    number = update(follower, shop)["committed"]["number"]
    assert text(follower, number) == "better\n"


@pytest.mark.parametrize("why", [Why.TRIES, Why.COUNTER])
def test_what_did_not_come_up_is_not_installed_again(follower: Box, shop: Shop, why: Why) -> None:
    update(follower, shop)
    machine = open_machine(follower.root)
    with transaction.exclusive(machine, "repair"):
        reconcile.reconcile(machine, Request("repair"), why)
    assert follower.boot().default == 1

    assert follower.run("update", *source(shop)).code == 33


def test_a_damaged_record_keeps_nobody_from_going_back(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    follower.reboot()
    follower.ok("confirm")
    machine = open_machine(follower.root)
    (follower.state / "generations/2/generation.json").write_text("{}")

    assert blame.of_rollback(machine, 2, 1) == {}
    assert blame.of_verdict(machine, 2, Verdict.BAD) == {}


def test_who_changes_their_mind_gets_it_back(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    follower.ok("rollback", "1")
    assert follower.run("update", *source(shop)).code == 33
    follower.ok("confirm", "2")

    assert update(follower, shop)["result"] == "committed"


def test_an_update_upon_one_that_waits_for_its_restart(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    shop.put("zz", {"etc/zz": b""})
    number = update(follower, shop)["committed"]["number"]

    assert text(follower, number) == "hello\n"
    assert (follower.tree(number) / "etc/zz").exists()
    follower.ok("confirm", str(number), "--bad", "x")
    assert follower.boot().default == 1


def test_a_staged_update_whose_base_is_left_is_made_anew(follower: Box, shop: Shop, tmp_path: Path) -> None:
    update(follower, shop, "--policy", "stage")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    other = follower.json("apply", "--base", "1", "--commit", str(tmp_path / "mine"))["committed"]["number"]
    done = update(follower, shop)
    number = done["committed"]["number"]

    assert done["committed"]["previous"] == other
    assert (follower.tree(number) / "file").exists()
    assert text(follower, number) == "hello\n"
    assert "s" not in "".join(follower.marks().values())


def test_a_commit_that_can_not_be_remembered_is_told(
    follower: Box, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Path, known: State) -> None:
        if known.last:
            raise NoSpaceError("no room", hint="prune")
        write(place, known)

    write = state.write
    monkeypatch.setattr(state, "write", full)
    said = follower.run("--json", "update", *source(shop))

    assert said.code == 53
    assert (said.json["error"]["code"], said.json["committed"]["number"]) == (53, 2)
    assert follower.boot().default == 2


def test_what_changes_nothing_is_known_to_be_there(follower: Box, shop: Shop) -> None:
    update(follower, shop)
    shop.put("zz", {"etc/motd": b"hello\n"}, "the same")
    first = update(follower, shop)

    assert (first["result"], first["committed"], len(first["offers"])) == ("current", None, 1)
    assert first["message"] == "nothing changes with shop 2: the same"
    assert follower.json("status")["updates"]["offered"] == []
    assert update(follower, shop)["offers"] == []


def test_a_rehearsal_changes_nothing_at_all(follower: Box, shop: Shop, server: Server) -> None:
    before = follower.facts()
    said = follower.ok("--dry-run", "update", *source(server))

    assert "would commit" in said
    assert "a greeting" in said
    assert server.count("motd.tar") == 0
    assert changes(before, follower.facts()) == {}
    shop.unsign()
    assert follower.run("--dry-run", "update", *source(server)).code == 25
    assert changes(before, follower.facts()) == {}


def test_sources_of_the_configuration(follower: Box, shop: Shop) -> None:
    assert "no source" in follower.run("update").complaint[0]
    follower.configure('[update]\nsources = ["shop"]\n')
    assert follower.run("update").code == 3
    follower.configure(f'[update]\nsources = ["{shop.place}"]\npolicy = "stage"\n')
    assert follower.json("update")["result"] == "staged"


def test_one_source_that_fails_does_not_keep_the_others(follower: Box, shop: Shop, tmp_path: Path) -> None:
    said = follower.run("--json", "update", "--source", str(tmp_path / "nowhere"), *source(shop))

    assert said.code == 24
    assert follower.marks() == {1: "NG", 2: "RT"}
    told = follower.json("status")["updates"]
    assert (told["last"]["result"], told["failures"]) == (Result.FAILED, 1)


def test_a_conflict_leaves_it_staged_and_is_tried_again(follower: Box, shop: Shop) -> None:
    update(follower, shop, "--policy", "stage")
    (follower.root / "etc/motd").write_text("mine\n")
    assert follower.run("update", *source(shop)).code == 41
    assert follower.marks()[2] == "s"
    (follower.root / "etc/motd").unlink()
    follower.configure('[staging]\nconflicts = "new"\n')
    assert update(follower, shop)["committed"]["number"] == 2
