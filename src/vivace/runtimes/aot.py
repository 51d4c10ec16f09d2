"""Form AOT_INDUCTOR: a package of native code compiled beforehand; it loads fast and runs with the user's rights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vivace.core.errors import ArtifactError, NotApplicable
from vivace.core.layer import joined
from vivace.core.program import Form, Model
from vivace.runtimes import batches, eager
from vivace.runtimes.fusions import inductor_kernels
from vivace.runtimes.graphs import quantized
from vivace.runtimes.inductor import example_of, require_compiler
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import threads, under_settings


def to_aot(model: Model, folder: Path) -> Model:
    """Compile a model of form TORCH into `folder`/native.pt2 with the settings' options as Inductor's.

    What it fused is noted in the model.

    Raises NotApplicable without a C++ compiler, when compiling fails, or when the code is wrong for other batch sizes.
    """
    require_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "native.pt2"
    program = eager.placed(model.program, model.settings.device)
    quantized.lower(program, "compiling an int8 graph with AOTInductor")
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            threads(model.settings.threads),
            inductor_kernels.recorded(program.graph) as compilations,
        ):
            warnings.simplefilter("ignore")
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=dict(model.settings.options)
            )
    except Exception as error:  # the compiler may raise anything
        raise NotApplicable(f"AOTInductor failed: {type(error).__name__}: {str(error)[:400]}") from error
    groups = inductor_kernels.groups(compilations[-1], program.graph) if compilations else []
    compiled = model.replace(form=Form.AOT_INDUCTOR, program=path, fused=joined(model.fused, groups))
    _verify(model, compiled)
    return compiled


def load(model: Model) -> Program:
    """A program of compiled native code. The caller has decided to trust it. Raises ArtifactError."""
    try:
        runner = torch._inductor.aoti_load_package(str(model.program)).loader
    except (RuntimeError, OSError, ValueError) as error:
        raise ArtifactError(f"{model.program} cannot be loaded as native code for this machine: {error}") from error

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        outputs: Sequence[Tensor] = runner.boxed_run([leaf.contiguous() for leaf in leaves])
        return outputs

    return Program(model.signature, model.settings, under_settings(run, model.settings), Form.AOT_INDUCTOR)


def _verify(original: Model, compiled: Model) -> None:
    program, axes = load(compiled), [spec.batch_axis for spec in original.signature.inputs]
    example = example_of(original)
    calls = [example] + [batches.resized(example, axes, n) for n in (1, 3) if original.signature.has_batch]
    coarse = eager.is_coarse(original.program)
    for leaves in calls:
        with torch.no_grad():
            expected, received = eager.run_flat(original.program, leaves), program.run(leaves)
        if not all(batches.close(want, got, coarse) for want, got in zip(expected, received, strict=True)):
            raise NotApplicable(f"AOTInductor's code is wrong on shapes {[list(leaf.shape) for leaf in leaves]}")
