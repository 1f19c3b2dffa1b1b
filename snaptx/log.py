"""The one place that configures logging: people read lines, machines read JSON.

Logs go to stderr.  On a terminal they are plain lines, elsewhere JSON.  The
transaction id is bound to every event.  A sink that fails (a full disk, a
closed pipe) never ends a transaction.  ``structlog`` is loaded with the first
event that will be shown, so that quick verbs do not pay for it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import IntEnum
from typing import Any


class Level(IntEnum):
    """How much is told; the values are those of the standard library's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


_threshold = Level.INFO
_bound: dict[str, str] = {}
_configured = False


def set_threshold(level: Level) -> None:
    """Show events of ``level`` and above."""
    global _threshold
    _threshold = level


def bind(**values: str) -> None:
    """Add ``values`` to every event from here on; an empty value takes one away."""
    for name, value in values.items():
        _bound.pop(name, None)
        if value:
            _bound[name] = value


def debug(event: str, **values: Any) -> None:
    """Log what helps to find a fault."""
    _emit(Level.DEBUG, event, values)


def info(event: str, **values: Any) -> None:
    """Log what happens."""
    _emit(Level.INFO, event, values)


def warning(event: str, **values: Any) -> None:
    """Log what somebody should look at."""
    _emit(Level.WARNING, event, values)


def error(event: str, **values: Any) -> None:
    """Log what went wrong."""
    _emit(Level.ERROR, event, values)


def say(line: str) -> None:
    """Tell people a line by stderr; where nobody reads it, the exit code has to do."""
    with suppress(OSError, ValueError):
        print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return ``text`` as one line that does nothing to a terminal: names and messages are other people's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    byte = ord(char) - 0xDC00  # of a name that is not UTF-8 (PEP 383)
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode("ascii")


def load() -> None:
    """Load what a later event needs: after a live switch another version may lie there."""
    _logger()


def _emit(level: Level, event: str, values: dict[str, Any]) -> None:
    if level < _threshold:
        return
    try:
        getattr(_logger(), level.name.lower())(event, **_bound, **values)
    except OSError:
        return  # the log has nowhere to go; the work does


def _logger() -> Any:
    import structlog

    global _configured
    if not _configured:
        _configure(structlog)
        _configured = True
    return structlog.get_logger("snaptx")


def _configure(structlog: Any) -> None:
    people = sys.stderr.isatty()
    renderer = _plain if people else structlog.processors.JSONRenderer(sort_keys=False)
    stamp = [] if people else [structlog.processors.TimeStamper(fmt="iso", utc=True)]
    structlog.configure(
        processors=[structlog.processors.add_log_level, *stamp, renderer],
        logger_factory=_to_stderr,
        cache_logger_on_first_use=False,
    )


def _to_stderr(*_: Any) -> Any:
    """Look stderr up for each event: whoever replaces it gets the events that follow."""
    import structlog

    return structlog.PrintLogger(sys.stderr)


def _plain(_logger: Any, level: str, event: dict[str, Any]) -> str:
    event.pop("level", None)
    event.pop("transaction", None)
    text = event.pop("event")
    details = " ".join(f"{name}={value}" for name, value in event.items())
    prefix = "" if level == "info" else f"{level}: "
    return printable(f"snaptx: {prefix}{text}" + (f" ({details})" if details else ""))
