"""The benchmark on real ZFS, in the guest that has it.

    python -m tests.bench.guest [--only apply,changed,new,commit] [--rounds 3] [--files 10000]

The guest's processor is an emulated one, so times say little and ratios something:
both sides run there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.report import KEPT
from tests.vm import zfsguest
from tests.vm.guestrun import LONG, PLACE, ROOT, SENT
from tests.vm.run import MachineError, Run

TABLE = KEPT.with_name("bench-zfs.json")
THERE = "/srv/bench.json"
ROUNDS = ("--rounds", "3")
"""What takes a second elsewhere takes half a minute there."""


def race(guest: Run, options: list[str]) -> int:
    """Run the benchmark in the guest, show what it says, keep its table; return its status."""
    before = {THERE: TABLE} if TABLE.exists() else {}
    guest.put({**{f"{PLACE}/{name}": ROOT / name for name in SENT if (ROOT / name).exists()}, **before})
    command = ["python3", "-m", "tests.bench", "--storage", "zfs", "--json", THERE, *ROUNDS, *options]
    ended = guest.shell(["env", "-C", PLACE, *command], LONG)
    print(ended.output)
    if not ended.status:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_bytes(guest.get(THERE))
    return ended.status


def main() -> int:
    """Boot the guest, run the benchmark there, and return its exit status."""
    try:
        with tempfile.TemporaryDirectory() as place, zfsguest.running(Path(place)) as guest:
            return race(guest, sys.argv[1:])
    except MachineError as error:
        print(f"the guest failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
