"""The rules of the house: each takes sources and returns one line per breach.

They read syntax trees only, so that a rule can be shown a bad source and has
to complain.  The tables they go by are in tests/unit/test_house.py.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "snaptx"
FUNCTION_LINES = 40
MODULE_LINES = 400
HOOK_LINES = 50
# Written in two parts, or this file would break the rule.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
NOT_OURS = {
    ".git",
    ".venv",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "build",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python source; ``name`` is relative to the package ("storage.btrfs", "" for the package itself)."""

    name: str
    source: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.source)

    @property
    def path(self) -> str:
        """The file's path, for complaints."""
        parts = [PACKAGE, *filter(None, self.name.split("."))]
        return "/".join([*parts, "__init__"] if self.is_package else parts) + ".py"


def modules_of(root: Path) -> list[Module]:
    """Return every module of the package below ``root``, the checkout."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(), is_package))
    return found


def project_files(root: Path) -> Iterator[Path]:
    """Yield every file of the checkout that is not made by a tool."""
    for path in sorted(root.iterdir()):
        if path.name in NOT_OURS or path.name.endswith(".egg-info") or path.is_symlink():
            continue
        if path.is_dir():
            yield from project_files(path)
        elif path.is_file():
            yield path


def shell_files(root: Path) -> list[Path]:
    """Return the checkout's shell scripts, known by their first line or by their name."""
    return [path for path in project_files(root) if _is_shell(path)]


def _is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".sh" or re.match(rb"#!.*\b(ba|da)?sh\b", file.readline(200)) is not None


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, leaving out what only the type checker sees."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            stack.extend(node.orelse)
        else:
            stack.extend(ast.iter_child_nodes(node))


def imports(module: Module) -> list[tuple[str, int]]:
    """Return what a module imports anywhere in it, as full dotted names with their lines.

    ``from a import b`` is ``a.b``, whether b is a module or not.  An import by a
    literal name (importlib.import_module, __import__) counts.
    """
    found = [(name, _line(node)) for node in _nodes(module.tree) for name in _imported_by(node, module)]
    return sorted(found, key=lambda item: (item[1], item[0]))


def _imported_by(node: ast.AST, module: Module) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(names=names):
            start = _start_of_import(node, module)
            return [f"{start}.{alias.name}" for alias in names]
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            return [name] if ast.unparse(function).endswith(("import_module", "__import__")) else []
    return []


def _start_of_import(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *filter(None, module.name.split("."))]
    base = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*base, node.module] if node.module else base)


def _own_imports(module: Module, known: Collection[str]) -> list[tuple[str, int]]:
    """Return the modules of the package a module imports: names in ``known``, with lines."""
    found = []
    for name, line in imports(module):
        parts = name.split(".")
        if parts.pop(0) != PACKAGE:
            continue
        while parts and ".".join(parts) not in known:
            parts.pop()
        found.append((".".join(parts), line))
    return found


def layer_breaches(
    modules: Iterable[Module], layers: Iterable[str], beside: Collection[tuple[str, str]]
) -> list[str]:
    """Return the imports that do not go down.

    ``layers`` names the top-level modules and packages from top to bottom, those
    of one layer in one string; ``beside`` are the pairs (importer, imported)
    within a layer that are meant.
    """
    modules = list(modules)
    rank = {name: number for number, layer in enumerate(layers) for name in layer.split()}
    known = {module.name for module in modules} | set(rank)
    complaints = []
    for module in filter(lambda module: module.name, modules):
        top = module.name.split(".")[0]
        if top not in rank:
            complaints.append(
                f"{module.path}: {top} is in no layer; place it in LAYERS in tests/unit/test_house.py"
            )
            continue
        for name, line in _own_imports(module, known):
            other = name.split(".")[0]
            if other in ("", top) or other not in rank or rank[other] > rank[top] or (top, other) in beside:
                continue
            complaints.append(f"{module.path}:{line}: {top} imports {other}, which is not below it")
    return complaints


