"""An exported graph as plain data beside its .pt2 file: read without PyTorch's exporter, which takes seconds to import.

The numbers stay in the .pt2 file, where they lie as they are. What is not as plain as that is left to the exporter.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError
from vivace.runtimes import eager, pt2

FILE = "graph.json"
SCHEMA = 1
ARITHMETIC = {
    f"operator.{one.__name__}": one
    for one in (
        *(operator.getitem, operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv),
        *(operator.mod, operator.neg, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    )
}
"""What a graph does with numbers of its shapes, by name."""
_NAMED = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}
_NAME = re.compile(r"(?!__)[A-Za-z]\w*")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a graph takes before the call's own tensors: the name of a parameter, buffer or constant."""

    target: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """All of them, in order."""

    input_specs: tuple[Spec, ...]


@dataclasses.dataclass
class PlainProgram:
    """What those who run a graph ask of an ExportedProgram, under the same names. It cannot be saved or exported."""

    graph_module: fx.GraphModule
    graph_signature: Taken
    state_dict: Mapping[str, Tensor]
    example_inputs: tuple[tuple[Tensor, ...], dict[str, Any]] | None = None
    constants: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def graph(self) -> fx.Graph:
        return self.graph_module.graph


class NotPlain(Exception):  # nothing went wrong: the exporter reads it
    """A graph holds what is not written as plain data."""


def write(program: ExportedProgram, archive: Path, path: Path) -> None:
    """Write the graph of a program, whose numbers lie in `archive`, to `path`; nothing where it is not plain, or where
    the numbers are not found as they are."""
    try:
        names = eager.lifted_names(program)
        values = eager.lifted_values(program)
        if not all(isinstance(value, Tensor) for value in values):
            raise NotPlain("a constant is no tensor")
        dtypes = {name: _named(value.dtype) for name, value in zip(names, values, strict=True)}
        document = {
            "schema": SCHEMA,
            "torch": torch.__version__,
            "of": pt2.graph_digest(archive),
            "taken": [{"name": name, "dtype": dtypes[name]} for name in names],
            "nodes": _nodes(eager.copied_graph(program)),
        }
        found = pt2.numbers(archive, {name: _dtype(kind) for name, kind in dtypes.items()})
        if not all(_is_same(found[name], value) for name, value in zip(names, values, strict=True)):
            raise NotPlain("its numbers do not lie as they are")
        text = json.dumps(document, allow_nan=False)
    except (NotPlain, ArtifactError, ValueError):
        return
    path.write_text(text, encoding="utf-8")


def read(archive: Path, path: Path) -> PlainProgram | None:
    """The program that `write` wrote; None where it wrote none, or with another PyTorch, or for another graph.

    Raises ArtifactError for a damaged file and for operators that no exported graph holds.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            document = strict_json.load(file)
        if (document["schema"], document["torch"]) != (SCHEMA, torch.__version__):
            return None
        pt2.refuse_pickles(archive)
        if document["of"] != pt2.graph_digest(archive):
            return None
        taken = {one["name"]: _dtype(one["dtype"]) for one in document["taken"]}
        graph = _graph(document["nodes"])
        if sum(node.op == "placeholder" for node in graph.nodes) < len(document["taken"]):
            raise ValueError("the graph takes fewer tensors than it names")
        specs = tuple(Spec(one["name"]) for one in document["taken"])
        module = fx.GraphModule(torch.nn.Module(), graph)
        return PlainProgram(module, Taken(specs), pt2.numbers(archive, taken))
    except ArtifactError:
        raise
    except Exception as error:  # whatever a changed file may make of a graph
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {str(error)[:300]}") from error


def _is_same(found: Tensor, value: Tensor) -> bool:
    """Whether two tensors hold the same bytes in the same order, and both take gradients or neither does."""
    kinds = [(one.shape, one.stride(), one.dtype, one.requires_grad) for one in (found, value)]
    if kinds[0] != kinds[1]:
        return False
    ours, theirs = (one.detach().contiguous().reshape(-1).view(torch.uint8) for one in (found, value))
    return torch.equal(ours, theirs)


def _nodes(graph: fx.Graph) -> list[dict[str, Any]]:
    places: dict[fx.Node, int] = {}
    made: list[dict[str, Any]] = []
    for node in graph.nodes:
        entry = {"name": node.name, "op": node.op, "args": _told(node.args, places), "val": _value(node)}
        if node.op == "call_function":
            entry |= {"target": _target(node.target), "kwargs": {k: _told(v, places) for k, v in node.kwargs.items()}}
        elif node.op not in ("placeholder", "output"):
            raise NotPlain(f"a node of kind {node.op}")
        places[node] = len(made)
        made.append(entry)
    return made


def _target(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return str(target)
    name = f"operator.{getattr(target, '__name__', '')}"
    if ARITHMETIC.get(name) is target:
        return name
    raise NotPlain(f"the operator {target}")


def _told(value: Any, places: Mapping[fx.Node, int]) -> Any:
    """A value as JSON: nodes by their place, what PyTorch has names for by name."""
    match value:
        case fx.Node():
            return {"node": places[value]}
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": value.hex()}
        case list() | tuple():
            return [_told(one, places) for one in value]
        case torch.device():
            return {"device": str(value)}
        case torch.dtype() | torch.layout() | torch.memory_format():
            kind = next(name for name, sort in _NAMED.items() if isinstance(value, sort))
            return {kind: _named(value)}
    raise NotPlain(f"an argument that is a {type(value).__name__}")


def _value(node: fx.Node) -> dict[str, Any] | None:
    """The kind of tensor that a node gives; its shape where no size varies."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    shape = list(value.shape) if all(type(size) is int for size in value.shape) else None
    return {"dtype": _named(value.dtype), "shape": shape}


