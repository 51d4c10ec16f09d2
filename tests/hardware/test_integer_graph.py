"""The integer graph: what becomes of each layer, that two executors agree, and what has no place in hardware."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.hardware.graph import again, golden
from vivace.hardware.graph.integer import Format, MaximumPool, Product, Rounding
from vivace.hardware.graph.quantize import Precision, quantize
from vivace.hardware.graph.reading import read
from vivace.hardware.graph.scales import rounded_weights, weight_scales
from vivace.runtimes.capture import capture


def read_module(module: nn.Module, *shape: int):
    return read(capture(module.eval(), (torch.rand(4, *shape),)).model.program)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_pytorch_computes_the_same_integers_at_every_width(made, drawn, bits):
    torch.manual_seed(bits)
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    graph = made(module, (2, 4, 4), Precision(bits, bits))
    inputs = drawn(graph, 64)

    computed = golden.run(graph, inputs)

    assert again.first_difference(graph, inputs, computed) is None
    assert {operation.weight_bits for operation in graph.operations if isinstance(operation, Product)} == {bits}


def test_pytorch_computes_the_same_integers_for_every_kind_of_layer(residual, drawn):
    inputs = drawn(residual, 128)

    assert again.first_difference(residual, inputs, golden.run(residual, inputs)) is None
    assert {type(operation).__name__ for operation in residual.operations} == {
        "Product", "MaximumPool", "SumPool", "Addition", "Flatten",
    }  # fmt: skip


def test_a_difference_is_named_by_sample_and_element(mlp, drawn):
    inputs = drawn(mlp, 8)
    wrong = golden.run(mlp, inputs)
    wrong[3, 2] += 1

    assert again.first_difference(mlp, inputs, wrong) == (3, 2)


def test_a_product_equals_plain_integer_arithmetic(mlp, drawn):
    inputs = drawn(mlp, 16)
    first = mlp.operations[0]

    sums = inputs[:, :, 0, 0] @ first.weight[:, :, 0, 0].T + first.bias
    expected = np.clip((sums * first.multiplier + first.rounding.half) >> first.rounding.shift, 0, first.rounding.high)

    assert (golden.run_all(mlp, inputs)[1][:, :, 0, 0] == expected).all()


def test_eight_bits_are_close_to_the_network_in_real_numbers(made):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    graph = made(module, (32,))
    x = torch.rand(200, 32) - 0.3

    answers = golden.answers(graph, x.double().numpy().reshape(-1, 32, 1, 1))[:, :, 0, 0]

    exact = module(x).detach().double().numpy()
    assert 20 * np.log10(np.linalg.norm(exact) / np.linalg.norm(answers - exact)) > 30


def test_batch_normalization_is_folded_and_activations_are_taken_in():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten(), nn.Linear(16, 2)
    )
    network = read_module(module, 1, 4, 4)
    x = torch.rand(8, 1, 4, 4)

    assert [type(layer.kind).__name__ for layer in network.layers] == ["Affine", "Flat", "Affine"]
    assert network.layers[0].clamp.high == 6.0
    torch.testing.assert_close(network.run(x)[-1][:, :, 0, 0].float(), module(x).detach())


def test_a_normalization_without_a_product_before_it_becomes_one_of_its_own():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    network = read_module(module, 3, 4, 4)
    x = torch.rand(8, 3, 4, 4)

    assert [layer.kind.groups for layer in network.layers] == [3, 1]
    torch.testing.assert_close(network.run(x)[-1].float(), module(x).detach())


def test_an_activation_of_a_pool_clips_the_pool():
    network = read_module(nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1)), 1, 4, 4)

    assert [type(layer.kind).__name__ for layer in network.layers] == ["Affine", "Pool", "Affine"]
    assert network.layers[1].clamp.low == 0.0


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.ReLU(), nn.Linear(32, 3)),
        nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(16, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.AvgPool2d(2), nn.Flatten(), nn.ReLU6()),
    ],
    ids=["between products", "of the input", "at the end"],
)
def test_an_activation_after_flattening_clips_the_integers(made, module):
    for layer in module:
        if isinstance(layer, nn.Conv2d):  # so that values of both signs reach the activation
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    graph = made(module, (1, 4, 4))
    x = torch.rand(64, 1, 4, 4) - 0.5

    answers = golden.answers(graph, x.double().numpy())

    exact = module(x).detach().double().numpy().reshape(answers.shape)
    assert 20 * np.log10(np.linalg.norm(exact) / np.linalg.norm(answers - exact)) > 25


class Measured(nn.Module):
    """Reads the size of a layer's answer and nothing else of it, and computes a head that it does not return."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.head = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.other(self.conv(x)).shape[2:]
        answer = self.head(nn.functional.avg_pool2d(self.conv(x), tuple(size)).flatten(1))
        self.other(self.conv(x)).softmax(1)
        return answer


def test_layers_that_the_answer_does_not_need_are_left_out():
    module = Measured()
    network = read_module(module, 1, 5, 5)
    x = torch.rand(8, 1, 5, 5)

    assert [layer.name for layer in network.layers] == ["conv", "avg_pool2d", "head"]
    torch.testing.assert_close(network.run(x)[-1][:, :, 0, 0].float(), module(x).detach())


