"""The program as a callable: what fits is answered, what does not is a CallError, settings leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from runtimes.models import Function, mlp
from vivace.core.errors import CallError
from vivace.core.program import Form
from vivace.runtimes import eager, null
from vivace.runtimes.capture import capture
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import under_settings


@pytest.fixture
def program() -> Program:
    return eager.load(capture(mlp(), (torch.randn(2, 784),)).model)


def test_numpy_is_accepted_like_a_tensor(program: Program) -> None:
    x = torch.randn(3, 784)

    assert torch.equal(program(x.numpy()), program(x))


def test_a_read_only_array_is_accepted(program: Program) -> None:
    x = np.zeros((3, 784), dtype=np.float32)
    x.setflags(write=False)

    assert program(x).shape == (3, 10)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(1, 783),), {}, r"input has shape \[1, 783\]; allowed is \[any, 784\]"),
        ((torch.ones(1, 784).double(),), {}, "input has dtype float64; allowed is float32"),
        ((torch.ones(784),), {}, r"input has shape \[784\]"),
        ((torch.ones(0, 784),), {}, "input holds no samples"),
        ((), {}, "missing argument input"),
        ((torch.ones(1, 784), 1), {}, "received 2 positional arguments"),
        ((torch.ones(1, 784),), {"other": 1}, "unexpected or repeated argument 'other'"),
        (("text",), {}, "another structure or with other constants"),
    ],
)
def test_a_call_that_does_not_fit_is_a_call_error(program: Program, args: tuple, kwargs: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(CallError, match=message):
        program(*args, **kwargs)


def test_a_call_that_stopped_fitting_is_refused_after_good_calls(program: Program) -> None:
    program(torch.ones(2, 784))

    with pytest.raises(CallError, match="dtype float64"):
        program(torch.ones(2, 784, dtype=torch.float64))


def test_inputs_must_agree_on_the_number_of_samples() -> None:
    module = Function(lambda a, b: a + b).eval()
    program = eager.load(capture(module, (torch.randn(2, 3), torch.randn(2, 3))).model)

    with pytest.raises(CallError, match="arg0 has 4, arg1 has 5"):
        program(torch.ones(4, 3), torch.ones(5, 3))


def test_inference_mode_is_entered_for_each_call_only() -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    program = eager.load(model.replace(settings=model.settings.replace(inference_mode=True)))

    answer = program(torch.randn(2, 784))

    assert answer.is_inference()
    assert not torch.is_inference_mode_enabled()


def test_without_inference_mode_gradients_flow_as_in_the_module(program: Program) -> None:
    assert program(torch.randn(2, 784)).requires_grad


def test_threads_are_set_for_the_call_and_restored() -> None:
    seen: list[int] = []
    model = capture(mlp(), (torch.randn(2, 784),)).model
    ambient = torch.get_num_threads()

    def run(leaves: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        seen.append(torch.get_num_threads())
        return leaves

    under_settings(run, model.settings.replace(threads=ambient + 1))([torch.ones(1)])

    assert seen == [ambient + 1]
    assert torch.get_num_threads() == ambient


def test_a_program_may_be_called_from_another_thread(program: Program) -> None:
    answers: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: answers.append(program(torch.ones(2, 784))))

    thread.start()
    thread.join()

    assert torch.equal(answers[0], program(torch.ones(2, 784)))


def test_a_closed_program_says_so(program: Program) -> None:
    program.close()
    program.close()

    with pytest.raises(CallError, match="the program was closed"):
        program(torch.ones(2, 784))


def test_the_null_runtime_answers_zeros_for_as_many_samples() -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model

    answer = null.load(model.replace(form=Form.NULL, program=None))(torch.ones(5, 784))

    assert torch.equal(answer, torch.zeros(5, 10))
