"""Calls that are recorded once a shape and replayed: right answers of every shape, and their own memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import NotApplicable
from vivace.core.program import Settings
from vivace.runtimes.settings.recorded import MOST_SHAPES, WARM_CALLS, RecordedCalls

CPU = torch.device("cpu")


class FakeRecorder:
    """A recorder on the CPU: what was recorded is computed again, into the memory of the first time."""

    def __init__(self, most: int = 99) -> None:
        self.warmed = self.recorded = self.replayed = 0
        self._most = most

    def warm(self, function: Callable[[], Any]) -> Any:
        self.warmed += 1
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        if self.recorded >= self._most:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1
        answers = [answer.clone() for answer in function()]

        def replay() -> None:
            self.replayed += 1
            for kept, answer in zip(answers, function(), strict=True):
                kept.copy_(answer)

        for answer in answers:
            answer.fill_(float("nan"))  # nothing is computed before the first replay
        return answers, replay


def doubled(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    return [leaves[0] * 2, leaves[0].sum(0)]


def test_every_call_has_the_answers_of_its_own_inputs_in_memory_of_its_own() -> None:
    recorder = FakeRecorder()
    calls = RecordedCalls(doubled, CPU, recorder)
    inputs = [torch.full((3, 2), float(value)) for value in range(4)]

    answers = [calls([one]) for one in inputs]

    for one, (twice, total) in zip(inputs, answers, strict=True):
        assert torch.equal(twice, one * 2) and torch.equal(total, one.sum(0))
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (WARM_CALLS, 1, 4)


def test_each_shape_is_recorded_once_and_only_so_many_are() -> None:
    recorder = FakeRecorder()
    calls = RecordedCalls(doubled, CPU, recorder)

    for size in [*range(1, MOST_SHAPES + 3), *range(1, MOST_SHAPES + 3)]:
        given = torch.randn(size, 2)
        assert torch.equal(calls([given])[0], given * 2)

    assert recorder.recorded == MOST_SHAPES
    assert recorder.replayed == 2 * MOST_SHAPES


def test_inputs_that_do_not_lie_together_in_memory_are_taken_as_they_are_meant() -> None:
    calls = RecordedCalls(doubled, CPU, FakeRecorder())
    for _ in range(2):
        given = torch.randn(2, 3).t()
        assert torch.equal(calls([given])[0], given * 2)


def test_a_call_that_waits_for_the_device_is_refused_and_a_later_shape_is_run_as_before() -> None:
    with pytest.raises(NotApplicable, match="recorded as a CUDA graph: operation not permitted"):
        RecordedCalls(doubled, CPU, FakeRecorder(most=0))([torch.ones(2, 2)])

    calls = RecordedCalls(doubled, CPU, FakeRecorder(most=1))
    for size in (2, 3, 3, 2):
        assert torch.equal(calls([torch.ones(size, 2)])[0], torch.full((size, 2), 2.0))


@pytest.mark.parametrize("settings", [{"cuda_graph": True}, {"cuda_graph": 1, "device": "cuda:0"}])
def test_settings_that_record_what_no_device_runs_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cuda_graph|CUDA graph"):
        Settings.from_json({**Settings().to_json(), **settings})


@pytest.mark.gpu
def test_on_a_card_answers_are_those_of_the_model_from_any_stream_and_from_the_processor() -> None:
    from vivace.runtimes.settings.around import under_settings

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 8)).cuda().eval()
    run = under_settings(
        lambda leaves: [model(leaves[0])], Settings(device="cuda:0", cuda_graph=True, inference_mode=True)
    )
    side = torch.cuda.Stream()
    with torch.no_grad():
        for turn in range(20):
            given = torch.randn(16 + turn % 3, 64)
            wanted = model(given.cuda())
            torch.cuda.synchronize()
            if turn % 2:
                with torch.cuda.stream(side):
                    found = run([given.cuda()])[0]
                    later = run([torch.zeros_like(given).cuda()])[0]
                torch.cuda.synchronize()
                assert found.is_cuda and not torch.equal(found, later)
            else:
                found = run([given])[0]
                assert not found.is_cuda
            torch.testing.assert_close(found.cpu(), wanted.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_on_a_card_a_function_that_asks_for_a_value_is_refused() -> None:
    def asks(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return [leaves[0] * float(leaves[0].sum().item())]

    torch.manual_seed(0)
    wanted = torch.randn(4, device="cuda")
    torch.manual_seed(0)
    with pytest.raises(NotApplicable, match="cannot be recorded as a CUDA graph"), torch.inference_mode():
        RecordedCalls(asks, torch.device("cuda:0"))([torch.ones(4, device="cuda")])
    assert torch.equal(torch.randn(4, device="cuda"), wanted)  # the card goes on, and draws what it would have drawn


@pytest.mark.gpu
def test_on_a_card_a_recording_keeps_its_own_workspace() -> None:
    """Others free what cuBLAS keeps for a stream, and a recording of the same stream that is no more does."""
    torch.manual_seed(0)
    weight = torch.randn(4096, 512, device="cuda")
    calls = RecordedCalls(lambda leaves: [leaves[0] @ weight, (leaves[0] @ weight).relu()], torch.device("cuda:0"))
    given = [torch.randn(size, 4096, device="cuda") for size in (16, 64, 256)]
    with torch.inference_mode():
        wanted = [[answer.clone() for answer in calls([one])] for one in given]
        del calls._shapes[(given[0].shape,)]
        for _ in range(3):
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
            taken = torch.full((1 << 28,), float("nan"), device="cuda")
            for one, answers in zip(given[1:], wanted[1:], strict=True):
                for found, answer in zip(calls([one]), answers, strict=True):
                    assert torch.equal(found, answer)
            del taken
