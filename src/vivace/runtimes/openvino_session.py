"""Form OPENVINO: an OpenVINO model, compiled for the CPU when it is loaded, its precision always stated."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError, NotApplicable
from vivace.core.program import MOST_PADDED, PRECISIONS, Form, Model, Settings, numbers_of
from vivace.core.signature import Signature
from vivace.devices.machine import cores_here, threads_here
from vivace.runtimes.buffers import held
from vivace.runtimes.onnx_graph import mentions
from vivace.runtimes.openvino_graph import import_openvino
from vivace.runtimes.program import Program, as_numpy
from vivace.runtimes.settings.around import Run
from vivace.runtimes.settings.signal_stack import kept_signal_stack

Shapes = tuple[tuple[int, ...], ...]
"""Of a call's flat inputs."""
_MOST_SHAPES = 32
ACTIVATION_GROUP = "activation_group"
"""The option that says for how many inputs of a product with compressed weights a call's numbers get one int8 scale."""
GROUPS = (0, 32, 64, 128, 256)
"""Allowed there; 0 leaves them in float. Without the option OpenVINO decides: 32 where it has kernels for it."""


def load(model: Model) -> Program:
    """A program on OpenVINO's CPU plug-in, in the precision of the settings and no other.

    Settings' threads None leaves OpenVINO's default, but where OMP_NUM_THREADS asks for fewer than there are cores, of
    which OpenVINO itself takes no notice. Raises MissingExtra, ArtifactError, NotApplicable.
    """
    openvino = import_openvino()
    run = runner(compiled(openvino, model, None).create_infer_request(), model)
    exact = {
        shapes: runner(compiled(openvino, model, shapes).create_infer_request(), model)
        for shapes in exact_shapes(model.settings)
    }
    if exact:
        run = _dispatch(run, exact)
    return Program(model.signature, model.settings, run, Form.OPENVINO)


def exact_shapes(settings: Settings) -> list[Shapes]:
    """The shapes of all flat inputs that get a compilation of their own, beside the one for any number of samples.

    >>> exact_shapes(Settings().with_options(exact_shapes="[[[8, 3]], [[1, 3]]]"))
    [((8, 3),), ((1, 3),)]
    """
    try:
        told = strict_json.loads(str(settings.option("exact_shapes", "[]")))
        found = [tuple(tuple(int(n) for n in shape) for shape in shapes) for shapes in told]
        largest = max(map(numbers_of, found), default=0)
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"the option exact_shapes is no list of calls' shapes: {error}") from error
    if len(found) > _MOST_SHAPES:
        raise ArtifactError(f"the option exact_shapes has {len(found)} shapes; allowed are {_MOST_SHAPES}")
    if largest > MOST_PADDED:
        raise ArtifactError(f"the option exact_shapes has a call of {largest:,} numbers; allowed are {MOST_PADDED:,}")
    return found


def compiled(openvino: Any, model: Model, shapes: Shapes | None, **more: str) -> Any:
    """The model compiled for the CPU, for the given shapes of its flat inputs or for whatever its file allows.

    `more` is told to OpenVINO beside the settings.
    """
    path = Path(model.program)
    _check_shapes(shapes, model.signature)
    if mentions(path, b"<!DOCTYPE"):
        raise ArtifactError(f"{path} declares a document type, which OpenVINO does not write; it is not loaded")
    try:
        core = openvino.Core()
        graph = core.read_model(str(path))
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO cannot read {path}: {str(error)[:400]}") from error
    try:
        if shapes:
            graph.reshape({key: openvino.PartialShape(list(shapes[i])) for key, i in _positions(graph, model)})
        with kept_signal_stack():
            return core.compile_model(graph, "CPU", configuration(model.settings) | more)
    except RuntimeError as error:
        raise NotApplicable(f"OpenVINO cannot compile the model: {str(error)[:400]}") from error


def _check_shapes(shapes: Shapes | None, signature: Signature) -> None:
    if shapes and len(shapes) != len(signature.inputs):
        raise ArtifactError(
            f"the option exact_shapes has a call of {len(shapes)} inputs, not of {len(signature.inputs)}"
        )
    for spec, shape in zip(signature.inputs, shapes or (), strict=False):
        problem = spec.problem_with(spec.dtype, shape)
        if problem:
            raise ArtifactError(f"the option exact_shapes asks for a call that the program does not take: {problem}")


