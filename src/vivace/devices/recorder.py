"""Records the kernels that a function starts on a CUDA device, to start all of them at once from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

Found = TypeVar("Found")


class Recorder(Protocol):
    """What records; tests give their own, which needs no device."""

    def warm(self, function: Callable[[], Found]) -> Found:
        """Run a function where it will be recorded; libraries set themselves up in it."""
        ...

    def record(self, function: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        """What the function returned, whose memory every replay writes, and the replay. Nothing is computed before the
        first one. Raises RuntimeError for a function that waits for the device, or does what cannot be recorded."""
        ...


class CudaRecorder:
    """Records on a stream of its own: autograd remembers the stream of what it has seen, and one that is not recorded
    would end the recording. Only this thread's calls are held to what a recording allows; others may pin memory and
    copy meanwhile.

    cuBLAS keeps a workspace a stream, which others may free (TorchInductor does, and a graph of the same stream that is
    no more). All are let go before and after a recording, so that a graph's own lies in its own memory. A graph that
    somebody recorded otherwise may have lost its own then; TorchInductor's graphs do the same to it.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, read in November 2026; pytorch issue
    193402.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def warm(self, function: Callable[[], Found]) -> Found:
        """Run a function on the stream that records, after all that was started before and before all that follows."""
        with torch.cuda.device(self._device):
            outside = torch.cuda.current_stream()
            self._stream.wait_stream(outside)
            with torch.cuda.stream(self._stream):
                found = function()
            outside.wait_stream(self._stream)
        return found

    def record(self, function: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        """As a CUDA graph, which keeps its memory as long as the replay lives."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            drawn = generator.get_state()
            torch._C._cuda_clearCublasWorkspaces()
            try:
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    found = function()
            except RuntimeError as error:
                _draw_on(generator, drawn)
                raise RuntimeError(_first(error)) from error
            finally:
                torch._C._cuda_clearCublasWorkspaces()
        return found, graph.replay


def _draw_on(generator: torch.Generator, drawn: torch.Tensor) -> None:
    """Give a generator a state of its own again: before PyTorch 2.13 a recording that breaks off leaves it in one in
    which it refuses to draw."""
    fresh = torch.Generator(generator.device)
    fresh.set_state(drawn)
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


def _first(error: BaseException) -> str:
    """What went wrong first: ending a recording that is broken is an error of its own."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
