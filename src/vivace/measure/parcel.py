"""The user's own object on its way to our own child: pickled by value over a private pipe, never stored.

Tensors and arrays that go to several children, such as those of a dataset, may be laid on a shelf: plain numbers in
files that every child maps instead of receiving a copy of its own (`shelved`).

Classes of `__main__`, of a notebook and of files that were loaded from a path travel by value. Tensors on the CPU are
written straight from their storage, and tied ones stay tied.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from vivace.core.errors import UnsupportedModel
from vivace.measure import wire

TypedStorage = torch.storage.TypedStorage
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError)
"""What picklers raise for objects that cannot be sent."""


class _Bytes:
    """One storage; a single object for each, so that tensors that share a storage still do on the other side."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        file = _laid(self.storage, self.storage.nbytes(), self.storage.data_ptr())
        if file is not None:
            return _mapped, (file, self.storage.nbytes())
        data: Any = torch.empty(0, dtype=torch.uint8).set_(self.storage).numpy()
        return _untyped, (pickle.PickleBuffer(data),)


class Shelf:
    """The numbers of big tensors and arrays, each written once to a file in a folder. They must not change meanwhile.

    On Linux a file has no name there: children open it by the descriptor that this process holds, so that nothing is
    left behind when it is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[tuple[int, int], tuple[str, Any]] = {}
        self._open: list[int] = []

    def file_of(self, holder: Any, size: int, address: int) -> str | None:
        """The file that holds these bytes; None where the disk has no room for it. Keeps the holder alive, so that
        its address stays its own."""
        if (address, size) not in self._files:
            file = self.folder / f"{len(self._files)}.bin"
            try:
                name = self._written(file, _bytes_of(holder))
            except OSError:
                file.unlink(missing_ok=True)
                return None
            self._files[address, size] = name, holder
        return self._files[address, size][0]

    def _written(self, file: Path, data: Any) -> str:
        """The name by which children open a file with these bytes."""
        if not DESCRIPTORS.is_dir():
            file.write_bytes(data)
            return str(file)
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        file.unlink()
        try:
            with open(descriptor, "wb", closefd=False) as opened:
                opened.write(data)
        except OSError:
            os.close(descriptor)
            raise
        self._open.append(descriptor)
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def close(self) -> None:
        """Let go of what has no name. What children have mapped stays until they end."""
        while self._open:
            os.close(self._open.pop())


DESCRIPTORS = Path("/proc/self/fd")
_SHELF: ContextVar[Shelf | None] = ContextVar("shelf", default=None)
SHELVED_BYTES = 1 << 20
"""Smaller ones are sent: a file of its own costs about as much."""


@contextlib.contextmanager
def shelved() -> Iterator[None]:
    """Big tensors and arrays are written once for all children that are sent something inside, which map them: what a
    child writes into them stays its own. Inside another one, that one's shelf goes on."""
    if _SHELF.get() is not None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="vivace-") as folder, contextlib.closing(Shelf(Path(folder))) as shelf:
        token = _SHELF.set(shelf)
        try:
            yield
        finally:
            _SHELF.reset(token)


def _laid(holder: Any, size: int, address: int) -> str | None:
    shelf = _SHELF.get()
    return shelf.file_of(holder, size, address) if shelf is not None and size >= SHELVED_BYTES else None


def _bytes_of(holder: Any) -> Any:
    if isinstance(holder, np.ndarray):
        return holder.reshape(-1).view(np.uint8)
    return torch.empty(0, dtype=torch.uint8).set_(holder).numpy()


def _mapped(file: str, size: int) -> Any:
    return torch.UntypedStorage.from_file(file, shared=False, nbytes=size)


def _mapped_array(file: str, dtype: str, shape: tuple[int, ...]) -> Any:
    return np.memmap(file, dtype, "c", shape=shape).view(np.ndarray)


def _untyped(data: bytes | bytearray) -> torch.UntypedStorage:
    """A storage of torch's own allocation, so that its alignment is what torch's kernels are used to."""
    if not data:
        return torch.empty(0).untyped_storage()
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(memoryview(data))
        source = torch.frombuffer(view if not view.readonly else bytearray(data), dtype=torch.uint8)
        copy = torch.empty(len(data), dtype=torch.uint8).copy_(source)
        del source
    return copy.untyped_storage()