def cycle_breaches(modules: Iterable[Module]) -> list[str]:
    """Return a cycle of imports between single modules, if there is one."""
    modules = list(modules)
    known = {module.name for module in modules}
    graph = {module.name: {name for name, _ in _own_imports(module, known)} for module in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        return ["a cycle of imports: " + " -> ".join(reversed(err.args[1]))]
    return []


def door_breaches(modules: Iterable[Module], doors: Mapping[str, str]) -> list[str]:
    """Return the imports of a dependency that do not go through its door.

    ``doors`` names the one module or package that may import it, "" for none.
    A third-party library without a door is a breach as well.
    """
    complaints = []
    for module in modules:
        for name, line in imports(module):
            top = name.split(".")[0]
            if top in doors:
                door = doors[top]
                if not door or not f"{module.name}.".startswith(f"{door}."):
                    complaints.append(f"{module.path}:{line}: imports {top}; its door is {door or 'nowhere'}")
            elif top != PACKAGE and top not in sys.stdlib_module_names:
                complaints.append(f"{module.path}:{line}: {top} has no door; name one in DOORS")
    return complaints


def init_breaches(modules: Iterable[Module]) -> list[str]:
    """Return the statements of ``__init__`` files that are neither docstring nor version."""
    complaints = []
    for module in filter(lambda module: module.is_package, modules):
        for node in module.tree.body:
            match node:
                case ast.Expr(value=ast.Constant(value=str())) | ast.ImportFrom(module="__future__"):
                    continue
                case ast.Assign(targets=[ast.Name(id="__version__")]):
                    continue
            complaints.append(f"{module.path}:{node.lineno}: __init__ holds a docstring and the version only")
    return complaints


def size_breaches(path: str, source: str, limit: int = MODULE_LINES) -> list[str]:
    """Return the functions and the file that are too long."""
    lines = len(source.splitlines())
    complaints = [f"{path}: {lines} lines, more than {limit}"] if lines > limit else []
    for node in _functions(ast.parse(source)):
        length = _line(node, "end_lineno") - node.lineno + 1
        if length > FUNCTION_LINES:
            complaints.append(
                f"{path}:{node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES}"
            )
    return complaints


def docstring_breaches(module: Module) -> list[str]:
    """Return the public module, functions, classes and methods without a docstring.

    A method that implements a base class's may leave the words to it.
    """
    tree = module.tree
    bare = [] if ast.get_docstring(tree) else [f"{module.path}: no docstring"]
    for node in _public(tree):
        if not ast.get_docstring(node):
            bare.append(f"{module.path}:{node.lineno}: {node.name} has no docstring")
    return bare


def _public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef) and all(ast.unparse(base) == "Protocol" for base in node.bases):
            yield from (
                item
                for item in node.body
                if isinstance(item, Function) and not item.name.startswith("_") and not _is_setter(item)
            )


def _is_setter(node: Function) -> bool:
    return any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)


def annotation_breaches(module: Module) -> list[str]:
    """Return the functions that do not say what they return."""
    return [
        f"{module.path}:{node.lineno}: {node.name} has no return annotation"
        for node in _functions(module.tree)
        if node.returns is None
    ]


def encoding_breaches(module: Module) -> list[str]:
    """Return the places that read or write text in the encoding of the locale, but for names of files."""
    complaints = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="read_text" | "write_text"), keywords=named):
                given = {word.arg: ast.unparse(word.value) for word in named}
                if "encoding" not in given and given.get("errors") != "'surrogateescape'":
                    complaints.append(f"{module.path}:{node.lineno}: text without an encoding")
    return complaints


def exit_breaches(modules: Iterable[Module], allowed: Collection[str]) -> list[str]:
    """Return the places outside ``allowed`` that end the process."""
    complaints = []
    for module in filter(lambda module: module.name not in allowed, modules):
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(func=called) if ast.unparse(called) in (
                    "sys.exit",
                    "exit",
                    "quit",
                    "SystemExit",
                ):
                    complaints.append(f"{module.path}:{node.lineno}: only main() ends the process")
                case ast.Raise(exc=ast.Name(id="SystemExit")):
                    complaints.append(f"{module.path}:{node.lineno}: only main() ends the process")
    return complaints


def shell_string_breaches(modules: Iterable[Module]) -> list[str]:
    """Return the calls that give a string to a shell."""
    return [
        f"{module.path}:{node.lineno}: {ast.unparse(node.func)} starts a shell; commands go through run.py"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.system", "os.popen")
    ]


def unfinished_breaches(path: str, text: str) -> list[str]:
    """Return the lines that promise work to be done later."""
    return [
        f"{path}:{number}: {found.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := UNFINISHED.search(line))
    ]


def _functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def _line(node: ast.AST, which: str = "lineno") -> int:
    value = getattr(node, which, None)
    assert isinstance(value, int), f"{ast.dump(node)} has no {which}"
    return value
