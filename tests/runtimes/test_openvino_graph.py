"""The way from a captured graph to OpenVINO's: recurrent cells stay whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.core.cost import Cost
from vivace.core.work import Work
from vivace.runtimes import openvino_graph
from vivace.runtimes.capture import capture


class Recurrent(nn.Module):
    """An LSTM over time, and a linear layer at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.cells(steps)[0])
        return answer


FIRST_CALLS = """
import faulthandler, sys, threading
import numpy as np
from vivace.runtimes.openvino_graph import import_openvino

openvino = import_openvino()
faulthandler.dump_traceback_later(20, exit=True)
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def call():
    together.wait()
    openvino.Type.f32.to_dtype()
    openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data

threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_calls_from_several_threads_do_not_wait_for_each_other() -> None:
    pytest.importorskip("openvino")

    done = subprocess.run([sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_recurrent_cell_is_not_unrolled(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, steps = Recurrent().eval(), torch.randn(2, 12, 8)
    model = capture(module, (steps,), varying=[frozenset({0})]).model
    work = Work("lstm", model.signature, frozenset(), Cost(0, 0, 0, 0), tmp_path)

    graph = openvino.Core().read_model(str(openvino_graph.to_openvino(model, work).program))

    assert sum(op.get_type_name() in ("LSTMSequence", "TensorIterator") for op in graph.get_ops()) == 1
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = torch.from_numpy(compiled([steps.numpy()])[0])
    torch.testing.assert_close(answer, module(steps).detach(), atol=1e-5, rtol=1e-4)
