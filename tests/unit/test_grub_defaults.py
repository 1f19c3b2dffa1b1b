"""/etc/default/grub is understood as a shell understands it, or not at all."""

from __future__ import annotations

import subprocess

import pytest

from snaptx.bootloader import defaults

SAME_AS_A_SHELL = [
    "A=1",
    "  A=1  # why",
    "export A=1",
    "A=",
    "A= # nothing",
    "A=a#b",
    "A=1\nA=2",
    "A='a \"b\" $c \\'",
    'A="a b  c"',
    r'A="\$x \"y\" \\ \z"',
    r"A=a\ b\$c",
    "A=a'b c'\"d e\"f",
    "B=x\nA=$B-${B}y",
    "B=x\nA='$B'",
    "A=\"$NEVER_SET quiet\"",
    "A=one\nA=\"$A two\"",
    "A=\"one \\\n  two\"",
    "A=o\\\nne",
    "A=x-$B-y",
    "A=ä",
    "# A=1",
]  # fmt: skip

LEFT_OUT = [
    "A=`true`",
    "A=$(true)",
    'A="$(true)"',
    "A=${B:-x}",
    "A=$1",
    "A=b; true",
    "A=b true",
    "A=(b c)",
    "A=b|true",
    "A='b",
    'A="b',
    "A=1\nA=$(true)",
    "B=$(true)\nA=$B",
]


@pytest.mark.parametrize("text", SAME_AS_A_SHELL)
def test_what_is_read_is_what_a_shell_reads(text: str) -> None:
    script = f'{text}\nprintf "%s" "${{A-unset}}"'
    shell = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True)

    assert defaults.parse(text).get("A", "unset") == shell.stdout


@pytest.mark.parametrize("text", LEFT_OUT)
def test_what_a_shell_has_to_work_out_is_not_set(text: str) -> None:
    assert "A" not in defaults.parse(text)


@pytest.mark.parametrize("text", ["A=1\nA+=' b c'", "A+=1", "B=x\nA=1\nA+=$B", 'A=1\nexport A+=" x" # why'])
def test_what_is_added_is_what_bash_adds(text: str) -> None:
    script = f'{text}\nprintf "%s" "$A"'
    shell = subprocess.run(["bash", "-c", script], env={}, capture_output=True, text=True, check=True)

    assert defaults.parse(text)["A"] == shell.stdout


@pytest.mark.parametrize("text", ["A=$(true)\nA+=x", "A=x\nA+=$(true)"])
def test_what_is_added_to_or_by_a_command_is_not_set(text: str) -> None:
    assert "A" not in defaults.parse(text)