def test_a_pool_keeps_the_scale_of_what_it_reads(residual):
    place = next(n for n, operation in enumerate(residual.operations) if isinstance(operation, MaximumPool))

    assert residual.values[place + 1].scale == residual.values[residual.operations[place].source].scale


def test_bits_can_be_set_for_some_layers(made):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))

    graph = made(module, (6,), Precision(8, 8, (("2", 3, 8),)))

    assert [operation.weight_bits for operation in graph.operations] == [8, 3]


def test_one_bit_weights_are_minus_one_and_one():
    weight = np.array([[0.5, -1.5, 0.0, 2.0]])
    scales = weight_scales(weight, 1)

    assert scales.tolist() == [1.0]
    assert rounded_weights(weight, scales, 1).tolist() == [[1, -1, 1, 1]]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_an_output_without_weights_leaves_the_grids_of_the_others_as_fine_as_they_were(bits):
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).double().numpy() / 100
    pruned = np.concatenate([weight, np.zeros((1, 50))])

    scales = weight_scales(pruned, bits)

    assert scales[:6].tolist() == weight_scales(weight, bits).tolist()
    assert scales[6] <= scales[:6].max()


def test_a_network_that_answered_nothing_but_zeros_still_has_integers(made):
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    nn.init.zeros_(module[2].weight)

    graph = made(module, (6,))

    assert not golden.answers(graph, torch.rand(8, 6).double().numpy()).any()


def test_halves_are_rounded_up_and_what_is_beyond_is_clipped():
    rounding = Rounding(shift=1, low=-3, high=4)

    assert rounding.apply(np.array([-3, -1, 1, 3, 100, -100])).tolist() == [-1, 0, 1, 2, 4, -3]
    assert Format(1, signed=False).high == 1


class Cast(nn.Module):
    """Its numbers are others on the way."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.first, self.last = dtype, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).to(self.dtype).float())


class ByHand(nn.Module):
    """Products and biases as Keras writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.weight + self.bias)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (None, (2, 16, 16)),
        (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (6,)),
        (ByHand(), (6,)),
    ],
    ids=["every kind", "perceptron", "by hand"],
)
def test_a_program_taken_apart_is_read_as_the_whole_one(module, shape, every_kind):
    torch.manual_seed(0)
    module = module or every_kind
    x = torch.rand(8, *shape) - 0.3
    whole = capture(module.eval(), (x,)).model.program

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of what it is about to change inside
        apart = whole.run_decompositions()

    one, other = (quantize(read(program, "net"), [x]) for program in (whole, apart))

    given = one.quantize(x.numpy())
    assert np.array_equal(golden.run(one, given), golden.run(other, given))
    wanted = module(x).detach().numpy()
    found = golden.run(other, given).reshape(wanted.shape) * other.output.scale
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("module", "shape", "told"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.GELU()), (4,), "layer 1: the operation gelu"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), (4,), "leave it to the host"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.ReLU()), (1, 8, 8), "layer 0: the operation conv2d"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,), "batch normalization"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), (2, 8), "layer 0: the operation conv1d.*a height of 1"),
        (nn.Sequential(nn.LSTM(4, 3, batch_first=True)), (6, 4), "layer 0: the operation lstm.*recurrent"),
        (Cast(torch.int32), (4,), "what to gives is no float tensor"),
        (Cast(torch.float16), (4,), "what to gives is no float tensor"),
    ],
    ids=["gelu", "softmax", "dilation", "layer norm", "sequence", "recurrent", "whole numbers", "half"],
)
def test_an_operation_without_an_engine_is_named_with_its_layer_and_what_to_do(module, shape, told):
    with pytest.raises(UnsupportedModel, match=told):
        read_module(module, *shape)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.Conv2d(2, 2, 3, dilation=2), "operation conv2d in the form .* its engine takes dilation 1"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "its engine takes .*with padding, count_include_pad=True"),
        (nn.AvgPool2d(2, ceil_mode=True), "avg_pool2d .* its engine takes ceil_mode=False where it changes the size"),
        (nn.MaxPool2d(2, ceil_mode=True), "max_pool2d .* its engine takes ceil_mode=False where it changes the size"),
        (nn.AdaptiveAvgPool2d(4), "its engine takes an output size that divides the map's height and width"),
        (nn.Flatten(2), r"its engine takes flattening to \[samples, features\]"),
        (nn.Linear(9, 3), r"its engine takes a product of one vector a sample, \[samples, features\]"),
        (nn.ConstantPad2d(1, 0.0), r"give the zeros to the convolution or the pool that follows \(padding=\)"),
    ],
    ids=["dilation", "uncounted padding", "average", "maximum", "adaptive", "flatten", "map", "padding"],
)
def test_an_operation_in_another_form_is_told_with_the_form_that_its_engine_takes(layer, told):
    with pytest.raises(UnsupportedModel, match=f"layer 1: .*{told}"):
        read_module(nn.Sequential(nn.ReLU(), layer, nn.ReLU()), 2, 9, 9)


def test_bits_beyond_eight_are_refused():
    with pytest.raises(UsageError, match="allowed are whole numbers from 1 to 8"):
        Precision(weights=9)


def test_bits_for_a_layer_that_is_not_there_are_refused(made):
    with pytest.raises(UsageError, match="which no layer answers to"):
        made(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (4,), Precision(8, 8, (("head", 4, 4),)))
