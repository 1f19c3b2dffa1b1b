"""The commands that errors name are pasted: they work on the root that was named."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest

from snaptx.cli import main
from snaptx.errors import SnaptxError

HINTS = {
    "run: snaptx repair": "run: snaptx --sysroot '/mnt/a b' repair",
    "'snaptx apply' or 'snaptx run' stage": (
        "'snaptx --sysroot '/mnt/a b' apply' or 'snaptx --sysroot '/mnt/a b' run' stage"
    ),
    "see: snaptx app list web": "see: snaptx --sysroot '/mnt/a b' app list web",
    "snaptx needs room; end the snaptx that began it": "snaptx needs room; end the snaptx that began it",
    "see: snaptx list --help": "see: snaptx list --help",
    "sign without it: snaptx publish DIR": "sign without it: snaptx publish DIR",
}


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("before", [True, False])
def test_hints_name_the_root_that_was_named(
    hint: str, before: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who pastes them must not work on another one."""

    def fails(_args: Namespace) -> int:
        raise SnaptxError("no", hint=hint)

    monkeypatch.setattr(main.module_of("list"), "run", fails)
    root = ["--sysroot", "/mnt/a b"]
    assert main.main([*root, "list"] if before else ["list", *root]) == 1
    assert capsys.readouterr().err.splitlines()[1] == f"  hint: {HINTS[hint]}"
    main.main(["list", "--json", *root])
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == HINTS[hint]
    main.main(["list"])
    assert capsys.readouterr().err.splitlines()[1] == f"  hint: {hint}"
