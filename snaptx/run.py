"""The one door to other programs: argument lists, an explicit environment, no terminal.

``sh`` does the forking.  What it must be told for that is told here once: no
pseudo-terminal, no truncated messages, bytes that are not UTF-8 kept.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from snaptx import log
from snaptx.errors import CommandError, SnaptxError

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "busctl": "systemd",
    "cp": "coreutils",
    "grub-probe": "grub-common",
    "losetup": "mount (util-linux)",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "reboot": "systemd-sysv",
    "systemctl": "systemd",
    "timeout": "coreutils",
    "unshare": "util-linux",
}
"""Which distribution package (Debian's name) brings a program that is not called as its package is."""

LONGEST = 500
"""Characters of a program's last line that are told and recorded; some say all in one line."""

_BYTES = "latin-1"
"""An encoding with one byte for each character: ``sh`` refuses words that are not in its own."""

_OPTIONS = {
    "_bg": True,
    "_tty_out": False,
    "_bg_exc": False,
    "_return_cmd": True,
    "_truncate_exc": False,
    "_encoding": _BYTES,
    "_decode_errors": "surrogateescape",
    "_ok_code": range(256),
    "_no_pipe": True,
}

_END_ONLY = {"_out_bufsize": 1 << 16, "_err_bufsize": 1 << 16, "_internal_bufsize": 16}
"""So many bytes make a piece, and so many pieces are kept; else it is millions of lines, of any length."""


class Result(NamedTuple):
    """What a finished program left: its status and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """Return what it said last, in words if that is nothing."""
        return last_line(self.stderr or self.stdout)


def last_line(said: str) -> str:
    """Return the last line of what a program said, cut to what people read, in words if that is nothing."""
    lines = said.strip().splitlines()
    return lines[-1][:LONGEST] if lines else "it said nothing"


def find_program(name: str) -> str:
    """Return the absolute path of a program.

    Raises:
        SnaptxError: it is not installed; the hint names its package.
    """
    import shutil  # not for every start-up

    found = shutil.which(name, path=SAFE_PATH)
    if found is None:
        raise SnaptxError(f"{name} is not installed", hint=f"install the package {PACKAGES.get(name, name)}")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment programs run with: C locale, safe PATH, nothing inherited but TZ."""
    base = {"PATH": SAFE_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
    if "TZ" in os.environ:
        base["TZ"] = os.environ["TZ"]
    return base | dict(extra or {})


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    ok: Container[int] = (0,),
    output: BinaryIO | None = None,
    end_only: bool = False,
) -> Result:
    """Run a program to its end.

    ``env`` is added to the fixed environment, ``output`` takes stdout where it
    may be large; with ``end_only`` the last MiB of what it says is kept.

    Raises:
        SnaptxError: the program is not installed.
        CommandError: it ended with a status that is not in ``ok``.
    """
    import sh

    words = [find_program(str(argv[0])), *map(str, argv[1:])]
    log.debug("run", command=shlex.join(words))
    options: dict[str, Any] = {**_OPTIONS, "_env": environment(env), "_out": output}
    options |= _END_ONLY if end_only else {}
    given = [os.fsencode(word).decode(_BYTES) for word in words[1:]]
    done: Any = sh.Command(words[0])(*given, **options)
    try:
        done.wait()
    except sh.ErrorReturnCode as error:  # killed by a signal
        done = error
    except BaseException:
        _end(done)
        raise
    stdout = "" if output else done.stdout.decode("utf-8", "surrogateescape")
    result = Result(int(done.exit_code), stdout, done.stderr.decode("utf-8", "surrogateescape"))
    if result.status not in ok:
        raise _failure(words, result)
    return result


def _end(command: Any) -> None:
    """Take a program along when its caller is interrupted: nothing goes on writing behind its back."""
    import sh

    with suppress(ProcessLookupError, sh.ErrorReturnCode):
        command.kill()
        command.wait()


def _failure(words: Sequence[str], result: Result) -> CommandError:
    return CommandError(
        f"{Path(words[0]).name} ended with status {result.status}: {result.last_line}",
        hint=f"to see it again: {shlex.join(words)}",
    )
