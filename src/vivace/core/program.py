"""A model on its way through a plan: which form its program has, how it is called, and the settings it runs under."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from vivace.core.layer import Fused, StoredWeight
from vivace.core.signature import Signature


class Form(Enum):
    """What a program is made of; each form has one runtime that saves, loads and runs it."""

    TORCH = "torch"
    """A torch.export.ExportedProgram over flat tensors, run operator by operator."""
    INDUCTOR = "inductor"
    """The same, compiled by torch.compile when it is loaded."""
    AOT_INDUCTOR = "aot-inductor"
    """A package of native code compiled beforehand; loading it needs the user's trust."""
    ONNX = "onnx"
    """An ONNX file, run by ONNX Runtime."""
    OPENVINO = "openvino"
    """An OpenVINO model, compiled by OpenVINO when it is loaded."""
    XLA = "xla"
    """StableHLO with weights beside it, compiled by XLA when it is loaded, for whatever device JAX finds."""
    NATIVE = "native"
    """The graph of TORCH written out as C++ and compiled when it is loaded, for one call's shapes."""
    NULL = "null"
    """Nothing at all: answers zeros, for tests."""


PRECISIONS = ("f32", "bf16", "f16")
MOST_THREADS = 1024
"""Of all instances together. A library that cannot start as many as it is told to ends the process."""
MOST_BUCKETS = 32
MOST_PADDED = 1 << 26
"""Numbers that a stored shape of a call may hold: whoever calls the program pays for them with memory."""
_LONGEST = 1 << 40
_MOST_DIMENSIONS = 64
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


@dataclasses.dataclass(frozen=True)
class Padding:
    """Calls are padded with zeros to the smallest of these shapes that holds them, and their answers cut back.

    Each of `buckets` has a shape for every flat input; a call that fits in none runs as it is. `axes` are the
    dimensions that are padded, (input, its dimension): others stay as the call has them. Each of `cuts` says that an
    output's dimension is as long as an input's: (output, its dimension, input, its dimension). Each of `alike` says
    that two inputs' dimensions are as long as each other, (input, its dimension, input, its dimension); a call in which
    they are not runs as it is: padding was proved for no such call, and would hide what the program says to it.
    """

    buckets: tuple[tuple[tuple[int, ...], ...], ...]
    axes: tuple[tuple[int, int], ...]
    cuts: tuple[tuple[int, int, int, int], ...]
    alike: tuple[tuple[int, int, int, int], ...] = ()

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Padding:
        """Read what `Settings.to_json` wrote of it. Raises KeyError, TypeError, ValueError for anything else."""
        buckets = tuple(tuple(tuple(shape) for shape in call) for call in node["buckets"])
        axes = tuple(tuple(axis) for axis in node["axes"])
        cuts = tuple(tuple(cut) for cut in node["cuts"])
        alike = tuple(tuple(pair) for pair in node["alike"])
        numbers = (n for part in (axes, cuts, alike, *buckets) for numbers in part for n in numbers)
        if not all(type(number) is int and 0 <= number <= _LONGEST for number in numbers):
            raise ValueError("shapes to pad to, and dimensions to pad and cut, are whole numbers of 0 or more")
        if not 0 < len(buckets) <= MOST_BUCKETS or any(len(axis) != 2 for axis in axes):
            raise ValueError(
                f"it pads to {len(buckets)} shapes; allowed are 1 to {MOST_BUCKETS}, and axes of 2 numbers"
            )
        if any(len(told) != 4 for told in (*cuts, *alike)):
            raise ValueError("what is cut of answers, and which dimensions are alike, is told by 4 numbers")
        largest = max(map(numbers_of, buckets))
        if largest > MOST_PADDED:
            raise ValueError(f"it pads to calls of {largest:,} numbers; allowed are {MOST_PADDED:,}")
        return Padding(buckets, axes, cuts, alike)


