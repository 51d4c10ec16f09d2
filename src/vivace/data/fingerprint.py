"""A fingerprint of a dataset and of what it does to samples: equal for two only if they would give the same samples.

What it takes in: the bytecode of the dataset's class, of its bases and of every function of the user's that they name,
by itself or through a module; the dataset's state, followed into lists, dictionaries, arrays, tensors and objects,
those written in C as far as they can be pickled; size and time of the files that paths in that state name (a folder's
files one by one); versions of Python and of the packages that the code names.

What it cannot see: the state of objects in C that cannot be pickled, what is imported inside a function, environment
variables, files whose names are computed while a sample is read outside of such folders, and whatever is on the
network. Who uses it adds digests of some samples as they are now.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import hashlib
import operator
import os
import platform
import stat
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vivace.core.training.user_code import cells_of, is_installed, names_in

MOST_OBJECTS = 2_000_000
MOST_FILES = 1_000_000
LONGEST_PATH = 4096
IGNORED = frozenset(
    {
        "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__orig_bases__", "__parameters__",
        "__abstractmethods__", "_abc_impl", "__slotnames__", "__firstlineno__", "__static_attributes__", "__qualname__",
    }
)  # fmt: skip
NO_FOLDERS = frozenset({"/", "//", ".", "./", "..", "../"})
"""Texts that code is full of, and that name no folder of samples."""
PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__")
PLAIN = (type(None), bool, int, float, complex, str, bytes)
FROZEN = (tuple, frozenset, types.CodeType)


def fingerprint(*values: Any) -> str:
    """32 hexadecimal digits that stand for these values; the module says what of them.

    >>> fingerprint([1, 2.0]) == fingerprint([1, 2.0]), fingerprint([1, 2.0]) == fingerprint([1, 2.5])
    (True, False)
    """
    walk = _Walk()
    walk.text(platform.python_version())
    for value in values:
        walk.take(value)
    return walk.digest.hexdigest()


def digest_of(tensor: torch.Tensor) -> str:
    """Of a tensor's values, shape and kind."""
    walk = _Walk()
    walk.take(tensor)
    return walk.digest.hexdigest()


