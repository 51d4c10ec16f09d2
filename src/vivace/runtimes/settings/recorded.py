"""Calls whose kernels were recorded once a shape: inputs are copied in, all kernels start at once, answers come out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.devices.recorder import CudaRecorder, Recorder

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]

MOST_SHAPES = 8
"""Shapes of calls that are recorded, each with memory of its own; a call of another one is run as it was before."""
WARM_CALLS = 2


class RecordedCalls:
    """A function of tensors on a CUDA device, which takes them from anywhere and answers where the first one lies.

    The first call of a shape records it. Answers are copies, since the next call writes to the same memory; so calls
    from several threads, or on several streams, wait for each other. Raises NotApplicable at the first call of all if
    it cannot be recorded; a later shape that cannot be is run as before.
    """

    def __init__(self, run: Run, device: torch.device, recorder: Recorder | None = None) -> None:
        self._run = run
        self._device = device
        self._recorder = recorder
        self._shapes: dict[tuple[torch.Size, ...], _Recording | None] = {}
        self._lock = threading.Lock()
        self._last: torch.cuda.Stream | None = None

    def __call__(self, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        back = leaves[0].device if leaves else torch.device("cpu")
        with self._lock:
            recording = self._of(leaves)
            if recording is not None:
                self._wait_for_the_call_before()
                return recording(leaves, back)
        answers = self._run([leaf.to(self._device) for leaf in leaves])
        return answers if back.type == self._device.type else [answer.to(back) for answer in answers]

    def _wait_for_the_call_before(self) -> None:
        """What the current stream is given next comes after what another one was given for the call before."""
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device)
            if self._last is not None and stream != self._last:
                stream.wait_stream(self._last)
            self._last = stream

    def _of(self, leaves: Sequence[Tensor]) -> _Recording | None:
        shapes = tuple([leaf.shape for leaf in leaves])
        if shapes not in self._shapes and len(self._shapes) < MOST_SHAPES:
            self._shapes[shapes] = self._recorded(leaves)
        return self._shapes.get(shapes)

    def _recorded(self, leaves: Sequence[Tensor]) -> _Recording | None:
        recorder = self._recorder = self._recorder or CudaRecorder(self._device)
        inputs = [leaf.to(self._device, copy=True, memory_format=torch.contiguous_format) for leaf in leaves]
        try:
            for _ in range(WARM_CALLS):
                recorder.warm(lambda: self._run(inputs))
            answers, replay = recorder.record(lambda: self._run(inputs))
        except RuntimeError as error:
            if any(recording is not None for recording in self._shapes.values()):
                return None
            raise NotApplicable(f"its calls cannot be recorded as a CUDA graph: {error}") from error
        return _Recording(inputs, list(answers), replay)


class _Recording:
    def __init__(self, inputs: list[Tensor], answers: list[Tensor], replay: Callable[[], None]) -> None:
        self._inputs = inputs
        self._answers = answers
        self._replay = replay

    def __call__(self, leaves: Sequence[Tensor], back: torch.device) -> list[Tensor]:
        for kept, leaf in zip(self._inputs, leaves, strict=True):
            kept.copy_(leaf)
        self._replay()
        if back.type == "cpu":
            return [answer.to(back, copy=True) for answer in self._answers]
        return [answer.clone() for answer in self._answers]
