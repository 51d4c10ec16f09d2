"""The shape of a call or an answer: how nested tuples, lists, dicts and records hold their tensors.

Runtimes see flat lists of tensors only; a Structure puts them back into what the user's model returned. It is plain
JSON, so an artifact needs no class of the user's: a record whose class is already imported comes back as that class,
and otherwise as a Record with the same fields.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vivace.core.errors import UsageError

CONSTANTS = (type(None), bool, int, float, str)
_LEAVES, _SEQUENCES, _TABLES = ("tensor", "constant"), ("tuple", "list"), ("dict", "record")
_NO_NUMBER = "float"
"""The type name of a constant that JSON has no number for: it is kept as a text, such as inf."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """One node: a `tensor`, a `constant`, or a container of `items`.

    `kind` is tensor, constant, tuple, list, dict or record. `keys` are a dict's keys or a record's field names.
    `type_name` is the record's class as `module:qualified name`.
    """

    kind: str
    items: tuple[Structure, ...] = ()
    keys: tuple[str, ...] = ()
    constant: bool | int | float | str | None = None
    type_name: str = ""

    @property
    def tensors(self) -> int:
        """How many tensors it holds."""
        return 1 if self.kind == "tensor" else sum(item.tensors for item in self.items)

    def build(self, leaves: Sequence[Any]) -> Any:
        """Put flat leaves back into the nested value."""
        if len(leaves) != self.tensors:
            raise UsageError(f"received {len(leaves)} tensors for a structure of {self.tensors}")
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.kind == "tensor":
            return next(leaves)
        if self.kind == "constant":
            return self.constant
        values = [item._build(leaves) for item in self.items]
        if self.kind == "tuple":
            return tuple(values)
        if self.kind == "list":
            return values
        if self.kind == "dict":
            return dict(zip(self.keys, values, strict=True))
        return _build_record(self.type_name, self.keys, values)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        node: dict[str, Any] = {"kind": self.kind}
        if self.kind == "constant":
            node["constant"] = self.constant
            if isinstance(self.constant, float) and not math.isfinite(self.constant):
                node |= {"constant": str(self.constant), "type_name": _NO_NUMBER}
        if self.keys:
            node["keys"] = list(self.keys)
        if self.type_name:
            node["type_name"] = self.type_name
        if self.items:
            node["items"] = [item.to_json() for item in self.items]
        return node

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Structure:
        """Read what `to_json` wrote. Raises KeyError, TypeError, ValueError and the like for anything else."""
        constant, type_name = node.get("constant"), node.get("type_name", "")
        if node["kind"] == "constant" and type_name == _NO_NUMBER:
            constant, type_name = float(str(constant)), ""
        found = Structure(
            kind=node["kind"],
            items=tuple(Structure.from_json(item) for item in node.get("items", ())),
            keys=tuple(node.get("keys", ())),
            constant=constant,
            type_name=type_name,
        )
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError for a node that `build` could not put together."""
        texts = all(isinstance(text, str) for text in (*self.keys, self.type_name))
        named = self.kind in _TABLES and len(self.keys) == len(self.items) == len(set(self.keys))
        plain = self.kind in (*_LEAVES, *_SEQUENCES) and not self.keys and not self.type_name
        whole = isinstance(self.constant, CONSTANTS) and not (self.kind in _LEAVES and self.items)
        if not (texts and whole and (named or plain)):
            raise ValueError(
                f"a structure has a node of kind {self.kind!r} whose items, keys or constant do not fit it"
            )


class Record(dict[str, Any]):
    """A stand-in for a record whose class is not imported here: fields by attribute, by key and by position.

    `_type_name` is the class that it stands for, so that whoever has that class can build it.
    """

    def __init__(self, fields: Mapping[str, Any], type_name: str = "") -> None:
        super().__init__(fields)
        self.__dict__["_type_name"] = type_name

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no field {name!r}; this record has {', '.join(self)}") from None

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order, as Hugging Face outputs give them."""
        return tuple(value for value in self.values() if value is not None)


def normalize_inputs(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One call as (args, kwargs): a tuple or list is positional, a dict with text keys is keyword, all else is one
    argument.

    >>> normalize_inputs({"x": 1})
    ((), {'x': 1})
    >>> normalize_inputs(1)
    ((1,), {})
    """
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list) and not hasattr(inputs, "_fields"):
        return tuple(inputs), {}
    return (inputs,), {}


def flatten(value: Any, is_tensor: Callable[[Any], bool]) -> tuple[list[Any], Structure]:
    """Split a nested value into its tensors, in order, and the structure that puts them back.

    Raises UsageError for a leaf that is neither a tensor nor None, bool, int, float or str.
    """
    leaves: list[Any] = []
    return leaves, _flatten(value, is_tensor, leaves, "")


def _flatten(value: Any, is_tensor: Callable[[Any], bool], leaves: list[Any], path: str) -> Structure:
    if is_tensor(value):
        leaves.append(value)
        return Structure("tensor")
    if isinstance(value, CONSTANTS):
        return Structure("constant", constant=value)
    if isinstance(value, Record):
        items = tuple(_flatten(v, is_tensor, leaves, f"{path}.{k}") for k, v in value.items())
        return Structure("record", items, tuple(value), type_name=vars(value)["_type_name"])
    fields = record_fields(value)
    if fields is not None:
        items = tuple(_flatten(v, is_tensor, leaves, f"{path}.{k}") for k, v in fields.items())
        kind = type(value)
        return Structure("record", items, tuple(fields), type_name=f"{kind.__module__}:{kind.__qualname__}")
    if isinstance(value, tuple | list):
        items = tuple(_flatten(v, is_tensor, leaves, f"{path}[{i}]") for i, v in enumerate(value))
        return Structure("tuple" if isinstance(value, tuple) else "list", items)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = tuple(_flatten(v, is_tensor, leaves, f"{path}[{k!r}]") for k, v in value.items())
        return Structure("dict", items, tuple(value))
    raise UsageError(
        f"cannot handle a value of type {type(value).__name__} at {path or 'the top'}; allowed are tensors, None, "
        "bool, int, float, str, and tuples, lists, dicts with text keys, dataclasses and named tuples of these"
    )


def record_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass, a named tuple or a Hugging Face output; None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return None


def _build_record(type_name: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
    """The user's class if it is already imported and takes these fields; never an import on an artifact's word."""
    module_name, _, qualified_name = type_name.partition(":")
    found: Any = sys.modules.get(module_name)
    for part in qualified_name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None  # getattr could import lazily
    fields = dict(zip(keys, values, strict=True))
    if isinstance(found, type) and _takes(found, keys):
        return found(**fields)
    return Record(fields, type_name)


def _takes(kind: type, keys: Sequence[str]) -> bool:
    """Whether a class is a dataclass or a named tuple with exactly these fields, and building it runs nothing.

    What stands in an artifact chooses the class and its constants: a class with a `__post_init__` of its own is not
    built, but for the mappings that Hugging Face's models answer.
    """
    if dataclasses.is_dataclass(kind):
        if hasattr(kind, "__post_init__") and not issubclass(kind, Mapping):
            return False
        return [field.name for field in dataclasses.fields(kind) if field.init] == list(keys)
    return issubclass(kind, tuple) and list(getattr(kind, "_fields", ())) == list(keys)
