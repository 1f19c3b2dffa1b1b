"""``--dry-run`` says of an act that is refused what the act itself says, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx.machine import Machine
from tests.boxes import Box, made


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
    "words", ["create new", "switch staged", "switch staged 2", "stop bare", "remove bare", "stop --all"]
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
