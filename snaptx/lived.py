"""What is changed in a generation while it is live: nothing of it is lost, and its manifest knows.

``live`` keeps its root as it was when it went live, until it is live no more,
be it by ``snaptx live`` or by a restart.  Then what was changed in /etc, if
that was live, is brought into the running root's; and what was changed at all
in a staged generation into its manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from snaptx import carry, log, scene, views
from snaptx.carry import Carried
from snaptx.config import Conflicts
from snaptx.errors import LiveError
from snaptx.ground import Ground
from snaptx.machine import Machine
from snaptx.model import Part, Phase, Tree
from snaptx.overlay.failure import shown

ETC = b"etc"


def go_along(machine: Machine, number: int, policy: Conflicts) -> Carried:
    """Bring the running root's changes in /etc since the snapshot into a generation, as a commit does.

    Raises:
        LiveError: the generation does not stem from what runs.
        ConflictError: both changed a path and the policy is to fail; nothing was brought.
    """
    common = carry.reference(machine, number, machine.booted)
    if common is None:
        message = f"/etc of generation {number} can't go live: it does not stem from what runs"
        raise LiveError(message, hint="leave out --etc, or reboot into it")
    with carry.running_root(machine, number) as latest:
        chosen, clashes = carry.choose(machine, number, common, latest, policy, only=ETC)
        if machine.phase(number) is Phase.STAGED:
            carry.bring(machine, number, latest, chosen)
        else:
            carry.transfer(machine, latest, Tree(number, Part.ROOT), chosen)
    return Carried(tuple(change.path for change in chosen), clashes)


def mark(machine: Machine, number: int) -> None:
    """Keep how a generation is that goes live."""
    if not scene.is_marked(machine, number):
        machine.storage.snapshot(Tree(number, Part.ROOT), Tree(number, Part.LIVE), writable=False)


def settle(machine: Machine) -> Carried:
    """Bring home what was changed in generations that are live no more; return what of it is in /etc.

    Where both sides were changed the running root's stays, and the path is told.
    """
    done = Carried()
    for number in scene.ended(machine):
        with _since(machine, number) as latest:
            done = _bring_back(machine, number, latest)
        machine.storage.delete(Tree(number, Part.LIVE))
    return done


def index(machine: Machine, number: int) -> None:
    """Let the manifest of a generation that is to be committed know what was changed while it is live."""
    if scene.is_marked(machine, number):
        with _since(machine, number):
            pass


@contextmanager
def _since(machine: Machine, number: int) -> Iterator[Tree]:
    """Give a read-only view of a generation's root; if it is staged its manifest is brought up to that."""
    with views.passing(machine, number, Tree(number, Part.ROOT)) as view:
        if machine.phase(number) is Phase.STAGED:
            from snaptx import difference
            from snaptx.overlay.manifest import Manifest

            with Manifest.open(machine.manifest(number), writable=True) as manifest:
                difference.reindex(machine, manifest, Tree(number, Part.LIVE), view)
        yield view


def _bring_back(machine: Machine, number: int, latest: Tree) -> Carried:
    """Bring changes in /etc into the running root, unless that is the generation itself."""
    if machine.booted in (0, number):
        return Carried()
    marker = Ground(Tree(number, Part.LIVE))
    chosen, clashes = carry.choose(machine, machine.booted, marker, latest, Conflicts.NEW, only=ETC)
    carry.transfer(machine, latest, Tree(machine.booted, Part.ROOT), chosen)
    for path in clashes:
        log.warning("changed while it was live, and not brought back", path=shown(path))
    return Carried(tuple(change.path for change in chosen), clashes)
