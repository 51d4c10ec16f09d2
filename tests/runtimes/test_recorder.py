"""The recorder of operators: operations as PyTorch's own counter has them, bytes, and tensors without memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vivace.core.prediction.work import Operator, OperatorKind
from vivace.runtimes.graphs import recorder


def small() -> nn.Module:
    body = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(8 * 6 * 6, 10))


def step(model: nn.Module, x: torch.Tensor) -> None:
    model(x).square().mean().backward()


def test_operations_forward_and_backward_are_those_of_pytorchs_counter() -> None:
    model, x = small(), torch.zeros(4, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        step(model, x)
    found = recorder.recorded(lambda: step(small(), x))
    assert sum(one.flops for one in found) == counter.get_total_flops()


def test_tensors_without_memory_give_the_same_operations_and_bytes_of_products() -> None:
    with torch.device("meta"):
        without = recorder.recorded(lambda: step(small(), torch.zeros(4, 3, 8, 8)))
    held = recorder.recorded(lambda: step(small(), torch.zeros(4, 3, 8, 8)))
    products = [[(one.flops, one.moved_bytes) for one in found if one.flops] for found in (held, without)]
    assert products[0] == products[1]


def test_a_product_moves_its_operands_and_its_answer() -> None:
    (found,) = recorder.recorded(lambda: torch.mm(torch.ones(4, 8), torch.ones(8, 2)))[2:]
    assert found == Operator("mm", OperatorKind.PRODUCT, 2 * 4 * 8 * 2, 4 * (32 + 16 + 8))


def test_views_and_empty_tensors_are_no_operators() -> None:
    x = torch.ones(4, 8)
    assert recorder.recorded(lambda: torch.empty_like(x.t().unsqueeze(0))) == ()
    assert recorder.recorded(lambda: x.unfold(0, 2, 1).movedim(0, 1)) == ()


@pytest.mark.parametrize(
    ("name", "flops", "kind"),
    [
        ("mm", 8.0, "product"),
        ("convolution", 8.0, "convolution"),
        ("convolution", 0.0, "other"),
        ("relu", 0.0, "other"),
    ],
)
def test_kinds_of_operators(name: str, flops: float, kind: str) -> None:
    assert recorder.kind_of(name, flops).value == kind


def test_a_lookup_reads_its_rows_and_not_the_table() -> None:
    table, numbers = torch.ones(1000, 8), torch.tensor([1, 2, 3])

    (found,) = recorder.recorded(lambda: nn.functional.embedding(numbers, table))

    assert found.moved_bytes == 8 * 3 + 4 * 8 * 3 * 2


def test_operators_of_one_name_are_merged() -> None:
    one = Operator("add", OperatorKind.OTHER, 0.0, 8.0)
    assert recorder.merged([one, one]) == (Operator("add", OperatorKind.OTHER, 0.0, 16.0),)


def test_what_a_forward_pass_keeps_is_counted_once_and_without_weights() -> None:
    model, x = nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.ones(2, 8)
    kept = recorder.kept_bytes(lambda: model(x), [*model.parameters()])
    assert kept == x.nbytes + 2 * 4 * 4


def test_attention_on_tensors_without_memory_is_two_products_forward_and_five_backward() -> None:
    """Of 2 x 8 queries and keys of 3 heads, each 4 wide: 4 x (2 x 3) x 8 x 8 x 4 operations forward."""
    q, k, v = (torch.empty(2, 3, 8, 4, device="meta", requires_grad=True) for _ in range(3))
    attend = nn.functional.scaled_dot_product_attention
    found = recorder.recorded(lambda: attend(q, k, v).sum().backward())
    flops = {one.name: one.flops for one in found if one.flops}
    assert flops == {"attention": 4 * 6 * 8 * 8 * 4, "attention_backward": 10 * 6 * 8 * 8 * 4}
