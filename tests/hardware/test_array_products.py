"""Any network as matrix products: their sizes by the shapes of the exported program, against operations counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vivace.core.errors import UnsupportedModel
from vivace.hardware.array.products import products_of
from vivace.runtimes.capture import capture


class Attention(nn.Module):
    """Self-attention with a linear layer before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.into(x).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(2, 5, 8))


class Recurrent(nn.Module):
    """An LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


class Einsum(nn.Module):
    """A product that is written as an einsum, and one of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("gbi,gio->gbo", x, self.weight)


def sizes(module: nn.Module, *shape: int) -> list[tuple[str, tuple[int, int, int, int]]]:
    program = capture(module.eval(), (torch.rand(*shape),), fixed_shapes=True).model.program
    return [(layer.name, layer.gemm.sizes) for layer in products_of(program).layers]


def test_linear_layers_and_convolutions_are_named_with_their_sizes():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(72, 5)
    )

    assert sizes(module, 2, 3, 10, 10) == [
        ("0", (2 * 25, 8, 27, 1)), ("2", (2 * 9, 1, 9, 8)), ("4", (2, 5, 72, 1)),
    ]  # fmt: skip


def test_attention_is_two_products_a_head():
    assert sizes(Attention(), 2, 5, 8) == [
        ("into", (10, 24, 8, 1)),
        ("scaled_dot_product_attention", (5, 5, 4, 4)),
        ("scaled_dot_product_attention", (5, 4, 5, 4)),
        ("out", (10, 8, 8, 1)),
    ]


def test_a_recurrent_layer_is_a_product_for_all_inputs_and_one_a_step():
    assert [size for _, size in sizes(Recurrent(), 2, 7, 6)] == [
        (14, 16, 6, 1), (2, 16, 4, 7), (14, 16, 4, 1), (2, 16, 4, 7),
    ]  # fmt: skip


def test_an_einsum_is_read_as_what_pytorch_makes_of_it():
    assert [size for _, size in sizes(Einsum(), 3, 2, 4)] == [(2, 5, 4, 3)]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.Conv2d(6, 2, 1)), (2, 4, 5, 5)),
        (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (2, 7, 16)),
        (nn.Sequential(nn.Conv1d(4, 8, 3), nn.Flatten(), nn.Linear(64, 3)), (2, 4, 10)),
        (Attention(), (2, 5, 8)),
    ],
    ids=["transposed convolution", "encoder layer", "convolution along time", "attention"],
)
def test_the_products_have_as_many_operations_as_pytorch_counts(module, shape):
    x = torch.rand(*shape)
    program = capture(module.eval(), (x,), fixed_shapes=True).model.program
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        program.module()(x)

    assert 2 * sum(layer.gemm.products for layer in products_of(program).layers) == counted.get_total_flops()


def test_weights_of_which_two_in_four_are_zero_are_seen():
    layers = [nn.Linear(8, 4), nn.Linear(4, 3)]
    with torch.no_grad():
        layers[0].weight.view(-1, 4)[:, ::2] = 0
    program = capture(nn.Sequential(*layers), (torch.rand(2, 8),), fixed_shapes=True).model.program

    assert [layer.gemm.sparse for layer in products_of(program).layers] == [True, False]


def test_what_is_not_the_arrays_is_counted_by_name():
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4))
    program = capture(module.eval(), (torch.rand(2, 4),), fixed_shapes=True).model.program

    assert dict(products_of(program).beside) == {"gelu": 2, "layer_norm": 1}


@pytest.mark.parametrize(
    ("module", "inside"),
    [(nn.LSTM(4, 4), {"sigmoid", "tanh"}), (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), {"softmax"})],
    ids=["recurrent", "attention"],
)
def test_what_is_not_the_arrays_inside_of_an_operator_is_named_too(module, inside):
    program = capture(module.eval(), (torch.rand(3, 5, 4),), fixed_shapes=True).model.program

    assert inside <= set(products_of(program).beside)


def test_a_network_without_a_product_is_refused():
    program = capture(nn.ReLU(), (torch.rand(2, 4),), fixed_shapes=True).model.program

    with pytest.raises(UnsupportedModel, match="no matrix product"):
        products_of(program)
