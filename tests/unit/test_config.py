"""What configuration is read from where, in which order, and what of it is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaptx.apps import settings
from snaptx.config import Config, Conflicts, Nested, files, load, merge
from snaptx.errors import ConfigError


def write(root: Path, name: str, text: str) -> None:
    """Write one configuration file."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_without_files_the_defaults_hold(tmp_path: Path) -> None:
    assert load(tmp_path) == Config()
    assert Config().staging.nested is Nested.REFUSE
    assert Config().staging.conflicts is Conflicts.FAIL


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/snaptx/snaptx.conf", "[boot]\ntries = 5\nmenu = 7\n[retention]\nkeep = 3\n")
    write(tmp_path, "etc/snaptx/snaptx.conf", "[boot]\ntries = 6\n")
    write(tmp_path, "etc/snaptx/snaptx.conf.d/20-b.conf", "[retention]\nkeep = 5\n")
    write(tmp_path, "etc/snaptx/snaptx.conf.d/10-a.conf", "[retention]\nkeep = 4\nkeep_days = 9\n")
    write(tmp_path, "etc/snaptx/snaptx.conf.d/30-c.bak", "[retention]\nkeep = 1\n")
    config = load(tmp_path)

    assert (config.boot.tries, config.boot.menu) == (6, 7)
    assert (config.retention.keep, config.retention.keep_days) == (5, 9)
    assert [path.name for path in files(tmp_path)] == [
        "snaptx.conf",
        "snaptx.conf",
        "10-a.conf",
        "20-b.conf",
    ]


def test_one_file_alone(tmp_path: Path) -> None:
    write(tmp_path, "etc/snaptx/snaptx.conf", "[boot]\ntries = 6\n")
    write(tmp_path, "mine", '[staging]\nnested = "share"\nignore = ["/a"]\n')
    config = load(tmp_path, tmp_path / "mine")

    assert config.boot.tries == Config().boot.tries
    assert (config.staging.nested, config.staging.ignore) == (Nested.SHARE, ("/a",))


def test_every_value_can_be_set_to_itself() -> None:
    tables: dict[str, dict[str, Any]] = {}
    for name, section in Config()._asdict().items():
        tables[name] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in section._asdict().items()
        }

    assert merge(Config(), tables, "here") == Config()


@pytest.mark.parametrize(
    ("tables", "message", "hint"),
    [
        ({"limit": {}}, r"\[limit\] is unknown", "limits"),
        ({"limits": 3}, "limits is no table", "as in: [limits]"),
        ({"limits": {"max_byte": 1}}, "max_byte is unknown", "max_bytes"),
        ({"limits": {"max_bytes": "1G"}}, "'1G' is not a whole number", "snaptx.conf"),
        ({"limits": {"max_bytes": True}}, "True is not a whole number", "snaptx.conf"),
        ({"limits": {"max_bytes": 1.5}}, "1.5 is not a whole number", "snaptx.conf"),
        ({"limits": {"max_bytes": -1}}, "-1 is not a whole number", "snaptx.conf"),
        ({"staging": {"nested": "keep"}}, "'keep' is not possible", "refuse, carry, share"),
        ({"staging": {"nested": []}}, "is not possible", "refuse, carry, share"),
        ({"shared": {"paths": "/home"}}, "is not a list of text", "snaptx.conf"),
        ({"shared": {"paths": [1]}}, "is not a list of text", "snaptx.conf"),
        ({"shared": {"paths": ["/home", "/a\0b"]}}, "has a NUL", "no path"),
        ({"live": {"paths": ["/a\0b"]}}, "has a NUL", "no path"),
        ({"update": {"motd": "/a\0b"}}, "has a NUL", "no path"),
        ({"boot": {"tries": 0}}, "too few", "1 or more"),
        ({"boot": {"menu": 0}}, "too few", "1 or more"),
        ({"health": {"timeout": 0}}, "too few", "1 or more"),
        *(
            ({"live": {"paths": ["/opt", path]}}, "no directory below the root", "/usr")
            for path in ("", "/", "usr", "/usr/", "//usr", "/usr/.", "/usr/../usr", "/..")
        ),
    ],
)
def test_what_can_not_be(tables: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        merge(Config(), tables, "here")

    assert "here" in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", [b"[limits", b"\xff", b"a = 1\na = 2\n", b"a = " + b"[" * 5000])
def test_files_that_can_not_be_read_are_named(tmp_path: Path, text: bytes) -> None:
    write(tmp_path, "etc/snaptx/snaptx.conf", "")
    (tmp_path / "etc/snaptx/snaptx.conf").write_bytes(text)

    with pytest.raises(ConfigError, match=r"snaptx\.conf"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="missing"):
        load(tmp_path, tmp_path / "missing")


def test_a_check_of_an_application_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "etc/snaptx/apps").mkdir(parents=True)
    (tmp_path / "etc/snaptx/apps/web.conf").write_text("check = ['/bin/true']\nwait = 0\n")

    with pytest.raises(ConfigError, match="wait: 0 is too few"):
        settings.load(tmp_path, "web")


@pytest.mark.parametrize("name", ["snaptx.conf", "snaptx.conf.d/a.conf", "apps/web.conf"])
@pytest.mark.parametrize(
    "put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("gone")]
)
def test_what_has_the_name_of_a_file_is_one(put: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    path = tmp_path / "etc/snaptx" / name
    path.parent.mkdir(parents=True)
    put(path)

    with pytest.raises(ConfigError, match="is no regular file"):
        settings.load(tmp_path, "web") if "web" in name else load(tmp_path)


def test_a_link_to_the_null_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "etc/snaptx/snaptx.conf.d").mkdir(parents=True)
    (tmp_path / "etc/snaptx/snaptx.conf.d/10-off.conf").symlink_to("/dev/null")

    assert load(tmp_path) == Config()
