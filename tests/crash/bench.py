"""One disk with mounts of its own, to look at what a power cut leaves and to boot from it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from snaptx.storage import btrfs
from tests.crash import census, judge, settle, views
from tests.crash.driver import ADOPTED
from tests.crash.judge import Progress
from tests.crash.loop import forget_cached, mounted
from tests.crash.views import Seen

REMOVING = ("prune", "abort", "repair")
"""Verbs at whose every point the whole menu is read; elsewhere at every eighth."""

Make = Callable[[], object]


class Bench:
    """The image ``work`` behind the loop device ``device``; ``check`` as in rig.Task."""

    def __init__(self, place: Path, device: str, work: Path, uuid: str, check: int = 0) -> None:
        self._place, self._device, self._work, self._check = place, device, work, check
        self._judged = 0
        # A clone mounted beside its twin gets another UUID from the kernel (temp-fsid).
        setattr(btrfs, "_filesystem_id", lambda _fd: uuid)  # noqa: B010

    def judge(self, state: Progress, make: Make, settled: Progress | None = None) -> tuple[str, ...]:
        """Return what is wrong with the disk that ``make`` puts into the image.

        ``settled`` is what to expect after the reconcile, if that is something else.

        A disk that can't be mounted is looked at twice: the kernel refuses one now and then while
        others scan block devices, and what is really damaged is so again.
        """
        self._settled = settled or judge.adopting(state)
        try:
            return self._looked_at(state, make)
        except OSError:
            return self._second_look(state, make)

    def _second_look(self, state: Progress, make: Make) -> tuple[str, ...]:
        try:
            return self._looked_at(state, make)
        except OSError as error:
            return (f"{type(error).__name__}: {error}",)

    def _looked_at(self, state: Progress, make: Make) -> tuple[str, ...]:
        problems: list[str] = []
        self._fill(make)
        whole = state.verb in REMOVING or self._judged % 8 == 0
        grub = views.grub(self._work, whole=whole)
        bare = views.kernel(self._device, self._place / "bare")
        problems += [*judge.judge_view(grub, state), *judge.judge_view(bare, state)]
        replayed = self._replayed(grub, grub, state, problems)
        for other in {bare.default: bare, replayed.default: replayed}.values():
            if other.default != grub.default:
                self._fill(make)
                self._replayed(other, grub, state, problems)
        problems += self._checked()
        return tuple(dict.fromkeys(problems))

    def _fill(self, make: Make) -> None:
        forget_cached(self._device)
        make()
        forget_cached(self._device)

    def _replayed(self, boots: Seen, grub: Seen, state: Progress, problems: list[str]) -> Seen:
        """Mount as the kernel does in what ``boots`` shows, look, reconcile, look again."""
        with mounted(self._device, self._place / "top", "subvolid=5") as top:
            seen = views.look("log replay", top)
            problems += judge.judge_view(seen, state)
            problems += judge.judge_claims(seen, grub, state)
            problems += self._reconciled(boots, seen, state, top)
        return seen

    def _reconciled(self, boots: Seen, seen: Seen, state: Progress, top: Path) -> Iterator[str]:
        trees = state.trees(boots.default)
        subvolume = trees[0].subvolume if trees else ADOPTED
        with mounted(self._device, self._place / "root", f"subvol={subvolume}") as root:
            found = settle.in_child(lambda: settle.reconcile(root))
            after = census.take(top)
            grub = views.grub(self._work, whole=False)
        before = seen.census or census.Census(0)
        for problem in (*found, *judge.judge_settled(after, grub, self._settled, before)):
            yield f"after the reconcile in {boots.default or ADOPTED}: {problem}"

    def _checked(self) -> list[str]:
        self._judged += 1
        if not self._check or self._judged % self._check:
            return []
        forget_cached(self._device)
        command = ["btrfs", "check", "--readonly", "--force", self._device]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return [f"btrfs check: {result.stderr or result.stdout}"] if result.returncode else []
