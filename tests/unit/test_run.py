"""Programs are run to their end, and no longer than whoever asked for it lives."""

from __future__ import annotations

import os
import signal
import sys
from io import BytesIO
from pathlib import Path
from types import FrameType

import pytest

from snaptx.errors import CommandError, SnaptxError
from snaptx.run import find_program, run

HERE = str(Path(__file__).parents[2])


def test_output_and_status_come_back() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], ok=(0, 3))

    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_what_the_caller_adds_to_the_environment_is_there() -> None:
    done = run(["sh", "-c", "echo $EXTRA $LC_ALL"], env={"EXTRA": "more"})

    assert done.stdout == "more C.UTF-8\n"


def test_large_output_goes_to_a_file() -> None:
    sink = BytesIO()
    done = run(["sh", "-c", "head -c 1000000 /dev/zero"], output=sink)

    assert (done.stdout, len(sink.getvalue())) == ("", 1_000_000)


def test_failure_says_what_and_how_to_see_it_again() -> None:
    with pytest.raises(CommandError, match="sh ended with status 4: it broke") as caught:
        run(["sh", "-c", "echo first; echo it broke >&2; exit 4"])

    assert "sh -c 'echo first" in caught.value.hint


def test_failure_that_says_all_in_one_line_is_cut() -> None:
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo; head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 3"])

    assert caught.value.message == f"sh ended with status 3: {'x' * 500}"


def test_death_by_signal_is_a_failure() -> None:
    with pytest.raises(CommandError, match="-9"):
        run(["sh", "-c", "kill -9 $$"])


def test_missing_program_is_named() -> None:
    with pytest.raises(SnaptxError, match="no-such-program is not installed"):
        run(["no-such-program"])


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("grub-probe", "grub-common"),
        ("blkid", "util-linux"),
        ("busctl", "systemd"),
        ("efibootmgr", "efibootmgr"),
    ],
)
def test_missing_program_is_told_with_its_package(
    monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setattr("snaptx.run.SAFE_PATH", "/nonexistent")

    with pytest.raises(SnaptxError) as caught:
        find_program(program)

    assert caught.value.hint == f"install the package {package}"


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff")).touch()

    assert os.fsencode(run(["ls", tmp_path]).stdout) == b"a\xff\n"
    for name in (b"a\xff", "a b\u00e9\u20ac".encode()):
        run(["touch", tmp_path / os.fsdecode(name)])
        assert name in os.listdir(os.fsencode(tmp_path))
        assert os.fsencode(run(["echo", os.fsdecode(name)]).stdout) == name + b"\n"


def test_interrupted_caller_takes_the_program_along(tmp_path: Path) -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("flood", ["yes | head -c 20000000", "yes | head -c 100000000 | tr -d '\\n'"])
def test_a_check_that_floods_is_not_kept_in_memory(flood: str) -> None:
    script = (
        "import resource, sys\n"
        "from snaptx import checks\n"
        "checks.ask(['true'], {}, limit=60, kill_after=5)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(checks.ask(['sh', '-c', sys.argv[1]], {}, limit=60, kill_after=5))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    said = run([sys.executable, "-c", script, f"{flood}; echo; echo why; exit 3"], env={"PYTHONPATH": HERE})

    reason, kibibytes = said.stdout.splitlines()
    assert reason == "status 3: why"
    assert int(kibibytes) < 10_000
