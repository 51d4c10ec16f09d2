"""Form NATIVE: the exported graph written out as C++ for the example's shapes and compiled when it is loaded."""

from __future__ import annotations

import _ctypes
import ctypes
import dataclasses
import threading
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vivace.codegen.arrays import BOOL, FLOAT, LONG, Array
from vivace.codegen.build import flags_for, library
from vivace.codegen.panels import FLOAT32, INT8
from vivace.codegen.team import enlist
from vivace.codegen.tiles import vector_of
from vivace.core.errors import ArtifactError, CallError, NotApplicable, ProofFailed
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.devices import machine
from vivace.runtimes import batches, eager
from vivace.runtimes import program as programs
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.inductor import example_of
from vivace.runtimes.lanes.branches import SHARED
from vivace.runtimes.lanes.run import MOST, operators_in
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.source import source_of
from vivace.runtimes.native.walk import write
from vivace.runtimes.settings.around import Run, under_settings
from vivace.runtimes.settings.parts import in_parts

BRANCHES = "branches"
"""An option: the thread that takes each operator alone, a digit for each of the graph's, or `SHARED`."""
PRODUCTS, KEPT, OTHERS = "products", "kept", "others"
"""Options: what products are computed in, the layers that are not (separated by commas), and in what those are."""
LEAST_FLOPS = 1_000_000
"""Of products, for a thread: some microseconds, which calling another thread and waiting for it take too."""
DTYPES = {FLOAT: torch.float32, LONG: torch.int64, BOOL: torch.bool}
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}


def load(model: Model) -> programs.Program:
    """Write the graph out, compile it (some seconds), and give a program that never compiles again.

    The code is for the example's shapes. Calls of another number of samples are answered in parts of the example's, so
    that every answer is the code's. Where other dimensions may vary too, calls of other shapes run operator by
    operator; in int8, whose answers are not those of operators, this is refused. Raises NotApplicable for that, without
    a C++ compiler, and with an operator's name where there is no C for it; ProofFailed where the code answers the
    example wrongly.
    """
    is_int8, varies = model.settings.option(PRODUCTS, FLOAT32) == INT8, _varies(model)
    if is_int8 and varies:
        raise NotApplicable("int8 code is for calls of one shape; give fixed_shapes=True (--fixed-shapes)")
    example = [leaf.contiguous() for leaf in example_of(model)]
    exact = compiled(model, example)
    if not is_int8:
        _verify(model, exact, example)
    return entered(model, _or_operators(model, exact, example) if varies else _any_batch(model, exact, example))


def entered(model: Model, run: Run) -> programs.Program:
    """Compiled code as a program that is called as the model is."""
    settings = model.settings.replace(threads=None, inference_mode=False)  # the code has threads of its own
    return programs.Program(model.signature, model.settings, under_settings(run, settings), Form.NATIVE)


def _varies(model: Model) -> bool:
    """Whether calls may differ by more than the number of samples."""
    return any(
        size is None and axis != spec.batch_axis
        for spec in model.signature.inputs
        for axis, size in enumerate(spec.shape)
    )


def _any_batch(model: Model, exact: Run, example: Sequence[Tensor]) -> Run:
    if not model.signature.has_batch:
        return exact
    axes = [spec.batch_axis for spec in model.signature.inputs]
    size = next(leaf.shape[axis] for leaf, axis in zip(example, axes, strict=True) if axis is not None)
    return in_parts({size: exact}, model.signature)


def _or_operators(model: Model, exact: Run, example: Sequence[Tensor]) -> Run:
    shapes = [leaf.shape for leaf in example]
    others = torch.no_grad()(eager.flat_function(model.program))

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return exact(leaves) if [leaf.shape for leaf in leaves] == shapes else others(*leaves)

    return run


def _verify(model: Model, exact: Run, example: Sequence[Tensor]) -> None:
    """See that the code answers the example as the graph's operators do."""
    with torch.no_grad():
        expected = eager.run_flat(model.program, example)
    coarse = eager.is_coarse(model.program)
    if not all(batches.close(want, got, coarse) for want, got in zip(expected, exact(example), strict=True)):
        raise ProofFailed("the compiled code does not answer the example as the graph does; please report it")


def compiled(model: Model, example: Sequence[Tensor]) -> Run:
    """The compiled code of calls like the example. Raises as `load` does."""
    return _compiled(model, example)[0]


@dataclasses.dataclass(frozen=True)
class Timed:
    """Compiled code that notes how long its first thread is at each statement; `owners` are the nodes of the graph
    whose work a statement does."""

    run: Run
    owners: tuple[tuple[str, ...], ...]
    told: ctypes.Array[ctypes.c_double]
    """Seconds of each statement in the last call."""


def timed(model: Model, example: Sequence[Tensor]) -> Timed:
    """The code of calls like the example, with a clock in it. Raises as `load` does."""
    run, built, owners = _compiled(model, example, is_timed=True)
    built.told.restype = ctypes.POINTER(ctypes.c_double * len(owners))
    return Timed(run, tuple(owners), built.told().contents)


