"""Machines without systemd: what real crons do with hooks/cron, and what hooks/boot-once does in a boot.

Each runs in namespaces of its own: with a /run of its own, the kernel's word of
the boot as the test gives it, and a ``snaptx`` that works on a sandbox's root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from snaptx.checks import REQUIRED
from tests.boxes import Box, made
from tests.debs import make_root
from tests.minimal_root import eventually

ROOT = Path(__file__).parents[2]
ONCE = "/usr/lib/snaptx/boot-once"
PAM = ("auth", "account", "session")
MINUTE = 75
"""Seconds in which a line for every minute was read and run, on a busy machine."""

# What is mounted has to be there before anything runs: without it, this machine would be restarted.
STAGE = """
for name in cmdline uptime sys/kernel/random/boot_id; do
    mount --bind "$0/${name##*/}" "/proc/$name"
done
mount --bind "$0/run" /run
mount --bind "$0/bin" /usr/local/sbin
mount --bind "$0/class" /sys/class
if [ -d /etc/cron.d ]; then
    mount --bind "$0/cron.d" /etc/cron.d
    mount --bind "$0/pam" /etc/pam.d/cron
    mount --bind /dev/null /etc/crontab
    mount -t tmpfs tmpfs /var/spool/cron
fi
exec "$@"
"""


@dataclass
class Boot:
    """One boot of a machine whose root is the box's; ``place`` holds what the namespaces show."""

    box: Box
    place: Path
    number: int = 0

    def __post_init__(self) -> None:
        """Make the places, and the tools that say when they are called."""
        for name in ("run", "bin", "cron.d", "class/power_supply"):
            (self.place / name).mkdir(parents=True)
        (self.place / "pam").write_text("".join(f"{kind} sufficient pam_permit.so\n" for kind in PAM))
        self.tool("reboot", "")
        self.tool("sleep", "")
        command = f"exec {sys.executable} -m snaptx --sysroot {self.box.root}"
        self.tool("snaptx", f'export PYTHONPATH={ROOT}\n{command} "$@"')
        self.begin()

    def begin(self, *, trial: bool = True, up: int = 400) -> None:
        """Let the machine have started ``up`` seconds ago, once more."""
        self.number += 1
        (self.place / "boot_id").write_text(f"boot-{self.number}\n")
        (self.place / "cmdline").write_text(f"root=x {'snaptx.trial ' * trial}quiet\n")
        self.up(up)
        (self.place / "run/crond.reboot").unlink(missing_ok=True)

    def up(self, seconds: int) -> None:
        """Let the machine have been up for so long."""
        (self.place / "uptime").write_text(f"{seconds}.25 100.00\n")

    def tool(self, name: str, script: str) -> None:
        """Put a program in front of the machine's own."""
        path = self.place / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.place}/calls\n{script}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Return which of them were called, in order."""
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, *words: str) -> list[str]:
        """Return how to run something in this boot; it ends with whoever started it."""
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        return [*namespaces, "sh", "-e", "-c", STAGE, str(self.place), *words]

    def once(self) -> subprocess.CompletedProcess[str]:
        """Run the script as cron does."""
        words = self.command("/bin/sh", "-c", str(ROOT / "hooks/boot-once"))
        return subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": os.defpath})

    @contextmanager
    def daemon(self, *words: str) -> Iterator[None]:
        """Run a cron for the length of a with block."""
        log = (self.place / "log").open("a")
        with log, subprocess.Popen(self.command(*words), stdout=log, stderr=log) as process:
            try:
                yield
            finally:
                process.kill()

    def is_over(self) -> bool:
        """Return whether the script has done its work in this boot."""
        path = self.place / "run/snaptx/boot"
        return path.exists() and path.read_text() == (self.place / "boot_id").read_text()


ARRIVED = ["snaptx --quiet repair --boot", "snaptx --quiet confirm"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root with a shell, for health checks."""
    root = tmp_path_factory.mktemp("cron") / "root"
    root.mkdir()
    make_root(root)
    return root


