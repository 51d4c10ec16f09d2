"""Form XLA, run: compiled when it is loaded for a few numbers of samples, of which every call is made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError, NotApplicable
from vivace.core.program import MOST_PADDED, Form, Model, numbers_of
from vivace.core.signature import Signature
from vivace.runtimes.program import Program, as_numpy
from vivace.runtimes.settings.around import Run
from vivace.runtimes.settings.parts import in_parts
from vivace.runtimes.xla import stablehlo
from vivace.runtimes.xla.layout import Placing, layout_of, placing, words

_MOST_BATCHES = 32


def load(model: Model) -> Program:
    """A program on the first device that JAX finds: a TPU where there is one, else a GPU, else the CPU.

    One that was compiled for a mesh (the option `mesh`) is sharded over as many devices as there are of it, and
    `runs_on` of the program says over which. Everything is compiled here, once for each number of samples in the option
    `batches`. A call with another number is answered in parts of these sizes, the last one filled up with copies of a
    sample whose answers are dropped: no call compiles. Raises MissingExtra, ArtifactError, and NotApplicable where XLA
    cannot compile the program.
    """
    jax = stablehlo.import_jax()
    path = Path(model.program)
    exported, weights = stablehlo.read(path)
    sizes, wanted, signature = batches_of(model), layout_of(model, weights), model.signature
    with stablehlo.wide(jax):
        layout = wanted.within(len(jax.devices()))
        devices = jax.devices()[: layout.devices]
        places = {size: placing(jax, devices, layout, signature, len(weights), size) for size in sizes}
        held = placed(jax, weights, places[sizes[0]].weights)
        compiled = {size: _compiled(jax, exported, held, signature, size, path, places[size]) for size in sizes}
    runs = {
        size: _runner(jax, call, held, signature, places[size], is_shared=_is_one_cpu(devices))
        for size, call in compiled.items()
    }
    run = in_parts(runs, signature) if signature.has_batch else runs[sizes[0]]
    program = Program(signature, model.settings, run, Form.XLA)
    program.device_peak_bytes = lambda: sum(map(_peak_bytes, devices))
    program.runs_on = words(layout, wanted, devices[0].platform)
    program.has_fewer_devices = layout != wanted
    return program


def _is_one_cpu(devices: Sequence[Any]) -> bool:
    return len(devices) == 1 and devices[0].platform == "cpu"


def _peak_bytes(device: Any) -> int:
    """The most that lay in a device's own memory; 0 on the CPU, whose memory is the process's."""
    told = None if device.platform == "cpu" else device.memory_stats()
    return int((told or {}).get("peak_bytes_in_use", 0))


def batches_of(model: Model) -> tuple[int, ...]:
    """The numbers of samples that get a compilation, smallest first; one of any number where the shapes are fixed.

    Raises ArtifactError for an option `batches` that is no list of such numbers.
    """
    if not model.signature.has_batch:
        return (1,)
    try:
        told = strict_json.loads(str(model.settings.option("batches", "[1]")))
        sizes = tuple(sorted(set(told)))
        plain = all(type(size) is int and size > 0 for size in sizes)
        fits = plain and max(numbers_of(shapes_of(model.signature, size)) for size in sizes) <= MOST_PADDED
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"the option batches is no list of numbers of samples: {error}") from error
    if not fits or len(sizes) > _MOST_BATCHES:
        raise ArtifactError(
            f"the option batches is {str(told)[:80]}; allowed are 1 to {_MOST_BATCHES} numbers of samples, each of a "
            f"call of {MOST_PADDED:,} numbers at most"
        )
    return sizes


def shapes_of(signature: Signature, size: int) -> list[tuple[int, ...]]:
    """The shapes of the flat inputs of a call of so many samples."""
    return [tuple(size if n is None else n for n in spec.shape) for spec in signature.inputs]


def _compiled(
    jax: Any, exported: Any, weights: Sequence[Any], signature: Signature, size: int, path: Path, place: Placing
) -> Any:
    specs = [
        stablehlo.spec(jax, shape, stablehlo.dtype_of(spec), where)
        for spec, shape, where in zip(signature.inputs, shapes_of(signature, size), place.inputs, strict=True)
    ]
    try:
        lowered = jax.jit(exported.call, out_shardings=tuple(place.outputs)).lower(list(weights), specs)
    except Exception as error:  # JAX's checks of a call have many kinds of errors
        raise ArtifactError(f"{path} does not take what its signature says: {str(error)[:300]}") from error
    try:
        return lowered.compile()
    except Exception as error:  # so have XLA's compilers
        raise NotApplicable(f"XLA cannot compile the program: {type(error).__name__}: {str(error)[:300]}") from error


def placed(jax: Any, leaves: Sequence[Tensor], places: Sequence[Any]) -> list[Any]:
    """Tensors where JAX is to have them."""
    return [jax.device_put(_given(jax, leaf), where) for leaf, where in zip(leaves, places, strict=True)]


def _given(jax: Any, leaf: Tensor) -> Any:
    """A tensor as JAX takes it for any device, without a copy where it lies on the CPU in one piece."""
    if leaf.dtype is torch.bfloat16:
        return as_numpy(leaf.detach().contiguous().view(torch.int16)).view(jax.numpy.bfloat16)
    return as_numpy(leaf)


def _runner(jax: Any, call: Any, weights: Sequence[Any], signature: Signature, place: Placing, is_shared: bool) -> Run:
    """Flat tensors to flat tensors, for exactly one shape. `is_shared` says that answers lie where tensors can."""
    promised = [getattr(torch, spec.dtype) for spec in signature.outputs]
    back = _shared if is_shared else copied
    held, is_alone = list(weights), len(place.devices) == 1

    def run(leaves: Sequence[Tensor]) -> list[Tensor]:
        with stablehlo.wide(jax):
            given = [_given(jax, leaf) for leaf in leaves] if is_alone else placed(jax, leaves, place.inputs)
            answers = call(held, given)
            jax.block_until_ready(answers)  # the caller may write to what it gave as soon as this returns
            return [back(answer).to(dtype) for answer, dtype in zip(answers, promised, strict=True)]

    return run


def _shared(answer: Any) -> Tensor:
    """A CPU buffer of JAX's own as a tensor, which keeps it alive."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(answer)
    return tensor


def copied(answer: Any) -> Tensor:
    """An answer of any device, or of parts on several, as a tensor."""
    if answer.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(answer.astype("float32"))).bfloat16()
    return torch.from_numpy(np.array(answer))
