"""The entry file: what GRUB runs, what snaptx reads back, and what nobody believes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.bootloader import entryfile, quoting
from snaptx.errors import BootError, FormatError
from snaptx.model import BootEntry, BootState


def state(*numbers: int, title: str = "title") -> BootState:
    """Make a state with an entry for each number, the first being the default."""
    entries = tuple(
        BootEntry(
            number,
            f"{number}: {title}",
            f"/@/{number}/vmlinuz",
            f"/@/{number}/initrd",
            f"root=UUID=1 n={number}",
        )
        for number in numbers
    )
    return BootState(numbers[0], numbers[-1], "0123abcd", 2, False, entries)


def test_what_is_written_is_read_back() -> None:
    wanted = state(3, 2, 1)

    assert entryfile.parse(entryfile.render(wanted, "uuid")) == wanted


def test_microcode_goes_before_the_initrd() -> None:
    wanted = state(3, 2)
    first = wanted.entries[0]._replace(early=("/@/3/intel-ucode.img", "/@/3/amd-ucode.img"))
    text = entryfile.render(wanted._replace(entries=(first, *wanted.entries[1:])), "uuid")

    assert "        initrd '/@/3/intel-ucode.img' '/@/3/amd-ucode.img' '/@/3/initrd'\n" in text
    assert "snaptx_there '/@/3/vmlinuz' '/@/3/intel-ucode.img' '/@/3/amd-ucode.img' '/@/3/initrd';" in text
    assert entryfile.parse(text).entries == (first, *wanted.entries[1:])


@pytest.mark.parametrize("early", ['"x"', "[1]", "{}", "null"])
def test_early_images_that_are_none_are_damage(early: str) -> None:
    whole = entryfile.render(state(1), "uuid").partition("# sha256 ")[0]
    text = whole.replace('"early": []', f'"early": {early}')
    assert early in text

    with pytest.raises(BootError):
        entryfile.parse(f"{text}# sha256 {hashlib.sha256(text.encode()).hexdigest()}\n")


@given(st.text(max_size=80))
def test_any_title_is_one_word_for_grub(title: str) -> None:
    word = quoting.quote(title)

    assert "\n" not in word
    pieces = word.removeprefix("'").removesuffix("'").split("'\\''")
    assert all("'" not in piece for piece in pieces)
    assert entryfile.parse(entryfile.render(state(1, title=title), "uuid")).entries[0].title == f"1: {title}"


def test_grub_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "snaptx.cfg"
    path.write_text(entryfile.render(state(*range(9, 0, -1), title='it\'s $HOME; "x" `ls` {}'), "uuid"))

    subprocess.run(["grub-script-check", path], check=True)


def test_beyond_five_entries_a_submenu_begins() -> None:
    text = entryfile.render(state(*range(9, 0, -1)), "uuid")
    before, _, after = text.partition("submenu ")

    assert before.count("menuentry ") == entryfile.SUBMENU_AFTER
    assert after.count("menuentry ") == 9 - entryfile.SUBMENU_AFTER


def test_a_kernel_is_loaded_with_its_initrd_or_not_at_all() -> None:
    blocks = entryfile.render(state(2, 1), "uuid").split("menuentry ")[1:]

    for number, block in zip((2, 1), blocks, strict=True):
        there = f"if snaptx_there '/@/{number}/vmlinuz' '/@/{number}/initrd'; then"
        before, _, after = block.partition(there)
        assert "linux" not in before.partition("\n")[2]
        assert after.index("linux") < after.index("initrd '") < after.index("fi\n")
        assert ("if snaptx_whole; then" in before) == (number == 2)


def test_a_file_cut_anywhere_is_refused() -> None:
    text = entryfile.render(state(2, 1), "uuid")

    for length in range(len(text)):
        with pytest.raises(BootError):
            entryfile.parse(text[:length])


@pytest.mark.parametrize(
    ("old", "new"), [("snaptx-2", "snaptx-1"), ('"default": 2', '"default": 1'), ("/@/2/", "/@/1/")]
)
def test_an_altered_file_is_refused(old: str, new: str) -> None:
    text = entryfile.render(state(2, 1), "uuid")

    with pytest.raises(BootError):
        entryfile.parse(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('# state {"', '# state "'),
        ('"default": ', '"another": '),
        ('"default": 2', '"default": "2"'),
        ('"format": 1', '"format": "1"'),
        ('"entries": [', '"entries": [{}, '),
        ('"entries": [', '"entries": 7, "others": ['),
        ('"number": 2', '"number": null'),
    ],
)
def test_a_state_that_is_none_is_damage_whatever_its_digest(old: str, new: str) -> None:
    body = entryfile.render(state(2, 1), "uuid").rpartition("# sha256 ")[0].replace(old, new, 1)
    digest = hashlib.sha256(body.encode()).hexdigest()

    with pytest.raises(BootError) as caught:
        entryfile.parse(f"{body}# sha256 {digest}\n")
    assert caught.value.hint


def test_a_newer_format_is_refused_with_an_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entryfile, "FORMAT", 2)
    text = entryfile.render(state(1), "uuid")
    monkeypatch.setattr(entryfile, "FORMAT", 1)

    with pytest.raises(FormatError) as caught:
        entryfile.parse(text)
    assert caught.value.hint


def test_the_static_configuration_passes_grubs_own_checker() -> None:
    subprocess.run(["grub-script-check", Path(__file__).parents[2] / "grub/grub.cfg"], check=True)


@pytest.mark.parametrize("char", "\x0b\x0c\x1c\x85\u2028")
def test_state_is_in_a_line_as_grub_has_lines(char: str) -> None:
    body = f"# made by{char}# state {{}}\n" + entryfile.render(state(1), "uuid").rpartition("# sha256 ")[0]
    digest = hashlib.sha256(body.encode()).hexdigest()

    assert entryfile.parse(f"{body}# sha256 {digest}\n") == state(1)