def _graph(entries: Sequence[Mapping[str, Any]]) -> fx.Graph:
    graph = fx.Graph()
    made: list[fx.Node] = []
    for entry in entries:
        args, name = _read(entry["args"], made), entry["name"]
        if entry["op"] == "placeholder":
            node = graph.placeholder(_identifier(name))
        elif entry["op"] == "output":
            node = graph.output(args[0])
        elif entry["op"] != "call_function":
            raise ValueError(f"a node of kind {entry['op']!r}")
        else:
            kwargs = {_identifier(key): _read(value, made) for key, value in entry["kwargs"].items()}
            node = graph.create_node("call_function", _callable(entry["target"]), tuple(args), kwargs, name=name)
        if node.name != name and node.op != "output":
            raise ValueError(f"the graph has two nodes of the name {name!r}, or one that is none")
        if entry["val"] is not None:
            shape = entry["val"]["shape"]
            dtype = _dtype(entry["val"]["dtype"])
            node.meta["val"] = torch.empty([0] if shape is None else shape, dtype=dtype, device="meta")
        made.append(node)
    graph.lint()
    return graph


def _callable(target: str) -> Any:
    """An operator by its name. Raises ValueError for one that no exported graph holds."""
    if target in ARITHMETIC:
        return ARITHMETIC[target]
    if not target.startswith("aten.") or not pt2.is_operator(f"torch.ops.{target}"):
        raise ValueError(f"the graph holds the operator {target[:80]!r}, which is not one that torch.export writes")
    packet, _, overload = target.removeprefix("aten.").partition(".")
    found = getattr(getattr(torch.ops.aten, packet), overload)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"{target[:80]!r} is no operator")
    return found


def _read(value: Any, made: Sequence[fx.Node]) -> Any:
    match value:
        case list():
            return [_read(one, made) for one in value]
        case {"node": int() as place} if 0 <= place < len(made):
            return made[place]
        case {"float": str() as text}:
            return float.fromhex(text)
        case {"device": str() as text}:
            return torch.device(text)
        case {"dtype": str()} | {"layout": str()} | {"memory_format": str()}:
            ((kind, name),) = value.items()
            return _thing(name, _NAMED[kind])
        case dict():
            raise ValueError(f"the graph holds an argument that is none: {str(value)[:80]}")
    return value


def _identifier(name: str) -> str:
    if not _NAME.fullmatch(name) or not name.isidentifier():
        raise ValueError(f"{name[:80]!r} is no name in a graph")
    return name


def _named(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = _thing(name, torch.dtype)
    return found


def _thing(name: str, kind: type) -> Any:
    found = getattr(torch, _identifier(name), None)
    if not isinstance(found, kind):
        raise ValueError(f"{name[:80]!r} is no {kind.__name__}")
    return found