def _compiled(
    model: Model, example: Sequence[Tensor], is_timed: bool = False
) -> tuple[Run, ctypes.CDLL, list[tuple[str, ...]]]:
    here = machine.detect()
    if not here.cxx_compiler:
        raise NotApplicable(f"it needs {Fact.CXX_COMPILER.value}")
    program, arrays, results = written(model, example)
    outputs = [Array.whole(f"y{place}", one.shape, one.kind) for place, one in enumerate(results)]
    _check_answers(model, outputs)
    program.check_memory()
    source = source_of(program, arrays, outputs, results, is_timed)
    built = library(source, here.cxx_compiler, flags_for(here.architecture, program.vector.lanes))
    run = _entry(built, list(program.constants.values()), [leaf.dtype for leaf in example], outputs)
    return run, built, program.owners()


def written(model: Model, example: Sequence[Tensor]) -> tuple[Program, list[Array], list[Array]]:
    """The statements of calls like the example, with the arrays of what is given and of what is found.

    The settings' threads write it; where they name none, as many as PyTorch has, but no more than have work.
    """
    here = machine.detect()
    vector = vector_of(here.instructions)
    if model.settings.option(PRODUCTS, FLOAT32) == INT8 and not vector.has_int8:
        raise NotApplicable("there is C for int8 only for x86 processors with AVX2")
    arrays = [_array(f"x{place}", leaf) for place, leaf in enumerate(example)]
    threads = max(1, min(here.cores_allowed, model.settings.threads or torch.get_num_threads()))
    lanes = _lanes(model, threads)
    program = Program(vector, threads, precision_of(model), lanes)
    results = write(program, model.program, example, arrays)
    enough = max(1, min(threads, program.flops // LEAST_FLOPS))
    if lanes is None and model.settings.threads is None and enough < threads:
        program = Program(vector, enough, precision_of(model))
        results = write(program, model.program, example, arrays)
    return program, arrays, results


def _lanes(model: Model, threads: int) -> dict[str, int] | None:
    """The thread of each node that one takes alone; None where no branches are to be taken apart."""
    text = str(model.settings.option(BRANCHES, ""))
    if not text:
        return None
    nodes = [node.name for node in operators_in(model.program)]
    if len(text) != len(nodes) or not set(text) <= {SHARED, *map(str, range(MOST))}:
        raise ArtifactError(
            f"the program has {len(text)} branches for its {len(nodes)} operators; allowed is a digit from 0 to "
            f"{MOST - 1}, or {SHARED}, for each"
        )
    if threads == 1:
        return None
    return {name: int(lane) % threads for name, lane in zip(nodes, text, strict=True) if lane != SHARED}


def precision_of(model: Model) -> Callable[[str], str]:
    """What the products of a layer are computed in, by the model's options."""
    products = str(model.settings.option(PRODUCTS, FLOAT32))
    kept = frozenset(filter(None, str(model.settings.option(KEPT, "")).split(",")))
    others = str(model.settings.option(OTHERS, FLOAT32))
    return lambda name: others if name in kept else products


def _array(name: str, leaf: Tensor) -> Array:
    if leaf.dtype not in KINDS:
        raise NotApplicable(f"the call holds a tensor of {leaf.dtype}; compiled code takes float32, int64 and bool")
    return Array.whole(name, tuple(leaf.shape), KINDS[leaf.dtype])


def _check_answers(model: Model, outputs: Sequence[Array]) -> None:
    """Raise NotApplicable for an answer that is promised in a type that code does not give."""
    for spec, output in zip(model.signature.outputs, outputs, strict=True):
        if torch_dtype(spec.dtype) is not DTYPES[output.kind]:
            raise NotApplicable(f"the answer is {spec.dtype}; compiled code gives float32, int64 and bool")


def _entry(built: ctypes.CDLL, kept: list[Tensor], dtypes: Sequence[torch.dtype], outputs: Sequence[Array]) -> Run:
    """How the code is called. Its constants live as long as this, and its threads end with it."""
    addresses = (ctypes.c_void_p * max(1, len(kept)))(*[one.data_ptr() for one in kept])
    built.bind(addresses)
    if built.begin():
        raise NotApplicable("threads of compiled code cannot be started")
    enlist(built)
    enter = built.run
    enter.argtypes = [ctypes.c_void_p] * (len(dtypes) + len(outputs))
    enter.restype = ctypes.c_int
    shapes = [(one.shape, DTYPES[one.kind]) for one in outputs]
    empty, one_at_a_time = torch.empty, threading.Lock()  # a program has one memory for what it computes

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        given = [leaf if leaf.is_contiguous() else leaf.contiguous() for leaf in leaves]
        made = [empty(shape, dtype=dtype) for shape, dtype in shapes]
        with one_at_a_time:
            is_outside = enter(*[one.data_ptr() for one in given], *[one.data_ptr() for one in made])
        if is_outside:
            raise CallError(
                "an index in the call is outside of what it is an index of; give numbers that the model has"
            )
        return made

    weakref.finalize(run, _ended, built, kept)
    return run


def _ended(built: ctypes.CDLL, kept: list[Tensor]) -> None:
    built.end()
    kept.clear()
    _ctypes.dlclose(built._handle)  # its arrays are as large as all activations
