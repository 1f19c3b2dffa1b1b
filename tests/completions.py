"""What the shells complete, read from the command's own parser.

    python -m tests.completions    write it into snaptx/manual/completions

The logic of each file there is written by hand; between its two markers stands
what is made here: the verbs, their options, and what follows each of them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from snaptx.cli.main import VERBS, build_parser

DIRECTORY = Path(__file__).parents[1] / "snaptx/manual/completions"
BEGIN, END = "# made by tests/completions.py: begin", "# made by tests/completions.py: end"

NOTHING, COMMAND = "", "command"
KINDS = {"N": "generation", "A": "generation", "B": "generation", "DIR": "directory"}
KINDS |= {"SOURCE": "directory", "FILE": "file", "PAYLOAD": "file", "TREE|TAR": "file"}
"""What a metavar stands for; text that nobody can guess is not in it."""


@dataclass(frozen=True)
class Argument:
    """An option or a positional argument; ``kind`` says what to offer for its value."""

    flags: tuple[str, ...]
    summary: str
    kind: str
    words: tuple[str, ...]
    wants: str
    metavar: str


@dataclass(frozen=True)
class Command:
    """A verb, an action of one ("sandbox create"), or "" for what stands before the verb.

    ``options`` leaves the common ones out where ``common`` says that it takes them all.
    """

    name: str
    summary: str
    options: tuple[Argument, ...]
    operand: Argument | None
    common: bool

    @property
    def flags(self) -> list[str]:
        """Return every spelling of every option of its own."""
        return [flag for option in self.options for flag in option.flags]


def commands() -> list[Command]:
    """Return every command, the parser itself first: its options are the common ones."""
    return list(_commands(build_parser(None), "", "", ()))


def _commands(
    parser: argparse.ArgumentParser, name: str, summary: str, common: tuple[Argument, ...]
) -> Iterator[Command]:
    deeper = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    arguments = [_argument(action) for action in parser._actions if action not in deeper]
    options = tuple(argument for argument in arguments if argument.flags)
    takes_common = {option.flags for option in common} <= {option.flags for option in options}
    own = tuple(option for option in options if not takes_common or option not in common)
    operand = next((argument for argument in arguments if not argument.flags), None)
    yield Command(name, summary, own, operand, takes_common)
    for action in deeper:
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for word, child in action.choices.items():
            yield from _commands(child, f"{name} {word}".strip(), helps[word], common or options)


def _argument(action: argparse.Action) -> Argument:
    metavar = str(action.metavar or action.dest.upper())
    kind = COMMAND if action.nargs == argparse.REMAINDER else KINDS.get(metavar, NOTHING)
    words = tuple(map(str, action.choices or ()))
    wants = "no" if action.nargs == 0 else "maybe" if action.nargs == "?" else "yes"
    summary = (action.help or "").replace("%(default)s", str(action.default))
    return Argument(
        tuple(action.option_strings),
        summary,
        "words" if words else kind if wants != "no" else NOTHING,
        words,
        wants,
        metavar,
    )


def _flags(options: Iterable[Argument]) -> str:
    return " ".join(flag for option in options for flag in option.flags)


def _offer(argument: Argument) -> str:
    return " ".join([argument.kind, *argument.words]).strip()


def bash() -> list[str]:
    """Return the cases of three functions: options, operands, and what follows an option."""
    root, *made = commands()
    lines = [f"_snaptx_common='{_flags(root.options)}'", "_snaptx_options() {", "    case $1 in"]
    for command in made:
        words = ("$_snaptx_common " * command.common + _flags(command.options)).strip()
        lines.append(f'        {_quoted(command.name)}) echo "{words}" ;;')
    lines += [
        '        *) echo "$_snaptx_common" ;;',
        "    esac",
        "}",
        "_snaptx_operands() {",
        "    case $1 in",
    ]
    lines += [f"        '') echo 'words {' '.join(VERBS)}' ;;"]
    lines += [f"        {verb}) echo 'words {' '.join(words)}' ;;" for verb, words in _actions(made).items()]
    for command in made:
        if command.operand and command.operand.kind:
            lines.append(f"        {_quoted(command.name)}) echo {_offer(command.operand)} ;;")
    lines += ["    esac", "}", "# Fails for an option that is followed by no value of its own."]
    lines += ["_snaptx_value() {", '    case "$1 $2" in']
    for name, option in ((command.name, option) for command in (root, *made) for option in command.options):
        if option.wants == "yes":
            patterns = " | ".join(f"'{name} {flag}'" if name else f"*' {flag}'" for flag in option.flags)
            lines.append(f"        {patterns}) echo '{_offer(option)}' ;;")
    return [*lines, "        *) return 1 ;;", "    esac", "}"]


def _actions(made: Iterable[Command]) -> dict[str, dict[str, str]]:
    """Return the actions of the verbs that have some, each with its line of help."""
    found: dict[str, dict[str, str]] = {}
    for command in made:
        verb, _, action = command.name.partition(" ")
        if action:
            found.setdefault(verb, {})[action] = command.summary
    return found


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w-]+", text) else f"'{text}'"


ZSH = {
    "generation": ":generation:_snaptx_generations",
    "directory": ":directory:_files -/",
    "file": ":file:_files",
}


def zsh() -> list[str]:
    """Return the arrays of verbs and actions, and the _arguments specifications of every command."""
    root, *made = commands()
    lines = ["_snaptx_verbs=(", *_zsh_described(VERBS), ")", "_snaptx_actions() {", "    local -a actions"]
    lines += ["    case $1 in"]
    for verb, words in _actions(made).items():
        lines += [f"        {verb})", "            actions=("]
        lines += [*("            " + line for line in _zsh_described(words)), "            )"]
        lines += ["            ;;"]
    lines += ["    esac", "    _describe -t actions action actions", "}"]
    lines += ["_snaptx_common=(", *_zsh_specs(root, 4), ")", "_snaptx_specs() {", "    case $1 in"]
    for command in made:
        specs = ["            $_snaptx_common"] * command.common + list(_zsh_specs(command, 12))
        lines += [f"        {_quoted(command.name)})", "            specs=(", *("    " + s for s in specs)]
        lines += ["            )", "            ;;"]
    return [*lines, "    esac", "}"]


def _zsh_described(words: Mapping[str, str]) -> list[str]:
    return [f"    {_zsh_quoted(f'{word}:{summary}')}" for word, summary in words.items()]


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_specs(command: Command, indent: int) -> Iterator[str]:
    for option in command.options:
        about = re.sub(r"([\[\]:\\])", r"\\\1", option.summary)
        others = f"({' '.join(option.flags)})" if len(option.flags) > 1 else ""
        for flag in option.flags:
            sign = "" if option.wants != "yes" else "=" if flag.startswith("--") else "+"
            yield " " * indent + _zsh_quoted(f"{others}{flag}{sign}[{about}]{_zsh_value(option)}")
    operand = command.operand
    if operand and operand.kind == COMMAND:
        yield " " * indent + _zsh_quoted("*::command:_snaptx_run")
    elif operand:
        yield " " * indent + _zsh_quoted("*" + _zsh_value(operand))


def _zsh_value(argument: Argument) -> str:
    if argument.wants == "no":
        return ""
    optional = ":" if argument.wants == "maybe" and argument.flags else ""
    if argument.words:
        return f"{optional}:{argument.metavar.lower()}:({' '.join(argument.words)})"
    return optional + ZSH.get(argument.kind, f":{argument.metavar.lower()}: ")


FISH = {
    "generation": "-a '(__snaptx_generations)'",
    "directory": "-a '(__fish_complete_directories)'",
    "file": "-F",
    COMMAND: "-a '(__fish_complete_command)'",
}


def fish() -> list[str]:
    """Return one complete command for each verb, action, option and operand."""
    root, *made = commands()
    valued = [
        f"'{command.name} {flag}'"
        for command in made
        for option in command.options
        if option.wants == "yes"
        for flag in option.flags
    ]
    bare = [f"'{command.name}'" for command in made if not command.common]
    common = [flag for option in root.options if option.wants == "yes" for flag in option.flags]
    lines = [f"set -g __snaptx_common_valued {' '.join(common)}", f"set -g __snaptx_bare {' '.join(bare)}"]
    lines += ["set -g __snaptx_valued \\", *(f"    {pair} \\" for pair in valued), "    ''"]
    lines += [_complete("__snaptx_takes_common", " ".join(_fish_option(option))) for option in root.options]
    for command in made:
        *above, word = command.name.split()
        here = f"__snaptx_at {command.name}"
        lines.append(_complete(f"__snaptx_at {' '.join(above)}".strip(), _fish_word(word, command.summary)))
        lines += [_complete(here, " ".join(_fish_option(option))) for option in command.options]
        if command.operand and command.operand.kind:
            lines.append(_complete(here, _fish_value(command.operand)))
    return lines


def _complete(condition: str, rest: str) -> str:
    return f"complete -c snaptx -n '{condition}' {rest}"


def _fish_word(word: str, summary: str) -> str:
    return f"-a {word} -d {_fish_quoted(summary)}"


def _fish_option(option: Argument) -> Iterator[str]:
    for flag in option.flags:
        yield f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
    if option.wants == "yes":
        yield "-r -F" if option.kind == "file" else "-x"
    if option.kind and option.kind != "file":
        yield _fish_value(option)
    yield f"-d {_fish_quoted(option.summary)}"


def _fish_value(argument: Argument) -> str:
    return f"-a '{' '.join(argument.words)}'" if argument.words else FISH[argument.kind]


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


FILES: dict[str, Callable[[], list[str]]] = {"snaptx": bash, "_snaptx": zsh, "snaptx.fish": fish}


def updated(name: str) -> str:
    """Return the text of a completion file with what is made here brought up to date."""
    text = (DIRECTORY / name).read_text()
    head, _, rest = text.partition(BEGIN + "\n")
    _, _, tail = rest.partition(END + "\n")
    return "\n".join([head + BEGIN, *FILES[name](), END, ""]) + tail


def main() -> None:
    """Bring the files up to date."""
    for name in FILES:
        (DIRECTORY / name).write_text(updated(name))


if __name__ == "__main__":
    main()
