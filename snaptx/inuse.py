"""Which processes use what of which generation."""

from __future__ import annotations

import os
from collections.abc import Iterator

from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.running import processes
from snaptx.running.processes import Process, Survey


def survey(machine: Machine) -> Survey:
    """Return a look at the processes of this machine."""
    found = {}
    for generation in machine.generations.recorded():
        tree = Tree(generation.number, Part.ROOT)
        if machine.storage.describe(tree):
            found[machine.storage.path(tree).stat().st_dev] = generation.number
    trees = tuple(os.fsencode(path) for path in machine.config.live.paths)
    return Survey(os.fsencode(machine.sysroot.resolve()), trees, found)


def outdated(machine: Machine) -> Iterator[Process]:
    """Yield the processes that use what is no more what its path leads to, with that alone."""
    return filter(None, map(processes.stale, survey(machine).processes()))


def users(machine: Machine, number: int) -> Iterator[Process]:
    """Yield the processes that use files of one generation, with these alone."""
    found = survey(machine).processes()
    return filter(None, (processes.of_generation(process, number) for process in found))
