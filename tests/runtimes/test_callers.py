"""Programs that several threads call at the same time: each is given its own answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from runtimes.native_networks import perceptron
from runtimes.test_native import captured, threaded
from vivace.devices import machine
from vivace.runtimes.buffers.held import copies, held
from vivace.runtimes.native import session
from vivace.runtimes.settings.around import Run

CALLERS, CALLS = 4, 50


def mixed(run: Run, inputs: list[Tensor], wanted: list[Tensor], calls: int = CALLS) -> int:
    """How many of so many calls of each thread, with its own input, were not given its answer."""

    def called(number: int) -> int:
        found = (run([inputs[number]])[0] for _ in range(calls))
        return sum(not torch.allclose(one, wanted[number], atol=1e-4) for one in found)

    with ThreadPoolExecutor(CALLERS) as callers:
        return sum(callers.map(called, range(CALLERS)))


def test_calls_through_buffers_wait_for_each_other() -> None:
    x, y = torch.zeros(2), torch.zeros(2)

    def slow() -> None:
        given = x.clone()
        time.sleep(0.002)
        y.copy_(given * 2)
        time.sleep(0.002)

    inputs = [torch.full((2,), float(number)) for number in range(CALLERS)]

    assert mixed(held(copies([(0, x)]), slow, [(y, y.dtype)]), inputs, [2 * one for one in inputs], 5) == 0


@pytest.mark.skipif(not machine.detect().cxx_compiler, reason="generated code needs a C++ compiler: install g++")
@pytest.mark.parametrize("threads", [1, 2])
def test_calls_of_written_networks_wait_for_each_other(threads: int) -> None:
    inputs = [torch.randn(70, 20) for _ in range(CALLERS)]
    network, model = captured(perceptron, inputs[0])
    run = session.compiled(threaded(model, threads), [inputs[0]])

    with torch.no_grad():
        assert mixed(run, inputs, [network(one) for one in inputs]) == 0


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of the converter's own calls
def test_calls_of_openvino_wait_for_each_other() -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install 'vivace[openvino]'")
    from vivace.runtimes.openvino_session import _by_dictionary

    inputs = [torch.randn(70, 20) for _ in range(CALLERS)]
    network, model = captured(perceptron, inputs[0])
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # left alone, OpenVINO takes bfloat16 where the processor has it
    request = openvino.compile_model(openvino.convert_model(model.program), "CPU", exact).create_infer_request()

    with torch.no_grad():
        assert mixed(_by_dictionary(request, model, [(0, 0)]), inputs, [network(one) for one in inputs]) == 0
