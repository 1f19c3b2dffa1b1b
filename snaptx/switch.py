"""The one switch: what boots is decided here and nowhere else.

Order, each line after the one before it is safe on disk:

1. the new generation, complete, and the next entry file beside the current one
2. the rename
3. the default subvolume, which is derived and put right at boot if it differs

A power cut before 2 leaves the old system, after it the new one.  A barrier
that fails after the rename leaves the choice to the disk: that is reported as
unknown, never as a failure that changed nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from snaptx import log, system
from snaptx.bootloader import entryfile
from snaptx.errors import BootError, NotFoundError, OutcomeUnknownError, SnaptxError
from snaptx.machine import Machine
from snaptx.model import BootEntry, BootState, Generation, Part, Phase, Tree, Verdict, View


def order(views: Iterable[View], default: int, last: int, limit: int) -> list[Generation]:
    """Return the committed generations as the menu shows them: default first, then newest first.

    However many there are, ``last``, which is to fall back to, is among them.
    """
    committed = [view.generation for view in views if view.phase is Phase.COMMITTED or view.number == default]
    ranked = sorted(committed, key=lambda item: (item.number != default, -item.number))
    others = [item for item in ranked if item.number not in (default, last)]
    left_out = others[max(0, limit - (len(ranked) - len(others))) :]
    return [item for item in ranked if item not in left_out]


def fallback(views: Iterable[View], default: int) -> int:
    """Return the newest good generation other than the default; the default itself if there is none.

    A copy of a generation's running root stands back behind that generation,
    which knows what happened since.
    """
    good = {
        view.number: view.generation
        for view in views
        if view.phase is Phase.COMMITTED
        and view.generation.verdict is Verdict.GOOD
        and view.number != default
    }
    return max((number for number, item in good.items() if item.copy not in good), default=default)


def plan(machine: Machine, default: int, *, without: Iterable[int] = ()) -> BootState:
    """Return the entry file's next content, with ``default`` on trial unless it is known to be good.

    Raises:
        BootError: the default has no kernel.
        NotFoundError: it has no record.
    """
    gone = set(without)
    views = [view for view in _views(machine, default) if view.number not in gone]
    verdicts = {view.number: view.generation.verdict for view in views}
    if default not in verdicts:
        raise NotFoundError(f"generation {default} has no record", hint="run: snaptx repair")
    current = _current(machine)
    same = current is not None and current.default == default
    confirmed = verdicts[default] is Verdict.GOOD
    shown = order(views, default, fallback(views, default), machine.config.boot.menu)
    entries = tuple(_entries(machine, shown, default, current.entries if current else ()))
    offered = {entry.number for entry in entries}
    return BootState(
        default=default,
        fallback=fallback((view for view in views if view.number in offered), default),
        nonce=current.nonce if current and same else os.urandom(8).hex(),
        tries=machine.config.boot.tries,
        confirmed=confirmed,
        entries=tuple(entry if confirmed else _on_trial(entry, default) for entry in entries),
        counter=_counter(machine, current),
    )


def _counter(machine: Machine, current: BootState | None) -> str:
    """Return where tries are counted: where they were, if the file system is just not mounted.

    The boot loader reaches it all the same; if not, it says so and turns to the fallback.
    """
    if not machine.boot.counter and current and current.counter:
        log.warning("what counts the tries is not mounted", counter=current.counter)
        return current.counter
    return machine.boot.counter


def _on_trial(entry: BootEntry, default: int) -> BootEntry:
    return entry._replace(cmdline=f"{entry.cmdline} {entryfile.TRIAL}") if entry.number == default else entry


def _current(machine: Machine) -> BootState | None:
    try:
        return machine.boot.read()
    except BootError:
        return None  # damaged: the plan replaces it


def _views(machine: Machine, default: int) -> list[View]:
    return [
        View(generation, machine.phase(generation.number), False, generation.number == default)
        for generation in machine.generations.recorded()
    ]


def _entries(
    machine: Machine, generations: Iterable[Generation], default: int, before: Iterable[BootEntry]
) -> Iterator[BootEntry]:
    had = {entry.number: entry for entry in before}
    for generation in generations:
        tree = Tree(generation.number, Part.ROOT)
        info = machine.storage.describe(tree)
        try:
            if info is None:
                raise BootError(
                    f"the root of generation {generation.number} is missing", hint="run: snaptx repair"
                )
            about = _about(generation)
            entry = machine.boot.offer(generation.number, about, machine.storage.path(tree), info)
            _require_initrd(entry, had.get(entry.number))
            yield entry
        except BootError as error:
            if generation.number == default:
                raise
            log.warning("left out of the boot menu", generation=generation.number, reason=error.message)


def _require_initrd(entry: BootEntry, before: BootEntry | None) -> None:
    """Refuse a kernel without the initrd that it had: GRUB passes over a file that is gone, not over a panic.

    Raises:
        BootError: the initrd is missing.
    """
    if entry.initrd or not (before and before.initrd):
        return
    if os.path.basename(entry.kernel) == os.path.basename(before.kernel):
        name = os.path.basename(before.initrd)
        hint = "make it anew, with update-initramfs -c -k all or dracut --regenerate-all; then: snaptx repair"
        raise BootError(f"{name} is missing in generation {entry.number}", hint=hint)


def _about(generation: Generation) -> str:
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(generation.created))
    mark = "" if generation.verdict is Verdict.GOOD else f" [{generation.verdict}]"
    return f"{generation.number}: {date}{mark} {generation.message or generation.verb}"


def perform(machine: Machine, state: BootState) -> None:
    """Make ``state`` what boots.

    Raises:
        SnaptxError: nothing that boots has changed.
        OutcomeUnknownError: the rename was made, but may not survive a power cut.
    """
    prepare(machine, state)
    turn(machine, state)


def prepare(machine: Machine, state: BootState, complete: Callable[[], None] = lambda: None) -> None:
    """Make all that comes before the rename, and make it last.

    ``complete`` does what the generation still lacks.  It comes after the entry
    file was written: a snapshot commits both at once, and the barrier has little
    left to do.

    Raises:
        SnaptxError: nothing that boots has changed, and no entry file is left beside the current one.
    """
    try:
        machine.boot.prepare(state)
        complete()
        machine.storage.barrier()
        machine.boot.barrier()
    except SnaptxError:
        machine.boot.discard()
        raise


def turn(machine: Machine, state: BootState, spent: Iterable[Tree] = ()) -> float:
    """Make the prepared ``state`` what boots; return the seconds the rename took.

    ``spent`` trees are deleted between the rename and the last barrier.

    Raises:
        SnaptxError: nothing that boots has changed.
        OutcomeUnknownError: the rename was made, but may not survive a power cut.
    """
    tree = Tree(state.default, Part.ROOT)
    with system.undisturbed():
        begun = time.perf_counter()
        machine.boot.switch()
        pause = time.perf_counter() - begun
        _settle(machine, tree, spent)
    return pause


def _settle(machine: Machine, tree: Tree, spent: Iterable[Tree]) -> None:
    try:
        machine.boot.barrier()
        for old in spent:
            machine.storage.delete(old)
        machine.storage.make_default(tree)
        machine.storage.barrier()
        machine.boot.discard()
    except (SnaptxError, OSError) as error:
        message = f"the switch to generation {tree.number} was made, but not confirmed by the disk: {error}"
        hint = "the next boot decides; then 'snaptx status' tells and 'snaptx repair' puts the rest right"
        raise OutcomeUnknownError(message, hint=hint) from error


def refresh(machine: Machine, *, without: Iterable[int] = ()) -> bool:
    """Put the entry file and the default subvolume right without changing what boots; return if it did."""
    state = plan(machine, machine.boot_state().default, without=without)
    if _is_so(machine, state):
        return False
    perform(machine, state)
    return True


def is_due(machine: Machine) -> bool:
    """Return whether `refresh` would do anything."""
    return not _is_so(machine, plan(machine, machine.boot_state().default))


def outdated(machine: Machine) -> list[int]:
    """Return the generations whose kernels are told other words than are configured in them; reads only."""
    return [entry.number for entry in machine.boot_state().entries if _is_outdated(machine, entry)]


def _is_outdated(machine: Machine, entry: BootEntry) -> bool:
    tree = Tree(entry.number, Part.ROOT)
    info = machine.storage.describe(tree)
    if info is None:
        return False
    told = entry.cmdline.removesuffix(f" {entryfile.TRIAL}").removesuffix(f" {entryfile.FALLBACK}")
    return told != machine.boot.words(machine.storage.path(tree), info)


def _is_so(machine: Machine, state: BootState) -> bool:
    current, info = machine.boot_state(), machine.storage.describe(Tree(state.default, Part.ROOT))
    same = state == current._replace(tries=state.tries)
    return same and info is not None and machine.storage.default_name() == info.name
