"""The recording disk: what is written is logged, what is told to fail fails, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash import scratch as scratches
from tests.crash.logfile import SECTOR, Flag, LogError, LogWriter, read_entries
from tests.crash.replay import Log, Point, Replayer
from tests.crash.scratch import scratch
from tests.minimal_root import eventually

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.root

PREAMBLE = """
import errno, json, os, subprocess, sys
from itertools import pairwise
from pathlib import Path
from tests.crash.loop import leave_for_private_mounts, loop_device, mounted
from tests.crash.recorder import Disk, Recorder
place = Path(sys.argv[1])
image = place / "image"
with image.open("wb") as file:
    file.truncate(512 << 20)
subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
subprocess.run(["cp", "--sparse=always", image, place / "base"], check=True)
leave_for_private_mounts()
recorder = Recorder(place / "fuse", (Disk("disk", image, place / "log"),))
"""

MANY = """
with recorder, loop_device(recorder.file("disk")) as device:
    recorder.mark("begin")
    with mounted(device, place / "mount") as top:
        for number in range(300):
            (top / f"{number}").write_bytes(os.urandom(9000))
        os.sync()
        (top / "7").unlink()
    recorder.mark("end")
    print(json.dumps(dict(recorder.counts())))
"""

FAILING = """
def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "fine"

with recorder, open(recorder.file("disk"), "r+b", buffering=0) as disk:
    def write():
        disk.seek(4096)
        disk.write(b"x" * 4096)
    def flush():
        os.fsync(disk.fileno())
    said = [attempt(write)]
    recorder.fail("write", 2)
    said += [attempt(write), attempt(write), attempt(write)]
    recorder.fail("flush", 1, errno.ENOSPC, lasting=True)
    said += [attempt(flush), attempt(flush)]
    recorder.mend()
    said += [attempt(flush)]
print(json.dumps(said))
"""

COPIED = """
import threading
HIGH, LOW = 300 << 20, 200 << 20
done = threading.Event()

def count(disk):
    number = 0
    while not done.is_set():
        number += 1
        for offset in (HIGH, LOW):
            os.pwrite(disk.fileno(), number.to_bytes(8, "big").ljust(512), offset)
            os.fsync(disk.fileno())

with recorder, open(recorder.file("disk"), "r+b", buffering=0) as disk:
    for offset in range(LOW + (1 << 20), HIGH, 1 << 20):
        os.pwrite(disk.fileno(), b"x" * 4096, offset)
    writer = threading.Thread(target=count, args=(disk,))
    writer.start()
    pairs = []
    for _ in range(20):
        recorder.copy("disk", place / "copy")
        with (place / "copy").open("rb") as copy:
            pairs.append([int.from_bytes(os.pread(copy.fileno(), 8, at), "big") for at in (HIGH, LOW)])
    done.set()
    writer.join()
print(json.dumps(pairs))
"""

WAITING = """
with recorder, loop_device(recorder.file("disk")) as device, mounted(device, place / "mount") as top:
    (top / "file").write_bytes(b"x" * 100000)
    print(recorder.pid, device, flush=True)
    sys.stdin.read()
