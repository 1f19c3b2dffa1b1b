"""Judges the cuts of a recording that standard input names: ``python -m tests.crash.worker DIRECTORY CHECK``.

A line names some cuts; the answer is a line of JSON with what is wrong at each.  It is guarded (see helper).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.crash.helper import guarded
from tests.crash.replay import parse_cut
from tests.crash.rig import Task, opened


def _judge(place: Path, task: Task) -> int:
    with opened(task, place) as recording:
        for line in sys.stdin:
            print(json.dumps([recording.judge(parse_cut(cut)) for cut in line.split()]), flush=True)
    return 0


if __name__ == "__main__":
    directory, check = sys.argv[1:]
    sys.exit(guarded(lambda place: _judge(place, Task(Path(directory), int(check)))))
