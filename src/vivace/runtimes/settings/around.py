"""What a program's settings ask for around each call: inference mode, threads, a device, a CUDA graph, TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vivace.core.program import Settings
from vivace.runtimes.settings.recorded import RecordedCalls

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def under_settings(run: Run, settings: Settings) -> Run:
    """The same function, entering inference mode, threads and TF32 as the settings ask, around each call.

    Nothing stays changed after a call, and nothing is wrapped where the settings ask for nothing.
    """
    if settings.tf32:
        run = _with_tf32(run)
    if settings.cuda_graph:
        run = RecordedCalls(run, torch.device(settings.device))
    elif settings.device != "cpu":
        run = _on_device(run, settings.device)
    if settings.threads is not None:
        run = _with_threads(run, settings.threads)
    if settings.inference_mode:
        run = _with_inference_mode(run)
    return run


def _with_inference_mode(run: Run) -> Run:
    mode = torch.inference_mode

    def inner(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        with mode():
            return run(leaves)

    return inner


def _with_threads(run: Run, threads: int) -> Run:
    def inner(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        ambient = torch.get_num_threads()
        if ambient == threads:
            return run(leaves)
        torch.set_num_threads(threads)
        try:
            return run(leaves)
        finally:
            torch.set_num_threads(ambient)

    return inner


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """PyTorch with this many threads inside; None leaves the ambient count. Compilers write it into their code."""
    ambient = torch.get_num_threads()
    if count is None or count == ambient:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(ambient)


def _with_tf32(run: Run) -> Run:
    def inner(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            return run(leaves)
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn

    return inner


def _on_device(run: Run, device: str) -> Run:
    target = torch.device(device)

    def inner(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        back = leaves[0].device if leaves else torch.device("cpu")
        outputs = run([leaf.to(target) for leaf in leaves])
        return outputs if back.type == target.type else [output.to(back) for output in outputs]

    return inner
