"""The program: a callable used exactly as the user's model, around a runtime that knows flat tensors only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vivace.core.errors import CallError
from vivace.core.program import Form, Settings
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import flatten
from vivace.runtimes.calls import as_tensor, dtype_name, is_tensor, torch_dtype
from vivace.runtimes.settings.around import Run

_REMEMBERED_SHAPES = 1024


class Program:
    """A model ready to be called: `program(*args, **kwargs)` takes and gives what the user's model does.

    Arguments are tensors or numpy arrays; a call that does not fit raises CallError. It may be called from several
    threads: where a runtime keeps one set of buffers, one call waits for the other. `close` frees the runtime; a
    closed program raises CallError. `device_peak_bytes` tells the most that the program held on a device that PyTorch
    does not know, 0 where there is none. `runs_on` says on which devices a runtime that chooses them put it, empty for
    others; `has_fewer_devices` that they are fewer than it was compiled for.
    """

    def __init__(
        self,
        signature: Signature,
        settings: Settings,
        run: Run,
        form: Form = Form.TORCH,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.signature = signature
        self.settings = settings
        self.form = form
        self._on_close = [] if close is None else [close]
        self.device_peak_bytes: Callable[[], int] = int
        self.runs_on = ""
        self.has_fewer_devices = False
        self._run = run
        self._checks = [(spec, torch_dtype(spec.dtype)) for spec in signature.inputs]
        self._moves = settings.device != "cpu"
        self._fitting: set[tuple[int, ...]] = set()
        items = signature.call.items
        self._one = len(items) == 1 and items[0].kind == "tensor"
        self._one_dtype = self._checks[0][1] if self._one else None
        self._one_answer = signature.answer.kind == "tensor"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._one and len(args) == 1 and not kwargs:
            tensor = args[0]
            if (
                type(tensor) is Tensor
                and tensor.dtype is self._one_dtype
                and tensor.shape in self._fitting
                and (tensor.is_cpu or self._moves)
            ):
                outputs = self._run(args)
                return outputs[0] if self._one_answer else self.signature.answer.build(outputs)
        leaves = self.flatten(*args, **kwargs)
        if self._one and len(self._fitting) < _REMEMBERED_SHAPES:
            self._fitting.add(leaves[0].shape)
        return self.signature.answer.build(self._run(leaves))

    def flatten(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The checked flat tensors of a call. Raises CallError."""
        signature = self.signature
        given, call = flatten(signature.named(args, kwargs), is_tensor)
        if call != signature.call:
            raise CallError(
                f"received arguments of another structure or with other constants; allowed are "
                f"{signature.describe_call()} exactly as in the example"
            )
        leaves = [as_tensor(leaf) for leaf in given]
        self._check(leaves)
        return leaves

    def run(self, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Flat tensors in, flat tensors out; checked. Raises CallError."""
        if len(leaves) != len(self._checks):
            raise CallError(f"received {len(leaves)} tensors; allowed are {self.signature.describe_call()}")
        self._check(leaves)
        return self._run(leaves)

    def close(self) -> None:
        """Free the runtime. Harmless the second time."""
        self._run = _closed
        while self._on_close:
            self._on_close.pop()()

    def on_close(self, then: Callable[[], None]) -> None:
        """Have something undone when the program is closed, before what was opened earlier."""
        self._on_close.append(then)

    def _check(self, leaves: Sequence[Tensor]) -> None:
        sizes: dict[int, str] = {}
        for (spec, dtype), leaf in zip(self._checks, leaves, strict=True):
            problem = spec.problem_with(spec.dtype if leaf.dtype is dtype else dtype_name(leaf.dtype), leaf.shape)
            if problem:
                raise CallError(problem)
            if not (leaf.is_cpu or self._moves):
                raise CallError(f"{spec.name} lies on {leaf.device}; this program runs on the CPU: give it there")
            if _batch_is_free(spec):
                sizes.setdefault(leaf.shape[spec.batch_axis], spec.name)  # type: ignore[index]
        if len(sizes) > 1:
            told = ", ".join(f"{name} has {size}" for size, name in sizes.items())
            raise CallError(f"the inputs disagree on the number of samples: {told}; give the same number in each")
        if 0 in sizes:
            raise CallError(f"{sizes[0]} holds no samples; give at least one")


def _batch_is_free(spec: TensorSpec) -> bool:
    return spec.batch_axis is not None and spec.shape[spec.batch_axis] is None


def _closed(_: Sequence[Tensor]) -> Sequence[Tensor]:
    raise CallError("the program was closed; load it again")


def as_numpy(leaf: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as a contiguous numpy array, without a copy where it already is one on the CPU."""
    if leaf.requires_grad:
        leaf = leaf.detach()
    if not leaf.is_cpu:
        leaf = leaf.cpu()
    return leaf.numpy() if leaf.is_contiguous() else leaf.contiguous().numpy()
