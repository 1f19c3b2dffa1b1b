"""One disk with mounts of its own, to look at what a power cut leaves and to boot from it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snaptx.bootloader import counter
from snaptx.sandbox.layout import PLANS, Layout
from snaptx.storage import btrfsioctl
from tests.crash import census, judge, settle, views
from tests.crash.judge import Progress
from tests.crash.loop import forget_cached, mounted
from tests.crash.views import Seen

REMOVING = ("prune", "abort", "repair")
"""Verbs at whose every point the whole menu is read; elsewhere at every eighth."""

Make = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Part:
    """An image behind a loop device."""

    device: str
    image: Path


class Bench:
    """The image ``work`` behind the loop device ``device``; ``check`` as in rig.Task.

    ``boot`` is a /boot of its own.
    """

    def __init__(
        self, place: Path, device: str, work: Path, uuid: str, check: int = 0, boot: Part | None = None
    ) -> None:
        self._place, self._device, self._work, self._check = place, device, work, check
        self._boot = boot
        self._adopted = PLANS[Layout.FEDORA if boot else Layout.DEBIAN].root
        self._judged = 0
        # A clone mounted beside its twin gets another UUID from the kernel (temp-fsid).
        setattr(btrfsioctl, "filesystem_id", lambda _fd: uuid)  # noqa: B010
        if boot:
            # Asking takes a process, and it stays the same.
            known = counter.uuid_of(boot.device)
            setattr(counter, "uuid_of", lambda _device: known)  # noqa: B010

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
        grub = self._grub(whole=whole)
        bare = views.kernel(self._device, self._place / "bare", self._boot.device if self._boot else "")
        problems += [*judge.judge_view(grub, state), *judge.judge_view(bare, state, grub.default)]
        replayed = self._replayed(grub, grub, state, problems)
        for other in {bare.default: bare, replayed.default: replayed}.values():
            if other.default != grub.default:
                self._fill(make)
                self._replayed(other, grub, state, problems)
        problems += self._checked()
        return tuple(dict.fromkeys(problems))

    def _grub(self, *, whole: bool) -> Seen:
        return views.grub(self._work, self._boot.image if self._boot else None, whole=whole)

    def _fill(self, make: Make) -> None:
        self._forget()
        make()
        self._forget()

    def _forget(self) -> None:
        for device in (self._device, *([self._boot.device] if self._boot else [])):
            forget_cached(device)

    @contextmanager
    def _boot_at(self, place: Path) -> Iterator[Path | None]:
        """Mount a /boot of its own, if there is one."""
        if self._boot is None:
            yield None
            return
        with mounted(self._boot.device, place, "noinit_itable", fstype="ext4") as boot:
            yield boot

    def _replayed(self, boots: Seen, grub: Seen, state: Progress, problems: list[str]) -> Seen:
        """Mount as the kernel does in what ``boots`` shows, look, reconcile, look again."""
        with (
            mounted(self._device, self._place / "top", "subvolid=5") as top,
            self._boot_at(self._place / "boot") as boot,
        ):
            seen = views.look("log replay", top, boot)
            problems += judge.judge_view(seen, state, grub.default)
            problems += judge.judge_claims(seen, grub, state)
            app = census.take(top, of=census.APP) if state.app else None
            if app and state.app:
                problems += [*judge.judge_app(app, state.app), *judge.judge_app_claims(app, state.app)]
            problems += self._reconciled(boots, seen, state, top)
            if app and state.app:
                problems += judge.judge_app_settled(census.take(top, of=census.APP), state.app, app)
        return seen

    def _reconciled(self, boots: Seen, seen: Seen, state: Progress, top: Path) -> Iterator[str]:
        trees = state.trees(boots.default)
        subvolume = trees[0].subvolume if trees else self._adopted
        with (
            mounted(self._device, self._place / "root", f"subvol={subvolume}") as root,
            self._boot_at(root / "boot") as boot,
        ):
            found = settle.in_child(lambda: settle.reconcile(root))
            after = census.take(top, boot)
            grub = self._grub(whole=False)
        before = seen.census or census.Census(0)
        for problem in (*found, *judge.judge_settled(after, grub, self._settled, before)):
            yield f"after the reconcile in {boots.default or self._adopted}: {problem}"

    def _checked(self) -> list[str]:
        self._judged += 1
        if not self._check or self._judged % self._check:
            return []
        self._forget()
        found = [_complaint("btrfs", "check", "--readonly", "--force", self._device)]
        if self._boot:
            found.append(_complaint("e2fsck", "-f", "-n", self._boot.device))
        return list(filter(None, found))


def _complaint(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{' '.join(command[:2])}: {result.stdout}{result.stderr}" if result.returncode else ""
