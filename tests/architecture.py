"""Reads the package as text: who imports whom, how long things are, what is caught. Finds breaches; asserts nothing."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

PACKAGE = "vivace"
MAX_DEPTH, MAX_FILES, MAX_LINES, MAX_FUNCTION_LINES = 2, 20, 400, 60
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLING_FILES = {"measure/parcel.py"}
NETWORK = {"socket", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "ssl", "xmlrpc", "huggingface_hub"}
NETWORKED_ROOMS = {"serve", "distributed"}
SOCKET_PAIR_FILES = frozenset({"measure/forking/client.py", "measure/forking/server.py"})
"""Descriptors pass through a pair of sockets between two of our own processes, which has no address."""
NETWORK_MODULES = {"urllib.request", "urllib.error", "urllib"}
TIMERS = {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "time", "thread_time"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement's target, wherever in the file it stands."""

    target: str
    line: int
    when_checking_types: bool


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of the package. `path` is relative to the package's folder."""

    path: Path
    text: str
    modules: frozenset[str]

    @property
    def module(self) -> str:
        parts = (PACKAGE, *self.path.with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The folder directly below the package; the package's own files are the front."""
        return self.path.parts[0] if len(self.path.parts) > 1 else ""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))

    def imports(self) -> Iterator[Import]:
        """Every import, also inside functions and under TYPE_CHECKING."""
        typing_only = {id(inner) for node in ast.walk(self.tree) if _checks_types(node) for inner in ast.walk(node)}
        for node in ast.walk(self.tree):
            for target in self._targets(node):
                yield Import(target, node.lineno, id(node) in typing_only)  # type: ignore[attr-defined]

    def _targets(self, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        base = node.module or ""
        if node.level:
            package = self.module.split(".") if self.path.name == "__init__.py" else self.module.split(".")[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        return [full if (full := f"{base}.{alias.name}") in self.modules else base for alias in node.names]


def _checks_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def read_package(folder: Path) -> list[Source]:
    """Every Python file below `folder`."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    blank = [Source(path, "", frozenset()) for path in paths]
    modules = frozenset(source.module for source in blank)
    return [Source(path, (folder / path).read_text(encoding="utf-8"), modules) for path in paths]


def read_floors(page: str) -> dict[str, int]:
    """Room to floor, from the picture in ARCHITECTURE.md: lines such as `5  search  artifact  report     choose`."""
    floors = {}
    for line in re.findall(r"^\d  .*$", page, flags=re.MULTILINE):
        rooms = re.split(r" {3,}", line[3:])[0]
        floors.update({room: int(line[0]) for room in rooms.split()})
    return floors


def room_of(module: str) -> str:
    """The room of a module of ours; empty for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor_breaches(source: Source, floors: dict[str, int]) -> list[str]:
    """Imports that run up, sideways, or to the package's own front. The front itself may import anything."""
    if not source.room or source.room not in floors:
        return [f"{source.path}: room {source.room!r} is not in ARCHITECTURE.md"] if source.room else []
    inner = [found for found in source.imports() if found.target.split(".")[0] == PACKAGE]
    return [
        f"{source.path}:{found.line} imports {found.target}"
        for found in inner
        if room_of(found.target) != source.room
        and floors.get(room_of(found.target), len(floors)) >= floors[source.room]
    ]


def technique_breaches(source: Source) -> list[str]:
    """Imports from one folder of techniques to another."""
    if source.room != "techniques" or len(source.path.parts) < 3:
        return []
    own = source.path.parts[1]
    return [
        f"{source.path}:{found.line} imports {found.target}"
        for found in source.imports()
        if found.target.startswith(f"{PACKAGE}.techniques.")
        if (folder := found.target.split(".")[2]) != own and _is_folder(f"{PACKAGE}.techniques.{folder}", found, source)
    ]


def _is_folder(name: str, found: Import, source: Source) -> bool:
    return any(module.startswith(f"{name}.") for module in {found.target, *source.modules})


def cycle(sources: list[Source]) -> list[str]:
    """The modules of one import cycle, or nothing."""
    graph = {
        source.module: {found.target for found in source.imports() if found.target in source.modules} - {source.module}
        for source in sources
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def import_breaches(source: Source, refused: Callable[[str], bool]) -> list[str]:
    """Imports that `refused` says no to."""
    return [f"{source.path}:{found.line} imports {found.target}" for found in source.imports() if refused(found.target)]


def is_pickler(module: str) -> bool:
    return module.split(".")[0] in PICKLERS


def is_network(module: str) -> bool:
    return module in NETWORK_MODULES or module.split(".")[0] in NETWORK


def torch_pickles(source: Source) -> list[str]:
    """Calls of torch.save, and of torch.load without the restricted unpickler."""
    return [
        f"{source.path}:{node.lineno} {ast.unparse(node.func)}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save")
        if not any(given.arg == "weights_only" and ast.unparse(given.value) == "True" for given in node.keywords)
    ]


def outside_imports(source: Source) -> list[str]:
    """Run-time imports of anything but the standard library and the same room."""
    return [
        f"{source.path}:{found.line} imports {found.target}"
        for found in source.imports()
        if not found.when_checking_types
        and found.target.split(".")[0] not in sys.stdlib_module_names
        and not found.target.startswith(f"{PACKAGE}.{source.room}")
    ]


def timers(source: Source) -> list[str]:
    """Uses of the clocks that code is measured with."""
    used = [
        (node.lineno, node.attr)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id == "time" and node.attr in TIMERS) or node.value.id == "timeit"
    ]
    named = [
        (node.lineno, alias.name)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "timeit")
        for alias in node.names
        if alias.name in TIMERS or node.module == "timeit"
    ]
    return [f"{source.path}:{line} {name}" for line, name in used + named]


def broad_excepts(source: Source) -> list[str]:
    """Handlers of everything that neither end in a plain `raise` nor carry a comment that says why."""
    lines = source.text.splitlines()
    return [
        f"{source.path}:{node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node)
        if not _raises_again(node) and not _is_explained(lines, node.lineno)
    ]


def _is_broad(handler: ast.ExceptHandler) -> bool:
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"Exception"}
    )
    return bool(names & {"Exception", "BaseException"})


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_explained(lines: list[str], number: int) -> bool:
    before, here, after = lines[number - 2].strip(), lines[number - 1], lines[number].strip()
    comment = here.partition("#")[2].replace("noqa: BLE001", "")
    return bool(comment.strip(" -:#")) or before.startswith("#") or after.startswith("#")


def long_functions(source: Source) -> list[str]:
    """Functions whose statements are long; a command's options and its help text do not count."""
    return [
        f"{source.path}:{node.lineno} {node.name} has {size} lines"
        for node in source.functions()
        if (size := _statement_lines(node)) > MAX_FUNCTION_LINES
    ]


def _statement_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or node.lineno) - first.lineno + 1
