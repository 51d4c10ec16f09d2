"""Facts, operators and counted work of tiny models, against arithmetic done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from runtimes.models import Convolution, mlp, work
from vivace.core.facts import Fact
from vivace.runtimes import onnx_graph, source
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts


def test_the_flops_of_an_mlp_are_two_for_each_weight_and_sample() -> None:
    x = torch.randn(3, 784)

    cost = counts.cost_of(capture(mlp(), (x,)).model, [x])

    assert cost.flops == 2 * 3 * (784 * 128 + 128 * 10)
    assert cost.weight_bytes == 4 * (784 * 128 + 128 + 128 * 10 + 10)
    assert cost.activation_bytes == 4 * 3 * (784 + 128 + 128 + 10)
    assert cost.operators == 3


@pytest.mark.parametrize(
    ("module", "x", "flops"),
    [
        (Convolution(), torch.randn(2, 1, 8, 8), 2 * 2 * (64 * 4 * 9 + 256 * 10)),
        (nn.LSTM(8, 16, batch_first=True), torch.randn(2, 5, 8), 2 * 2 * 5 * 4 * 16 * (8 + 16)),
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.ReLU()), torch.randn(3, 8), 2 * 3 * (8 * 8 + 8 * 4)),
    ],
    ids=["convolution", "lstm", "linear"],
)
def test_the_flops_of_the_nodes_are_those_of_the_whole_call(module: nn.Module, x: Tensor, flops: int) -> None:
    model = capture(module.eval(), (x,)).model

    work = counts.work_of(model, [x])

    assert sum(node.flops for node in work.values()) == counts.cost_of(model, [x]).flops == flops


def test_a_node_moves_what_it_takes_and_gives_in_the_precision_that_it_has_and_a_view_nothing() -> None:
    x = torch.randn(3, 2, 4).bfloat16()
    model = capture(nn.Sequential(nn.Flatten(), nn.Linear(8, 5)).bfloat16().eval(), (x,)).model

    work = {name.partition("_")[0]: node.moved_bytes for name, node in counts.work_of(model, [x]).items()}

    assert work["linear"] == 2 * (3 * 8 + 8 * 5 + 5 + 3 * 5)
    assert sum(work.values()) == work["linear"]


class Lookup(nn.Module):
    """Rows of a table of 1,000; `is_tied` gives it to a product too."""

    def __init__(self, is_tied: bool) -> None:
        super().__init__()
        self.table, self.is_tied = nn.Embedding(1000, 8), is_tied

    def forward(self, numbers: Tensor) -> Tensor:
        found = self.table(numbers) + self.table(numbers[:, :1])
        return found @ self.table.weight.t() if self.is_tied else found


@pytest.mark.parametrize(("is_tied", "unread"), [(False, 4 * 8 * (1000 - 6 - 2)), (True, 0)])
def test_of_a_table_that_rows_are_looked_up_in_those_alone_are_read(is_tied: bool, unread: int) -> None:
    numbers = torch.tensor([[1, 2, 3], [4, 5, 6]])
    model = capture(Lookup(is_tied).eval(), (numbers,)).model

    tally = counts.tally_without_data(model, [numbers])

    assert tally.nodes["embedding"].moved_bytes == 8 * 6 + 4 * 8 * 6 * 2
    assert tally.unread_bytes == counts.tally_of(model, [numbers]).unread_bytes == unread
    assert tally.cost.weight_bytes == 4 * 8 * 1000


def test_recurrent_cells_are_counted() -> None:
    x = torch.randn(2, 5, 8)

    cost = counts.cost_of(capture(nn.LSTM(8, 16, batch_first=True).eval(), (x,)).model, [x])

    assert cost.flops == 2 * 2 * 5 * 4 * 16 * (8 + 16)
    assert (cost.recurrent_share, cost.convolution_share) == (1.0, 0.0)


def test_the_share_of_convolutions_is_that_of_their_flops() -> None:
    x = torch.randn(1, 1, 6, 6)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 9)).eval()

    cost = counts.cost_of(capture(model, (x,)).model, [x])

    assert cost.convolution_share == 0.5
    assert not cost.mostly_convolutions


@pytest.mark.parametrize(
    ("module", "shape"), [(Convolution(), (2, 1, 8, 8)), (nn.LSTM(8, 16), (2, 5, 8))], ids=["convolution", "lstm"]
)
def test_an_onnx_file_of_a_network_has_the_same_shares(module: nn.Module, shape: list[int], tmp_path: Path) -> None:
    x = torch.randn(shape)
    model = capture(module.eval(), (x,)).model
    plain = counts.cost_of(model, [x])

    exported = counts.cost_of(onnx_graph.to_onnx(model, work(model, tmp_path)), [x])

    assert exported.convolution_share == pytest.approx(plain.convolution_share, abs=0.01)
    assert exported.recurrent_share == pytest.approx(plain.recurrent_share, abs=0.01)


def test_facts_of_a_convolution_with_batch_normalization() -> None:
    model = capture(Convolution().eval(), (torch.randn(2, 1, 8, 8),)).model

    facts = counts.facts_of(model)

    assert facts >= {
        Fact.HAS_CONV2D,
        Fact.HAS_CONV_BATCHNORM,
        Fact.HAS_LINEAR,
        Fact.FLOAT32,
        Fact.UNQUANTIZED,
        Fact.TORCH_GRAPH,
        Fact.ONNX_READY,
        Fact.OPENVINO_READY,
        Fact.RUNNABLE,
        Fact.UNCOMPILED,
        Fact.ON_CPU,
    }
    assert not facts & {Fact.HAS_ATTENTION, Fact.HAS_LINEAR_BATCHNORM}
    assert "aten.conv2d" in counts.operators_of(model)


def test_a_linear_layer_with_batch_normalization_is_seen() -> None:
    model = capture(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(2, 4),)).model

    assert Fact.HAS_LINEAR_BATCHNORM in counts.facts_of(model)


def test_attention_is_seen_and_a_softmax_at_the_end_is_not() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train()
    layer.dropout.p = layer.dropout1.p = layer.dropout2.p = layer.self_attn.dropout = 0.0
    attention = capture(layer, (torch.randn(2, 5, 8),)).model
    plain = capture(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)).eval(), (torch.randn(2, 4),)).model

    assert Fact.HAS_ATTENTION in counts.facts_of(attention)
    assert Fact.HAS_ATTENTION not in counts.facts_of(plain)


def test_half_precision_weights_are_not_float32() -> None:
    model = capture(nn.Linear(4, 4).bfloat16().eval(), (torch.randn(2, 4).bfloat16(),)).model

    assert Fact.FLOAT32 not in counts.facts_of(model)
    assert counts.cost_of(model, [torch.randn(2, 4).bfloat16()]).precision == "bf16"


def test_an_onnx_file_counts_the_same_products_and_has_no_torch_graph(tmp_path: Path) -> None:
    x = torch.randn(3, 1, 8, 8)
    model = capture(Convolution().eval(), (x,)).model
    written = source.onnx_model(onnx_graph.to_onnx(model, work(model, tmp_path)).program)

    assert counts.cost_of(written, [x]).flops == counts.cost_of(model, [x]).flops
    assert Fact.TORCH_GRAPH not in counts.facts_of(written)
    assert counts.facts_of(written) >= {Fact.ONNX_READY, Fact.HAS_CONV2D, Fact.HAS_LINEAR, Fact.FLOAT32}


def test_a_program_on_a_card_is_read_by_no_engine_of_the_processor() -> None:
    captured = capture(mlp(), (torch.randn(2, 784),)).model
    placed = captured.replace(settings=captured.settings.replace(device="cuda:0"))

    facts = counts.facts_of(placed)

    assert Fact.ON_CUDA in facts and not {Fact.ON_CPU, Fact.ONNX_READY, Fact.OPENVINO_READY} & facts
    assert counts.cost_of(placed, [torch.randn(2, 784)]).device == "cuda"
