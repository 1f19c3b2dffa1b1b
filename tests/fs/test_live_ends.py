"""What ends a live switch, and what is kept of a generation that was live."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.boxes import made


def test_restart_ends_it(programs: Path) -> None:
    (programs / "usr/who").write_text("1\n")
    with made(source=programs) as box:
        box.ok("run", "--", "sh", "-c", "mkdir -p /opt; echo 2 > /usr/who")
        assert "/opt is absent in the running root" in box.refuses(61, "live", "2")
        box.ok("live", "2", "--force")
        assert (box.root / "usr/who").read_text() == "2\n"
        box.reboot()
        assert (box.root / "usr/who").read_text() == "1\n"
        assert box.json("status")["live"] == ""
        assert box.json("live")["live"] == {}


def test_generation_whose_files_are_in_use_is_not_removed(programs: Path) -> None:
    with made(source=programs) as box:
        for number in ("2", "3"):
            box.ok("run", "--base", "1", "--", "sh", "-c", f"echo {number} > /usr/who")
        box.ok("live", "2")
        with subprocess.Popen([box.root / "usr/bin/busybox", "sleep", "60"]) as left:
            box.ok("live", "3")
            assert f"busybox ({left.pid})" in box.refuses(52, "abort", "2")
            uses = [
                use
                for group in box.json("ps", "2")
                for process in group["processes"]
                for use in process["uses"]
            ]
            assert [use["generation"] for use in uses if use["how"] == "executable"] == [2]
            left.kill()
        box.ok("abort", "2")
