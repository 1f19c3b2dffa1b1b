"""Standard output: what is written to it is written to the end, or somebody learns of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from snaptx.errors import OutputError


@contextmanager
def writing() -> Iterator[None]:
    """Write to standard output in the block, to the end.

    Raises:
        OutputError: it can't be written; a reader who has gone is a BrokenPipeError.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from error


def put(line: str) -> None:
    """Write a line to standard output, which may keep it until the end of ``writing``.

    Raises:
        OutputError: it can't be written; a reader who has gone is a BrokenPipeError.
    """
    try:
        print(line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from error


def _unwritten(error: OSError) -> OutputError:
    hint = "what was done stands: 'snaptx status' and 'snaptx log' tell"
    return OutputError(f"the result could not be written: {error.strerror}", hint=hint)
