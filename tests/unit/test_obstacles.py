"""Which trees can be switched by themselves, and on which kernel."""

from __future__ import annotations

import pytest

from snaptx.running import obstacles
from snaptx.running.obstacles import Shape

DIRECTORY, ABSENT = (Shape.DIRECTORY, ""), (Shape.ABSENT, "")
LINK = (Shape.LINK, "usr/lib")


def separate(running: tuple[Shape, str], fresh: tuple[Shape, str]) -> tuple[int, list[str]]:
    """Return how many trees are switched, and why others are not."""
    chosen, against = obstacles.separate(["/lib"], {"/lib": running}, {"/lib": fresh})
    missing = Shape.ABSENT in (running[0], fresh[0])
    assert all(obstacle.forcible is missing for obstacle in against)
    return len(chosen), [obstacle.reason for obstacle in against]


def test_directories_are_switched_and_links_are_left() -> None:
    assert separate(DIRECTORY, DIRECTORY) == (1, [])
    assert separate(LINK, LINK) == (0, [])
    assert separate(ABSENT, ABSENT) == (0, [])


@pytest.mark.parametrize(
    ("running", "fresh", "said"),
    [
        (DIRECTORY, LINK, "a directory in the running root and a symbolic link to usr/lib in the generation"),
        (LINK, (Shape.LINK, "/mnt"), "link to usr/lib in the running root and a symbolic link to /mnt"),
        (DIRECTORY, ABSENT, "absent in the generation"),
        (ABSENT, DIRECTORY, "absent in the running root"),
        (DIRECTORY, (Shape.OTHER, ""), "no directory in the generation"),
    ],
)
def test_what_differs_stands_against_it(
    running: tuple[Shape, str], fresh: tuple[Shape, str], said: str
) -> None:
    number, (reason,) = separate(running, fresh)

    assert number == 0
    assert said in reason


def test_libraries_come_first() -> None:
    paths = ("/usr", "/bin", "/lib", "/opt", "/lib64")
    every = dict.fromkeys(paths, DIRECTORY)

    assert obstacles.separate(paths, every, every)[0] == ("/lib", "/lib64", "/usr", "/bin", "/opt")


@pytest.mark.parametrize(
    ("release", "fit"),
    [
        ("6.5.0-1-amd64", True),
        ("6.18.44-fc", True),
        ("10.0", True),
        ("6.4.16", False),
        ("5.15.0", False),
        ("x", False),
    ],
)
def test_kernel_has_to_mount_beneath(release: str, fit: bool) -> None:
    assert (not list(obstacles.kernel(release))) is fit
