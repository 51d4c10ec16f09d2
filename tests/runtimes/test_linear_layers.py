"""Linear layers with what they met: each row's product is the layer's output, in graphs and in ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtimes.models import work
from vivace.runtimes import onnx_graph
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs.linear import LinearLayer, linear_layers


def read(module: nn.Module, x: Tensor) -> tuple[tuple[LinearLayer, ...], tuple[str, ...]]:
    return linear_layers(capture(module.eval(), (x,)).model, [x])


class Product(nn.Module):
    """A matrix product with a weight, and one of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y @ y.transpose(-1, -2)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(7, 5), (3, 7)),
        (nn.Linear(7, 5, bias=False), (2, 4, 7)),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 7)),
        (nn.Conv2d(4, 8, (3, 1), dilation=2, groups=2), (1, 4, 8, 6)),
        (nn.Conv1d(4, 6, 5, padding=2), (2, 4, 11)),
    ],
)
def test_every_output_is_the_product_of_its_row_and_its_bias(module: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    wanted = module.double()(x.double()).detach()
    module.float()

    (layer,), left_out = read(module, x)

    channels_last = wanted.movedim(1, -1) if isinstance(module, nn.Conv1d | nn.Conv2d) else wanted
    expected = channels_last.reshape(-1, layer.outputs)
    assert expected.shape == (layer.positions, layer.outputs)
    for output, position in [(0, 0), (layer.outputs - 1, layer.positions - 1), (2, layer.positions // 2)]:
        weights, inputs, bias = layer.row(output, position)
        assert len(weights) == len(inputs) == layer.elements
        assert weights @ inputs + bias == pytest.approx(float(expected[position, output]), abs=1e-5)
    assert left_out == ()


def test_a_product_of_two_activations_is_left_out_with_a_sentence() -> None:
    (layer,), left_out = read(Product(), torch.randn(4, 5, 6))

    assert (layer.outputs, layer.elements, layer.positions) == (3, 6, 20)
    weights, inputs, bias = layer.row(1, 2)
    assert (len(weights), len(inputs), bias) == (6, 6, 0.0)
    assert len(left_out) == 1
    assert "it multiplies two activations" in left_out[0]


def test_layers_are_named_as_reports_name_them() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))

    found, _ = read(model, torch.randn(2, 1, 8, 8))

    assert [layer.label for layer in found] == ["0", "2"]
    assert [layer.products for layer in found] == [4 * 2 * 36, 10 * 2]


def test_a_module_that_is_called_twice_gives_two_layers_of_unlike_names() -> None:
    layer = nn.Linear(4, 4)

    found, _ = read(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(2, 4))

    assert len({one.label for one in found}) == len(found) == 2


def test_an_onnx_file_gives_the_same_layers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="reading an ONNX file needs onnxruntime")
    from vivace.runtimes.graphs.onnx_linear import onnx_linear_layers

    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)).eval()
    captured = capture(model, (x,)).model
    path = Path(onnx_graph.to_onnx(captured, work(captured, tmp_path)).program)
    wanted, _ = linear_layers(captured, [x])

    found, left_out = onnx_linear_layers(path, ((x,), {}))

    assert left_out == ()
    shapes = [(one.outputs, one.elements, one.positions) for one in found]
    assert shapes == [(one.outputs, one.elements, one.positions) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        for got, expected in zip(one.row(3, 1), other.row(3, 1), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
