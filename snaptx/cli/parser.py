"""The parser of every verb: what argparse does, and what it says in words of snaptx."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

from snaptx.cli import output
from snaptx.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Takes no option cut short: a later option could make another one of it.

    It formats each option to check it, and loads ``shutil`` to ask how wide the
    terminal is unless a width is given; only help is for the terminal.
    """

    def __init__(self, **options: Any) -> None:
        plain = partial(argparse.HelpFormatter, width=80)
        super().__init__(allow_abbrev=False, formatter_class=plain, **options)

    def format_help(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def spellings(self) -> Iterator[str]:
        """Yield every option, as it is typed, and those of the verbs and actions it knows."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    yield from child.spellings()

    def _print_message(self, message: str, file: Any = None) -> None:
        with output.writing():
            super()._print_message(message, file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the verb or action that may be meant instead of all there are."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            what = f"unknown {str(action.metavar).lower()}: {value!r}"
            raise UsageError(what, hint=f"{meant(value, action.choices)}see: {self.prog} --help")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")


def meant(word: str, known: Iterable[str]) -> str:
    """Return the question whether a word that is ``known`` was meant, "" where none is near."""
    import difflib  # only for those who have mistyped

    near = difflib.get_close_matches(word, list(known), n=1)
    quoted = near and (near[0] if near[0].startswith("-") else repr(near[0]))
    return f"did you mean {quoted}? " if quoted else ""
