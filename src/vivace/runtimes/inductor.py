"""Form INDUCTOR: the exported graph compiled by Inductor when it is loaded; calls never compile."""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.core.program import Form, Model
from vivace.runtimes import batches, eager
from vivace.runtimes.calls import example_leaves
from vivace.runtimes.graphs import quantized
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import Run, threads, under_settings

_COMPILERS = ("g++", "clang++", "c++")
UNFUSED: dict[str, str | int | bool] = {"epilogue_fusion": False, "max_fusion_size": 1, "pattern_matcher": False}
"""Inductor's switches for as little fusion as it can be asked for."""
_Compiled = Callable[..., Sequence[Tensor]]


def load(model: Model) -> Program:
    """Compile the model and give a program that never compiles again.

    The settings' options are Inductor's own (`freezing`, `max_autotune`, ...). The example's exact shapes get a
    compilation of their own; when shapes may vary, a second one serves all others. There are no guards: `Program`
    checks each call against the signature instead. Raises NotApplicable without a C++ compiler, or when compiling
    fails.
    """
    require_compiler()
    from vivace.runtimes.inductor_compile import compile_graph, fixed, free  # imports Dynamo: a second that others save

    device = model.settings.device
    program = eager.placed(model.program, device)
    quantized.lower(program, "compiling an int8 graph with Inductor")
    example = [leaf.to(device) for leaf in example_of(model)]
    options = dict(model.settings.options)
    with torch.no_grad(), _quiet(), threads(model.settings.threads):
        exact = compile_graph(program, fixed(example), options)
        others = None
        if any(None in spec.shape for spec in model.signature.inputs):
            others = compile_graph(program, free(model, example), options)
        run = _dispatch(exact, others, [leaf.shape for leaf in example])
        run(example)
        if others is not None:
            _verify_one_sample(model, run, example)
    return Program(model.signature, model.settings, under_settings(run, model.settings), Form.INDUCTOR)


def compile_exactly(model: Model) -> None:
    """Compile the model for the example's exact shapes and keep nothing, for what is recorded meanwhile.

    Raises as `load` does.
    """
    require_compiler()
    from vivace.runtimes.inductor_compile import compile_graph, fixed

    program = eager.placed(model.program, model.settings.device)
    quantized.lower(program, "compiling an int8 graph with Inductor")
    example = [leaf.to(model.settings.device) for leaf in example_of(model)]
    with torch.no_grad(), _quiet(), threads(model.settings.threads):
        compile_graph(program, fixed(example), dict(model.settings.options))


def example_of(model: Model) -> list[Tensor]:
    """The example call that the program carries; zeros in the signature's shapes when it carries none."""
    kept = model.program.example_inputs
    return list(kept[0]) if kept is not None else example_leaves(model.signature)


def require_compiler() -> None:
    """Raise NotApplicable with the install line when there is no C++ compiler."""
    if not any(shutil.which(name) for name in _COMPILERS):
        raise NotApplicable("Inductor needs a C++ compiler; install one, for example: apt-get install g++")


def _dispatch(exact: _Compiled, others: _Compiled | None, shapes: list[torch.Size]) -> Run:
    """Choose by shape; compiled code relies on contiguous inputs."""

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        leaves = [leaf.contiguous() for leaf in leaves]
        if others is None or [leaf.shape for leaf in leaves] == shapes:
            return exact(*leaves)
        return others(*leaves)

    return run


def _verify_one_sample(model: Model, run: Run, example: Sequence[Tensor]) -> None:
    """Compilers assume that a free dimension exceeds 1; see that the assumption harms nothing here."""
    axes = [spec.batch_axis for spec in model.signature.inputs]
    coarse = eager.is_coarse(model.program)
    for size in (1, 3):
        leaves = batches.resized(example, axes, size)
        expected = eager.run_flat(eager.placed(model.program, model.settings.device), leaves)
        if not all(batches.close(want, got, coarse) for want, got in zip(expected, run(leaves), strict=True)):
            raise NotApplicable(f"Inductor's code for any number of samples is wrong for {size}; use fixed shapes")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inductor warns of its own deprecations, and that this compilation cannot be saved; nobody asked it to."""
    logger = logging.getLogger("torch._inductor.standalone_compile")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