@pytest.fixture
def boot(programs: Path, tmp_path: Path) -> Iterator[Boot]:
    """Give a machine that has booted generation 2, which is on trial."""
    payload = tmp_path / "payload"
    payload.mkdir()
    (payload / "two").write_text("2")
    place = tmp_path / "boot"
    place.mkdir()
    with made(source=programs) as box:
        box.ok("apply", "--commit", str(payload))
        box.reboot()
        yield Boot(box, place)


def _check(box: Box, script: str) -> None:
    path = box.root / "etc/snaptx/hooks.d" / REQUIRED / "check"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _verdicts(box: Box) -> list[str]:
    return [record["verdict"] for record in box.audit() if record["verb"] == "confirm"]


def test_cron_confirms_a_good_update_once_in_a_boot(boot: Boot) -> None:
    cron = shutil.which("cron", path=f"{os.defpath}:/usr/sbin:/sbin")
    assert cron, "cron is missing; run: make venv"
    table = (ROOT / "hooks/cron").read_text()
    (boot.place / "cron.d/snaptx").write_text(table.replace(ONCE, str(ROOT / "hooks/boot-once")))
    with boot.daemon(cron, "-f", "-L", "15"):
        eventually(boot.is_over, 30)
    assert boot.calls == ARRIVED
    assert _verdicts(boot.box) == ["good"]
    assert boot.box.marks() == {1: "G", 2: "NRG"}
    (boot.place / "run/crond.reboot").unlink()  # a cron that does not tell its own restart from the machine's
    with boot.daemon(cron, "-f", "-L", "15"):
        eventually((boot.place / "run/crond.reboot").exists, 30)
    assert boot.once().returncode == 0
    assert boot.calls == ARRIVED


def test_cron_that_knows_no_boot_confirms_a_good_update(boot: Boot) -> None:
    """busybox's: a table without users, and without @reboot."""
    (line,) = [line for line in (ROOT / "hooks/cron").read_text().splitlines() if line.startswith("*/5 ")]
    tables = boot.place / "tables"
    tables.mkdir()
    line = line.replace("*/5", "*").replace(" root ", " ").replace(ONCE, str(ROOT / "hooks/boot-once"))
    (tables / "root").write_text(f"{line}\n")
    with boot.daemon("busybox", "crond", "-f", "-c", str(tables)):
        eventually(boot.is_over, MINUTE)

    assert boot.calls == ARRIVED
    assert boot.box.marks() == {1: "G", 2: "NRG"}


def test_users_can_not_lock_the_mark_and_have_a_good_update_given_up(boot: Boot) -> None:
    boot.tool("snaptx", f"umask >{boot.place}/umask")
    boot.once()

    assert boot.is_over()
    modes = {name: (boot.place / name).stat().st_mode & 0o777 for name in ("run/snaptx", "run/snaptx/boot")}
    assert modes == {"run/snaptx": 0o755, "run/snaptx/boot": 0o600}
    assert (boot.place / "umask").read_text() == "0022\n"


def test_bad_update_is_given_up(boot: Boot) -> None:
    _check(boot.box, "exit 1")
    said = boot.once()

    assert _verdicts(boot.box) == ["bad"]
    assert boot.calls == [*ARRIVED, "sleep 10", "reboot ", "sleep 120", "reboot -f"]
    assert "snaptx confirm ended with status 32: restarting" in said.stderr
    assert boot.box.boot().default == 1
    boot.box.reboot()
    boot.begin(trial=False)
    assert (boot.once().returncode, boot.calls[-2:]) == (0, ARRIVED)


def test_generation_without_a_snaptx_that_works_is_given_up(boot: Boot) -> None:
    (boot.place / "bin/snaptx").write_text("#!/nowhere/python3\n")

    assert "ended with status 127: restarting" in boot.once().stderr
    assert "reboot " in boot.calls


def test_bad_generation_that_is_not_on_trial_is_told(boot: Boot) -> None:
    _check(boot.box, "exit 1")
    boot.begin(trial=False)

    assert "generation 2 failed its health checks" in boot.once().stderr
    assert boot.calls == ARRIVED