"""


def _run(script: str, place: Path) -> str:
    command = [sys.executable, "-c", PREAMBLE + script, str(place)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_log_makes_the_same_image() -> None:
    with scratch() as place:
        counts = json.loads(_run(MANY, place))
        log = Log(place / "log")
        replayer = Replayer(place / "base", log, place / "trunk", place / "work")
        made = replayer.make(Point(len(log.entries)))
        replayer.close()

        assert subprocess.run(["cmp", made, place / "image"], check=False).returncode == 0
        assert counts["write"] == sum(1 for entry in log.entries if entry.is_change)
        assert counts["flush"] == len(log.flushes) > 0
        assert [entry.text for entry in log.entries if entry.flags & Flag.MARK] == ["begin", "end"]


def test_the_first_superblock_is_written_between_flushes() -> None:
    """Whoever does not see flushes finds everything durable.  Data of other files may be on its way."""
    with scratch() as place:
        _run(MANY, place)
        log = Log(place / "log")
        supers = [n for n, entry in enumerate(log.entries) if entry.is_write and entry.offset == 65536]

        assert supers
        for before, number in pairwise([0, *supers]):
            assert any(before <= flush < number for flush in log.flushes)
            assert 65536 in [entry.offset for entry in log.pending(number + 1)]


def test_fails_as_told() -> None:
    with scratch() as place:
        said = json.loads(_run(FAILING, place))

        assert said == ["fine", "fine", "EIO", "fine", "ENOSPC", "ENOSPC", "fine"]
        writes = [entry for entry in read_entries(place / "log") if entry.is_write]
        assert len(writes) == 3


def test_a_copy_is_of_one_instant() -> None:
    """GRUB takes the newest superblock, wherever it is: what it refers to has to be of the same age."""
    with scratch() as place:
        pairs = json.loads(_run(COPIED, place))

    assert len({high for high, _ in pairs}) > 1, "nothing was written meanwhile"
    assert {high - low for high, low in pairs} <= {0, 1}


@pytest.mark.parametrize("victim", ["starter", "server", "both"])
def test_nothing_is_left_when_it_is_killed(victim: str) -> None:
    with scratch() as place:
        command = [sys.executable, "-c", PREAMBLE + WAITING, str(place)]
        starter = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert starter.stdin is not None
        assert starter.stdout is not None
        server, device = starter.stdout.readline().split()
        for pid in {"starter": [starter.pid], "server": [int(server)]}.get(
            victim, [int(server), starter.pid]
        ):
            os.kill(pid, signal.SIGKILL)
        starter.stdin.close()
        starter.wait(30)
        starter.stdout.close()

        eventually(lambda: not Path("/proc", server, "exe").exists())
        eventually(lambda: not Path("/sys/block", Path(device).name, "loop").exists())
        assert str(place) not in Path("/proc/self/mountinfo").read_text()


def test_the_next_run_removes_what_a_killed_one_left() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = scratches.home() / f"{scratches.PREFIX}{gone.pid}-left"
    left.mkdir()
    with scratch() as place:
        assert not left.exists()
        assert place.exists()
    assert not place.exists()


def _log(path: Path) -> bytes:
    writer = LogWriter(path)
    writer.mark(1, "begin")
    writer.write(2, 4096, b"a" * 4096)
    writer.flush(3)
    writer.discard(4, 8192, 4096)
    writer.close()
    return path.read_bytes()


def test_the_format_is_that_of_dm_log_writes(tmp_path: Path) -> None:
    data = _log(tmp_path / "log")

    assert struct.unpack_from("<QQQI", data) == (0x6A736677736872, 1, 4, 512)
    assert struct.unpack_from("<QQQQ", data, 512) == (0, 0, 8, 5)
    assert data[512 + 32 :].startswith(b"begin\0")
    assert struct.unpack_from("<QQQQ", data, 1024) == (8, 8, 0, 0)
    assert data[1536 : 1536 + 4096] == b"a" * 4096
    assert struct.unpack_from("<QQQQ", data, 1536 + 4096) == (0, 0, 1, 0)
    assert struct.unpack_from("<QQQQ", data, 2048 + 4096) == (16, 8, 4, 0)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:100], "too short"),
        (lambda data: b"\0" * len(data), "is not a log"),
        (lambda data: data[:8] + struct.pack("<Q", 2) + data[16:], "version 2"),
        (lambda data: data[:16] + bytes(8) + data[24:], "not closed"),
        (lambda data: data[:-SECTOR], "3 of 4 entries"),
        (lambda data: data[:2000], "in the data of entry 1"),
        (lambda data: data[: 512 + 16] + b"\xff" * 8 + data[512 + 24 :], "damaged at byte 512"),
    ],
)
def test_a_bad_log_is_refused(tmp_path: Path, damage: object, complaint: str) -> None:
    path = tmp_path / "log"
    data = _log(path)
    assert callable(damage)
    path.write_bytes(damage(data))

    with pytest.raises(LogError, match=complaint):
        read_entries(path)


def test_keeps_up() -> None:
    """10,000 files, 100 MB, in seconds."""
    script = MANY.replace("range(300)", "range(10000)").replace("9000", "10000")
    with scratch() as place:
        begun = time.monotonic()
        _run(script, place)

        assert time.monotonic() - begun < 60