def _dispatch(general: Run, exact: Mapping[Shapes, Run]) -> Run:
    """Choose by shape: fixed shapes let OpenVINO plan its memory and its loops ahead."""

    def call(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return exact.get(tuple([leaf.shape for leaf in leaves]), general)(leaves)

    return call


def configuration(settings: Settings) -> dict[str, str]:
    """What OpenVINO is told: precision stated (its own default silently takes bf16), for latency, no pinning.

    >>> configuration(Settings(threads=2))["INFERENCE_NUM_THREADS"]
    '2'
    """
    if settings.precision not in PRECISIONS:
        raise NotApplicable(f"OpenVINO is told the precision {settings.precision!r}; allowed are {PRECISIONS}")
    told = {
        "INFERENCE_PRECISION_HINT": settings.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": "NO",
    }
    threads = settings.threads or (threads_here() if threads_here() < cores_here() else None)
    if threads is not None:
        told["INFERENCE_NUM_THREADS"] = str(threads)
    group = settings.option(ACTIVATION_GROUP, -1)
    if group != -1:
        if group not in GROUPS:
            raise ArtifactError(f"the option {ACTIVATION_GROUP} is {group!r}; allowed are {GROUPS}")
        told["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(group)
    return told


def runner(request: Any, model: Model) -> Run:
    """One infer request, used again for each call; its outputs are copied before the next call overwrites them."""
    kept = _positions(request.get_compiled_model(), model)
    return _held(request, model, kept) or _by_dictionary(request, model, kept)


def _held(request: Any, model: Model, kept: list[tuple[int, int]]) -> Run | None:
    """Calls through the request's own memory; None unless every shape is fixed and numpy knows every type."""
    graph, signature = request.get_compiled_model(), model.signature
    if any(port.partial_shape.is_dynamic or port.element_type not in _native() for port in _ports(graph)):
        return None
    promised = [getattr(torch, spec.dtype) for spec in signature.outputs]
    with held.making_buffers():
        inputs = [(i, torch.from_numpy(request.get_input_tensor(key).data)) for key, i in kept]
        outputs = [(torch.from_numpy(request.get_output_tensor(n).data), dtype) for n, dtype in enumerate(promised)]
    if any(buffer.dtype is not getattr(torch, signature.inputs[i].dtype) for i, buffer in inputs):
        return None
    is_small = held.size_of([buffer for _, buffer in inputs]) <= held.COPIED_BYTES
    feed = held.copies(inputs) if is_small else _shared(request, kept)
    return held.held(feed, functools.partial(request.infer, share_outputs=True), outputs)


def _shared(request: Any, kept: list[tuple[int, int]]) -> held.Feed:
    """A feed that has the request read the caller's own memory, or a copy where that lies strided.

    The request does not keep what it reads alive; the feed returns it, for others to do so.
    """
    tensor = import_openvino().Tensor

    def feed(leaves: Sequence[Tensor]) -> list[Any]:
        shared = [(key, tensor(as_numpy(leaves[i]), shared_memory=True)) for key, i in kept]
        for key, one in shared:
            request.set_input_tensor(key, one)
        return shared

    return feed


@functools.cache
def _native() -> tuple[Any, ...]:
    """The element types that numpy has too."""
    kinds = import_openvino().Type
    return (kinds.f32, kinds.f64, kinds.f16, kinds.i64, kinds.i32, kinds.i16, kinds.i8, kinds.u8, kinds.boolean)


def _ports(graph: Any) -> list[Any]:
    return [*graph.inputs, *graph.outputs]


def _by_dictionary(request: Any, model: Model, kept: list[tuple[int, int]]) -> Run:
    """Calls in any shape and type, as OpenVINO's Python offers them."""
    infer = request.infer
    dtypes = [getattr(torch, spec.dtype) for spec in model.signature.outputs]
    one_at_a_time = threading.Lock()

    def call(leaves: Sequence[Tensor]) -> list[Tensor]:
        with one_at_a_time:
            results = infer({key: as_numpy(leaves[i]) for key, i in kept}, share_inputs=True, share_outputs=True)
            return [torch.from_numpy(results[n]).to(dtype, copy=True) for n, dtype in enumerate(dtypes)]

    return call


def _positions(graph: Any, model: Model) -> list[tuple[int, int]]:
    """For each of OpenVINO's inputs, which flat input feeds it."""
    count = len(model.signature.inputs)
    if len(graph.inputs) == count:
        return [(i, i) for i in range(count)]
    wanted = {f"leaves_{i}": i for i in range(count)}
    found = [next((wanted[name] for name in port.get_names() if name in wanted), None) for port in graph.inputs]
    if None in found:
        raise ArtifactError("the OpenVINO model's inputs are not those of the signature")
    return [(key, i) for key, i in enumerate(found) if i is not None]