def test_services_are_given_time_to_come_up(boot: Boot) -> None:
    boot.begin(up=20)
    boot.once()

    assert boot.calls == [ARRIVED[0], "sleep 160", ARRIVED[1]]


def test_another_snaptx_is_waited_for_but_not_for_ever(boot: Boot) -> None:
    sound = (boot.place / "bin/snaptx").read_text()
    boot.tool("snaptx", "exit 4")
    assert (boot.once().returncode, boot.calls) == (0, ARRIVED[:1])
    assert not boot.is_over()
    boot.up(900)
    assert "900 seconds are over: restarting" in boot.once().stderr
    assert "reboot " in boot.calls
    (boot.place / "bin/snaptx").write_text(sound)
    boot.once()
    assert _verdicts(boot.box) == ["good"]


def test_machine_without_flock_is_confirmed_as_well(boot: Boot) -> None:
    boot.tool("flock", "exit 127")
    boot.once()

    assert boot.calls == ["flock -n 9", *ARRIVED]
    assert _verdicts(boot.box) == ["good"]


def test_generation_that_hangs_is_given_up(boot: Boot) -> None:
    """By the next call, while the first one still waits for an answer."""
    boot.tool("snaptx", f"exec cat {boot.place}/hangs")
    os.mkfifo(boot.place / "hangs")
    with boot.daemon(str(ROOT / "hooks/boot-once")):
        eventually(lambda: bool(boot.calls), 30)
        assert (boot.once().stderr, "reboot " in boot.calls) == ("", False)
        boot.up(900)
        assert "900 seconds are over: restarting" in boot.once().stderr
        assert "reboot " in boot.calls


def test_machine_with_systemd_is_left_to_its_units(boot: Boot) -> None:
    (boot.place / "run/systemd/system").mkdir(parents=True)

    assert (boot.once().returncode, boot.calls) == (0, [])


MAINS = {"type": "Mains", "online": "1"}
PORT = {"type": "USB", "online": "0"}
BATTERY = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("supplies", "updates"),
    [
        pytest.param({}, True, id="a server says nothing"),
        pytest.param({"AC": MAINS, "BAT0": BATTERY | {"status": "Charging"}}, True, id="plugged in"),
        pytest.param({"AC": MAINS, "BAT0": BATTERY}, True, id="plugged in, and too weak to charge"),
        pytest.param({"BAT0": BATTERY | {"status": "Full"}}, True, id="a battery that is not used"),
        pytest.param({"AC": PORT, "mouse": BATTERY | {"scope": "Device"}}, True, id="only the mouse"),
        pytest.param({"AC": MAINS | {"online": "0"}, "BAT0": BATTERY, "port": PORT}, False, id="unplugged"),
        pytest.param({"AC": PORT, "BAT0": BATTERY, "BAT1": {"type": "Battery"}}, False, id="one of two"),
    ],
)
def test_nothing_is_updated_on_battery(
    boot: Boot, supplies: dict[str, dict[str, str]], *, updates: bool
) -> None:
    for name, values in supplies.items():
        place = boot.place / "class/power_supply" / name
        place.mkdir(parents=True)
        for key, value in values.items():
            (place / key).write_text(f"{value}\n")
    boot.tool("snaptx", "")
    subprocess.run(boot.command("sh", "-c", _update()), check=False)

    assert boot.calls == ["snaptx update --quiet --unattended --splay 1800"] * updates


def _update() -> str:
    """Return the command of the table that updates."""
    (line,) = [line for line in (ROOT / "hooks/cron").read_text().splitlines() if " update " in line]
    return line.split(" root ", 1)[1].replace("/usr/lib/snaptx", str(ROOT / "hooks"))


def test_every_boot_is_another(boot: Boot) -> None:
    """Also where /run is kept on a disk."""
    boot.once()
    boot.begin(trial=False)
    boot.once()

    assert boot.calls == [*ARRIVED, *ARRIVED]