def numbers_of(shapes: Sequence[Sequence[int]]) -> int:
    """How many numbers a call of these shapes holds.

    Raises ValueError for a shape of more than 64 dimensions, or of one that is not from 0 to 2^40 long.

    >>> numbers_of([(2, 8), (2,)])
    18
    """
    longest = max(map(len, shapes), default=0)
    if longest > _MOST_DIMENSIONS:
        raise ValueError(f"a shape has {longest:,} dimensions; allowed are {_MOST_DIMENSIONS}")
    if not all(0 <= length <= _LONGEST for shape in shapes for length in shape):
        raise ValueError(f"a dimension is shorter than 0 or longer than {_LONGEST:,}")
    return sum(map(math.prod, shapes))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program runs under. Entered around each call or handed to the runtime's session, not set globally.

    `threads` None leaves the runtime's own default. `instances` is how many copies of the program share each batch,
    each with that many threads. `heap_bytes`, where not 0, keeps freed memory in the process, so much of it in huge
    pages: the one setting that is the process's. `precision` is what a runtime that may choose is told to use.
    `options` are further switches of the program's own runtime, as sorted pairs. `padding`, where not None, has few
    shapes reach the runtime. `cuda_graph` records the kernels of calls on a CUDA device, to start them at once.
    """

    threads: int | None = None
    inference_mode: bool = False
    device: str = "cpu"
    precision: str = "f32"
    tf32: bool = False
    instances: int = 1
    heap_bytes: int = 0
    options: tuple[tuple[str, str | int | bool], ...] = ()
    padding: Padding | None = None
    cuda_graph: bool = False

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_options(self, **options: str | int | bool) -> Settings:
        """A copy with some runtime switches added or changed."""
        return self.replace(options=tuple(sorted({**dict(self.options), **options}.items())))

    def option(self, name: str, default: str | int | bool) -> str | int | bool:
        """One runtime switch."""
        return dict(self.options).get(name, default)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Settings:
        """Read what `to_json` wrote. Raises KeyError, TypeError, ValueError and the like for anything else."""
        padding = node.get("padding")
        read = {
            "padding": None if padding is None else Padding.from_json(padding),
            "options": tuple(sorted(node["options"].items())),
        }
        found = Settings(**{**node, **read})
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError for a setting of another type, or that no technique asks for."""
        if any(type(given) is not bool for given in (self.inference_mode, self.tf32, self.cuda_graph)):
            raise ValueError("inference_mode, tf32 and cuda_graph are true or false")
        if self.cuda_graph and self.device == "cpu":
            raise ValueError("it asks for a CUDA graph on the CPU")
        counts = (self.instances, 1 if self.threads is None else self.threads)
        if not all(type(count) is int and count > 0 for count in counts) or counts[0] * counts[1] > MOST_THREADS:
            each = "" if self.threads is None else f" of {self.threads!r} threads"
            raise ValueError(
                f"it asks for {self.instances!r} instances{each}; allowed are up to {MOST_THREADS} threads in all, and "
                "at least one of each"
            )
        if type(self.heap_bytes) is not int or self.heap_bytes < 0:
            raise ValueError(f"heap_bytes is {self.heap_bytes!r}; allowed are 0 and more")
        if self.precision not in PRECISIONS or not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise ValueError(
                f"it asks for {self.precision!r} on {self.device!r}; allowed are {PRECISIONS} on cpu or cuda"
            )


@dataclasses.dataclass(frozen=True)
class Model:
    """A program, its form, its signature and its settings; what a technique consumes and returns.

    `program` is an ExportedProgram for TORCH, INDUCTOR and NATIVE (what was read only to be run may hold a graph that
    answers the same questions), and a path to a file for the other forms.
    `lineage` is the short name of each technique applied so far: it keys conversions that plans can share.
    `fused` is what those techniques fused, by the layers' names; `stored_weights` the weights that they stored in
    another form; `quantized` the layers that they put into integers, by their names in the captured graph. Where they
    changed how much layers do, `flops_share` is what is left of the captured graph's products, if it was counted.
    """

    form: Form
    program: Any
    signature: Signature
    settings: Settings = Settings()
    lineage: tuple[str, ...] = ()
    fused: tuple[Fused, ...] = ()
    stored_weights: tuple[StoredWeight, ...] = ()
    quantized: tuple[str, ...] = ()
    flops_share: float | None = None

    def replace(self, **changes: Any) -> Model:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
