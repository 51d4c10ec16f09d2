"""The way from a captured graph to OpenVINO's: recurrent cells stay whole."""

from __future__ import annotations

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