class _Walk:
    """Feeds a digest with everything that is reachable; what was met before is told by when it was."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self._met: dict[int, int] = {}
        self._alive: list[Any] = []
        self._files = 0

    def text(self, *words: Any) -> None:
        for word in words:
            data = str(word).encode("utf-8", "surrogatepass")
            self.digest.update(len(data).to_bytes(8, "little") + data)

    def take(self, root: Any) -> None:
        """Everything reachable from a value, nearest last: a stack, so that nothing is too deep."""
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if isinstance(value, PLAIN):
                self.text(type(value).__name__, repr(value))
                self._path(value)
                continue
            if not isinstance(value, FROZEN):  # equal ones may be one object or several, as the interpreter likes
                if id(value) in self._met:
                    self.text("met", self._met[id(value)])
                    continue
                self._met[id(value)] = len(self._met)
                self._alive.append(value)  # or its id could be another's
            if len(self._met) > MOST_OBJECTS:
                self.text("and more")
                return
            waiting += reversed(list(self._parts(value)))

    def _parts(self, value: Any) -> Iterable[Any]:
        """Tell what a value is; what it holds comes next."""
        self.text(type(value).__qualname__)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, os.PathLike):
            self.text(os.fspath(value))
            self._path(os.fspath(value))
            return ()
        if isinstance(value, types.ModuleType):
            self.text(value.__name__, getattr(value, "__version__", ""))
            return ()
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, dict | types.MappingProxyType):
            return [*(part for item in value.items() for part in item), *self._further(value)]
        if isinstance(value, list | tuple):
            self.text(len(value))
            return [*value, *self._further(value)]
        if isinstance(value, set | frozenset):
            return [*sorted(value, key=repr), *self._further(value)]
        return self._callable(value) if callable(value) else [*self._object(value), *_pickled(value)]

    def _further(self, value: Any) -> Iterable[Any]:
        """What a class of the user's adds to one of Python's."""
        return () if type(value).__module__ == "builtins" else self._object(value)

    def _tensor(self, value: torch.Tensor) -> Iterable[Any]:
        self.text(value.dtype, tuple(value.shape), value.device.type, value.layout)
        dense = value if value.layout == torch.strided else value.to_dense()
        flat = dense.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data: Any = flat.view(torch.uint8).numpy()
        self.digest.update(data)
        return ()

    def _array(self, value: np.ndarray[Any, Any]) -> Iterable[Any]:
        self.text(value.dtype, value.shape)
        further = () if type(value) in (np.ndarray, np.memmap) else self._object(value)
        if value.dtype.hasobject:
            return [*value.reshape(-1).tolist(), *further]
        self.digest.update(np.ascontiguousarray(value).tobytes())
        return further

    def _code(self, code: types.CodeType) -> Iterable[Any]:
        self.text(code.co_name, code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        return code.co_consts

    def _class(self, value: type) -> Iterable[Any]:
        self.text(value.__qualname__)
        if _is_installed(value):
            return (_package(value),)
        own = sorted(name for name in vars(value) if name not in IGNORED)
        return [*value.__mro__[1:], *(part for name in own for part in (name, vars(value)[name]))]

    def _callable(self, value: Any) -> Iterable[Any]:
        if isinstance(value, types.MethodType):
            return value.__func__, value.__self__
        if isinstance(value, staticmethod | classmethod):
            return (value.__func__,)
        if isinstance(value, functools.partial):
            return value.func, value.args, value.keywords
        if not isinstance(value, types.FunctionType):
            self.text(getattr(value, "__name__", ""))
            return [*self._object(value), *_pickled(value)]
        self.text(value.__qualname__)
        if _is_installed(value):
            return (_package(value),)
        cells = [cell.cell_contents for cell in cells_of(value).values()]
        named = _named(value.__globals__, names_in(value.__code__))
        return [value.__code__, value.__defaults__, value.__kwdefaults__, *cells, *named]

    def _object(self, value: Any) -> Iterable[Any]:
        if isinstance(value, property):
            return value.fget, value.fset
        state = vars(value) if hasattr(value, "__dict__") else {}
        slots = {name: getattr(value, name) for kind in type(value).__mro__ for name in _slots(kind)
                 if hasattr(value, name)}  # fmt: skip
        told = ((f"attribute {name}", part) for name, part in (*state.items(), *slots.items()))
        return [type(value), *(part for pair in told for part in pair)]

    def _path(self, value: Any) -> None:
        """Size and time of what a text names, if it names a file or a folder that is there."""
        if not isinstance(value, str) or not 0 < len(value) < LONGEST_PATH or "\0" in value or "\n" in value:
            return
        try:
            found = Path(value).stat()
        except OSError:
            return
        if not stat.S_ISDIR(found.st_mode):
            self._file(found)
        elif value not in NO_FOLDERS:
            self._folder(value)

    def _folder(self, path: str) -> None:
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                if self._files >= MOST_FILES:
                    return
                self.text(name)
                with contextlib.suppress(OSError):  # gone meanwhile, or a link to nothing
                    self._file((Path(folder) / name).stat())

    def _file(self, found: os.stat_result) -> None:
        self._files += 1
        self.text(found.st_size, found.st_mtime_ns)


def _named(space: Mapping[str, Any], names: list[str]) -> list[Any]:
    """What names stand for among these; of a module of the user's, what the same names stand for in it."""
    found, waiting, seen = list[Any](), [space], set[int]()
    while waiting:
        inside = waiting.pop()
        for name in names:
            part = inside.get(name, inside)  # itself: it has no such name
            if part is inside:
                continue
            found += [f"name {name}", part]
            if isinstance(part, types.ModuleType) and not is_installed(part) and id(part) not in seen:
                seen.add(id(part))
                waiting.append(vars(part))
    return found


def _pickled(value: Any) -> Iterable[Any]:
    """What a pickler would keep of an object whose class says so itself, as those in C do."""
    kind = type(value)
    says_so = any(getattr(kind, name, None) is not getattr(object, name, None) for name in PICKLING)
    reducer: Any = operator.methodcaller("__reduce_ex__", 4) if says_so else copyreg.dispatch_table.get(kind)
    try:
        parts = reducer(value) if reducer else ()
        if not isinstance(parts, tuple):
            return (parts,)
        return [list(part) if isinstance(part, Iterator) else part for part in parts]
    except Exception:  # noqa: BLE001  it cannot be pickled, and says so in a way of its own
        return ()


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else slots


def _is_installed(value: Any) -> bool:
    """Whether a class or function is of Python itself or of an installed package, whose version then tells enough."""
    return is_installed(sys.modules.get(getattr(value, "__module__", None) or ""))


def _package(value: Any) -> str:
    """Module and version."""
    top = sys.modules.get(value.__module__.partition(".")[0])
    return f"{value.__module__} {getattr(top, '__version__', '')}"
