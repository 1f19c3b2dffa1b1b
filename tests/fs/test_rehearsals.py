"""``--dry-run`` says of an act that is refused what the act itself says, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx.machine import Machine
from tests.boxes import Box, made
from tests.webapp import Web


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give a sandbox with applications: ``staged`` has something to switch to, ``held`` a pin."""
    tree = tmp_path_factory.mktemp("payload")
    (tree / "file").touch()
    with made() as one:
        for name in ("bare", "broken", "held", "staged"):
            one.ok("app", "create", name)
        one.ok("app", "apply", "staged", str(tree))
        record = one.state / "apps/held/generations/1/generation.json"
        record.write_text(record.read_text().replace('"pinned": false', '"pinned": true'))
        settings = one.root / "etc/snaptx/apps/broken.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text("start = 5\n")
        yield one


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "app create ../x"),
        (52, "app create bare"),
        (51, "app switch bare"),
        (51, "app switch bare 99"),
        (52, "app switch bare 1"),
        (3, "app switch broken"),
        (51, "app rollback bare"),
        (51, "app rollback bare 99"),
        (52, "app rollback staged 2"),
        (20, "app apply bare /nonexistent"),
        (2, "app apply bare /etc/passwd --sha256 00"),
        (31, "app start bare"),
        (3, "app start broken"),
        (51, "app stop none"),
        (52, "app remove held"),
        (52, "rollback 1"),
        (52, "rollback 1 --as-used"),
        (51, "rollback 9"),
    ],
)
def test_what_the_act_refuses_its_rehearsal_refuses(kept: Box, code: int, words: str) -> None:
    told = kept.refuses(code, "--dry-run", *words.split())
    said = kept.run(*words.split())

    assert (said.code, "\n".join(said.complaint)) == (code, told)


@pytest.mark.parametrize(
    "words", ["create new", "switch staged", "switch staged 2", "remove bare", "stop --all"]
)
def test_what_would_be_done_is_told_and_not_done(kept: Box, words: str) -> None:
    before = kept.facts()

    assert f"would {words.split()[0]}" in kept.ok("--dry-run", "app", *words.split())
    assert kept.facts() == before


@pytest.mark.parametrize(
    "words", ["confirm", "confirm 1", "unpin 1", "live --off", "live 1", "init", "init --convert"]
)
def test_where_nothing_is_to_be_done_the_rehearsal_says_so(kept: Box, words: str) -> None:
    given = (*words.split(), "--unchanged-exit-77")
    told, as_json = kept.run("--dry-run", *given), kept.run("--json", "--dry-run", *given)
    said = kept.run(*given)

    assert (told.code, told.out) == (said.code, said.out)
    assert said.code == 77
    assert (as_json.code, as_json.json.keys()) == (said.code, kept.run("--json", *given).json.keys())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("confirm 1 --bad slow", "would judge generation 1 bad, which is good\n"),
        ("pin 1", "generation 1 would be pinned\n"),
    ],
)
def test_what_would_be_done_is_told_in_full(kept: Box, words: str, told: str) -> None:
    before = kept.facts()

    assert kept.ok("--dry-run", *words.split()) == told
    assert kept.facts() == before


def test_what_follows_the_staging_is_told(kept: Box, tmp_path: Path) -> None:
    payload = str(tmp_path)

    assert kept.ok("--dry-run", "apply", payload).endswith(" over generation 1\n")
    assert kept.ok("--dry-run", "apply", payload, "--commit").endswith(" over generation 1 and commit it\n")
    both = kept.ok("--dry-run", "apply", payload, "--live", "--commit")
    assert both.endswith(" over generation 1 and commit it and make it live\n")
    told = "would run in a copy of generation 1 and commit it: true\n"
    assert kept.ok("--dry-run", "run", "--commit", "--", "true") == told


def test_a_boot_loader_that_an_earlier_init_left_alone_is_told(kept: Box, mocker: MockerFixture) -> None:
    installer = mocker.Mock(steps=("install GRUB",))
    installer.is_installed.return_value = False
    mocker.patch.object(Machine, "installer", installer)

    assert kept.ok("--dry-run", "init") == "would:\n  - install GRUB\n"
    assert "managed by snaptx already" in kept.ok("--dry-run", "init", "--no-boot-loader")
    assert kept.ok("init") == "the machine starts by snaptx's menu from now on\n"


@pytest.mark.parametrize("words", ["unpin 1", "confirm", "confirm 1", "live --off", "live 1", "repair"])
def test_what_has_nothing_to_do_says_so_before(kept: Box, words: str) -> None:
    told = kept.run("--dry-run", *words.split(), "--unchanged-exit-77")
    said = kept.run(*words.split(), "--unchanged-exit-77")

    assert (told, told.code) == (said, 77)


def test_what_prune_leaves_alone_it_leaves_before(kept: Box) -> None:
    told = kept.run("--dry-run", "prune", "--unchanged-exit-77")

    assert (told.code, "would remove: nothing" in told.out) == (77, True)


def test_what_is_pinned_need_not_be(box: Box) -> None:
    assert "would be pinned" in box.ok("--dry-run", "pin", "1")
    box.ok("pin", "1")

    assert box.ok("--dry-run", "pin", "1") == "generation 1 is pinned\n"
    assert box.run("--dry-run", "pin", "1", "--unchanged-exit-77").code == 77
    assert box.json("--dry-run", "pin", "1")["changed"] is False
    assert "would be not pinned" in box.ok("--dry-run", "unpin", "1")


def test_what_is_good_can_still_be_judged_bad(kept: Box) -> None:
    assert "would judge" in kept.ok("--dry-run", "confirm", "1", "--bad", "slow")


def test_what_does_not_run_need_not_be_stopped(kept: Box) -> None:
    assert kept.ok("--dry-run", "app", "stop", "bare") == kept.ok("app", "stop", "bare")


def test_what_runs_need_not_be_started(web: Web) -> None:
    running = web.box.ok("--dry-run", "app", "start", "web")

    assert running == web.box.ok("app", "start", "web")
    assert "would stop web" in web.box.ok("--dry-run", "app", "stop", "web")
    web.box.ok("app", "stop", "web")
    assert "would start web" in web.box.ok("--dry-run", "app", "start", "web")


def test_what_is_shared_need_not_be_converted(box: Box) -> None:
    words = ("init", "--convert", "--unchanged-exit-77")

    assert box.run("--dry-run", *words) == box.run(*words)
