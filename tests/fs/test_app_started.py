"""What an application inherits of whoever starts it: nothing that would make it another one."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

from tests.webapp import Web


def test_a_strict_umask_of_who_makes_or_starts_it_shuts_nobody_out(web: Web) -> None:
    def strict() -> None:
        os.umask(0o077)

    assert web.box.start("app", "create", "other", before=strict).wait().code == 0
    root = web.box.state / "apps/other/generations/1/root"
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    web.box.ok("app", "stop", "web")
    started = web.box.start("--json", "app", "start", "web", before=strict).wait()
    status = Path(f"/proc/{started.json['pid']}/status").read_text()
    assert "Umask:\t0022\n" in status


def test_what_is_started_ignores_no_signal_that_who_starts_it_does(web: Web) -> None:
    def deaf() -> None:
        for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)

    web.box.ok("app", "stop", "web")
    started = web.box.start("--json", "app", "start", "web", before=deaf).wait()
    status = Path(f"/proc/{started.json['pid']}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert [number for number in signal.valid_signals() if ignored >> (number - 1) & 1] == []


def test_whom_the_settings_let_may_connect_to_a_unix_socket(web: Web) -> None:
    place = web.place / "web.sock"
    for mode, wanted in ("", 0o666), ("0o660", 0o660):
        web.box.ok("app", "stop", "web")
        web.configure(listen=f'["{place}"]', check="", socket_mode=mode)
        web.box.ok("app", "start", "web")
        assert stat.S_IMODE(place.stat().st_mode) == wanted
