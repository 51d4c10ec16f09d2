"""The files of form XLA: StableHLO by jax.export and weights as safetensors, written, and checked before use."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vivace.core.errors import ArtifactError, EnvironmentFault, NotApplicable, install_line
from vivace.core.program import Form, Model
from vivace.core.signature import Signature, TensorSpec
from vivace.devices.disk import let_others_read
from vivace.runtimes.onnx_graph import require
from vivace.runtimes.xla import graph

PROGRAM, CALL, WEIGHTS = "model.stablehlo", "model.call", "model.safetensors"
"""The program is text. Its packed form is not kept: the reader of that crashes on bytes that were changed. The call is
what jax.export says of the program, without the program: types and shapes of what it takes and gives."""
BESIDE = (CALL, WEIGHTS)
PLATFORMS = ("cpu", "cuda", "tpu")
_BATCH = "samples"
_ALLOWED_CALL = "stablehlo.custom_call @shape_assertion("
_REFUSED = re.compile(r"custom_call|stablehlo\.(infeed|outfeed|send|recv|composite)\b")


def to_xla(model: Model, folder: Path, products: str = "highest") -> Model:
    """The model as `folder`/model.stablehlo with its weights beside it, for any number of samples where it takes that.

    `products` is how XLA multiplies float32 matrices: "highest" as float32, "default" as the device likes best, which
    on a TPU is one pass in bfloat16.

    Raises MissingExtra without JAX; NotApplicable where an operator cannot be written in JAX, where a dimension other
    than the number of samples is free, and where threads or copies are asked for: XLA has one pool for the process.
    """
    jax = import_jax()
    if model.form is not Form.TORCH:
        raise NotApplicable(f"a program of form {model.form.value} cannot be translated to JAX")
    _check_settings(model)
    program = graph.translatable(model.program)
    weights = graph.weights_of(program)
    function = graph.jax_function(program)
    with wide(jax):
        specs = [spec(jax, weight.shape, weight.dtype) for weight in weights]
        inputs = _inputs(jax, model.signature)
        with warnings.catch_warnings(), jax.default_matmul_precision(products):
            warnings.simplefilter("ignore")
            exported = _export(jax, function, specs, inputs)
        text = _text_of(exported)
        call = bytes(dataclasses.replace(exported, mlir_module_serialized=b"").serialize())
    _write(folder, text, call, weights)
    return model.replace(form=Form.XLA, program=folder / PROGRAM)


def require_jax() -> None:
    """Raise MissingExtra where JAX is not installed."""
    for package in ("jax", "jaxlib"):
        require(package, "tpu", "running programs in XLA")


def import_jax() -> Any:
    """The jax package with jax.export. Raises MissingExtra, and EnvironmentFault where it is there and broken."""
    require_jax()
    state = np.random.get_state()  # importing JAX draws from NumPy's generator, which is the user's
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jax
            import jax.export
    except Exception as error:  # a package whose parts do not fit raises whatever it meets first
        told = " ".join(str(error).split())[:300]
        raise EnvironmentFault(
            f"running programs in XLA is unavailable: jax is installed and cannot be imported "
            f"({type(error).__name__}: {told}); {install_line('tpu')}, with --force-reinstall where it is there already"
        ) from error
    finally:
        np.random.set_state(state)
    return jax


def wide(jax: Any) -> contextlib.AbstractContextManager[Any]:
    """In which 64-bit integers and floats stay so; JAX narrows them otherwise."""
    context: contextlib.AbstractContextManager[Any] = jax.enable_x64(True)
    return context


def read(path: Path) -> tuple[Any, list[Tensor]]:
    """What `to_xla` wrote: the exported program and its weights, neither trusted.

    The text is parsed, printed anew and searched before XLA sees it: a program may hold nothing but arithmetic, as
    custom calls can run code of the process by its address, and transfers wait for ever. Raises ArtifactError,
    MissingExtra.
    """
    jax = import_jax()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is no readable StableHLO: {type(error).__name__}: {error}") from error
    try:
        exported = jax.export.deserialize(bytearray(path.with_name(CALL).read_bytes()))
        exported = dataclasses.replace(exported, mlir_module_serialized=_packed(text))
        plain = _text_of(exported)
    except Exception as error:  # the reader and MLIR have errors of their own
        told = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{path} is no readable StableHLO: {type(error).__name__}: {told}") from error
    refused = _REFUSED.search(plain.replace(_ALLOWED_CALL, ""))
    if refused is not None:
        raise ArtifactError(f"{path} holds {refused.group()}, which is not arithmetic; it is not loaded")
    return exported, _read_weights(path.with_name(WEIGHTS))


def _text_of(exported: Any) -> str:
    """The program as MLIR prints it, however it was written, without the places in source files that it came from."""
    from jax.interpreters.mlir import make_ir_context

    with make_ir_context():
        return str(exported.mlir_module(serialized=False).operation.get_asm(enable_debug_info=False))


def _packed(text: str) -> bytes:
    """StableHLO as text in the form that JAX hands to XLA. Raises what MLIR does for text that is none."""
    from jaxlib.mlir.dialects import stablehlo

    version = stablehlo.get_version_from_compatibility_requirement(stablehlo.StablehloCompatibilityRequirement.WEEK_4)
    packed: bytes = stablehlo.serialize_portable_artifact_str(text.encode(), version)
    return packed


def _check_settings(model: Model) -> None:
    if model.settings.threads is not None or model.settings.instances > 1:
        raise NotApplicable("XLA computes with one pool of threads for the whole process, so threads cannot be chosen")
    free = [
        f"{spec.name} dimension {axis}"
        for spec in model.signature.inputs
        for axis, size in enumerate(spec.shape)
        if size is None and axis != spec.batch_axis
    ]
    if free:
        raise NotApplicable(f"XLA compiles for one shape, and {', '.join(free)} may vary; use fixed shapes")


def _inputs(jax: Any, signature: Signature) -> list[Any]:
    """Shapes and types of the flat inputs, with one symbol for the number of samples."""
    scope = jax.export.SymbolicScope()
    (samples,) = jax.export.symbolic_shape(_BATCH, scope=scope)

    def shape(one: TensorSpec) -> tuple[Any, ...]:
        return tuple(samples if size is None else size for size in one.shape)

    return [spec(jax, shape(one), dtype_of(one)) for one in signature.inputs]


def spec(jax: Any, shape: Sequence[Any], dtype: torch.dtype, place: Any = None) -> Any:
    """A tensor that JAX is told of without its values, where `place` says, else anywhere."""
    from vivace.runtimes.xla.elementwise import jax_dtype

    return jax.ShapeDtypeStruct(tuple(shape), jax_dtype(dtype), sharding=place)


def dtype_of(one: TensorSpec) -> torch.dtype:
    """The dtype that a signature names."""
    found: torch.dtype = getattr(torch, one.dtype)
    return found


def _export(jax: Any, function: graph.JaxFunction, weights: Sequence[Any], inputs: Sequence[Any]) -> Any:
    try:
        return jax.export.export(jax.jit(function), platforms=PLATFORMS)(list(weights), list(inputs))
    except NotApplicable:
        raise
    except Exception as error:  # JAX's tracing has many kinds of errors
        told = " ".join(str(error).split())[:400]
        raise NotApplicable(f"JAX cannot write the program as StableHLO: {type(error).__name__}: {told}") from error


def _write(folder: Path, text: str, call: bytes, weights: Sequence[Tensor]) -> None:
    """All files, all or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".converting.", dir=folder.parent))
    try:
        (staged / PROGRAM).write_text(text, encoding="utf-8")
        (staged / CALL).write_bytes(call)
        save_file({str(i): one.cpu().contiguous().clone() for i, one in enumerate(weights)}, str(staged / WEIGHTS))
        let_others_read(staged / WEIGHTS)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _read_weights(path: Path) -> list[Tensor]:
    try:
        found = load_file(str(path))
        return [found[str(i)] for i in range(len(found))]
    except (SafetensorError, KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {error}") from error