def _typed(storage: torch.UntypedStorage, dtype: torch.dtype) -> TypedStorage:
    return TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _parametrized(kind: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """A layer without its state whose tensors of these names are computed of others, such as a normed weight."""
    layer = kind.__new__(kind)
    parametrize._inject_new_class(layer)
    for name in names:
        parametrize._inject_property(layer, name)
    return layer


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """cloudpickle, with storages sent as plain bytes instead of through torch.save."""

    def __init__(self, file: io.RawIOBase | io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self._storages: dict[int, _Bytes] = {}

    def reducer_override(self, value: Any) -> Any:
        """Take over the storages of plain CPU tensors, big plain arrays and parametrized layers; leave everything else
        to cloudpickle."""
        if type(value) is np.ndarray and value.flags.c_contiguous and value.dtype.kind in "biufc":
            file = _laid(value, value.nbytes, value.ctypes.data)
            if file is not None:
                return _mapped_array, (file, value.dtype.str, value.shape)
        if type(value) is TypedStorage and value._untyped_storage.device.type == "cpu":
            untyped = value._untyped_storage
            holder = self._storages.setdefault(untyped._cdata, _Bytes(untyped))
            return _typed, (holder, value.dtype)
        if isinstance(value, nn.Module) and parametrize.is_parametrized(value):  # torch refuses to pickle its class
            kind: Any = parametrize.type_before_parametrizations(value)
            computed: Any = value.parametrizations
            return _parametrized, (kind, tuple(computed)), kind.__getstate__(value)
        return super().reducer_override(value)


def send(value: object, write: wire.Write) -> None:
    """Pickle a value into chunks. Raises UnsupportedModel when some part of it cannot be pickled."""
    writer = wire.ChunkWriter(write)
    with _unreachable_modules_by_value(), _told():
        _Pickler(writer).dump(value)
    writer.finish()


def packed(value: object) -> bytes:
    """A value as bytes, for a child that hands it on to children of its own. Raises UnsupportedModel as `send` does."""
    file = io.BytesIO()
    with _unreachable_modules_by_value(), _told():
        _Pickler(file).dump(value)
    return file.getvalue()


def unpacked(data: bytes) -> object:
    """What `packed` made bytes of, in a child of ours."""
    return pickle.loads(data)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say of what cannot be pickled what to do."""
    try:
        yield
    except UNPICKLABLE as error:
        raise UnsupportedModel(
            f"the model cannot be sent to a worker process: {type(error).__name__}: {error}; remove open files, "
            "locks and the like from it, or export it to a .pt2 or .onnx file and give its path"
        ) from error


def why_not_sent(value: object) -> str | None:
    """Why a value cannot be pickled, such as "TypeError: cannot pickle '_thread.lock' object"; None where it can."""
    try:
        send(value, lambda _: None)
    except UnsupportedModel as error:
        cause = error.__cause__
        return f"{type(cause).__name__}: {cause}"
    return None


def receive(descriptor: int) -> object:
    """Unpickle what our own parent sent."""
    reader = wire.ChunkReader(descriptor)
    try:
        return pickle.Unpickler(io.BufferedReader(reader, wire.CHUNK_BYTES)).load()
    finally:
        reader.drain()


@contextlib.contextmanager
def _unreachable_modules_by_value() -> Iterator[None]:
    """Classes of modules that a fresh interpreter could not import by name (loaded from a path) go by value."""
    modules = [module for name, module in sys.modules.copy().items() if _is_unreachable(name, module)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def goes_by_name(name: str) -> bool:
    """Whether classes of a module are sent as its name and theirs, so that the child imports it."""
    is_loaded = name in sys.modules and name not in cloudpickle.list_registry_pickle_by_value()
    return is_loaded and name != "__main__" and not _is_unreachable(name, sys.modules[name])


def _is_unreachable(name: str, module: Any) -> bool:
    if "." in name or name in sys.stdlib_module_names or name == "__main__" or not isinstance(module, ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or name in cloudpickle.list_registry_pickle_by_value():
        return False
    return bool(_where_found(name) != file)


def _where_found(name: str) -> str | None:
    """The file that a fresh import of a top-level module would load, by the finders that a child has too."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec.origin
    return None
