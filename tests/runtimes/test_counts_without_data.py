"""What is counted without computing is what running counts, node by node; what cannot be followed so is run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vivace as vv
from runtimes.models import Convolution, Recurrent, mlp
from vivace.api.prediction.counting import counted_workload
from vivace.core.errors import UnsupportedModel
from vivace.runtimes.calls import flat_call
from vivace.runtimes.capture import capture, traced
from vivace.runtimes.graphs.counts import tally_of, tally_without_data


class Attention(nn.Module):
    """Queries, keys and values of one product, causal or not, and a mask that is a constant of the model."""

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.project, self.out, self.is_causal = nn.Linear(32, 96), nn.Linear(32, 32), is_causal
        self.register_buffer("scale", torch.ones(10, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 32] to the same."""
        parts = self.project(x * self.scale).chunk(3, -1)
        q, k, v = (part.reshape(*part.shape[:2], 4, 8).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer


class Tied(nn.Module):
    """An embedding whose weight is the last layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        """[N, T] to [N, T, 50]."""
        answer: Tensor = self.head(torch.relu(self.embedding(words)))
        return answer


class Positive(nn.Module):
    """Answers with as many values as are positive, which depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] to the sum of what is positive."""
        y = self.layer(x)
        return y[y > 0].sum(0, keepdim=True)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)


def layers_of_images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 4, 2), nn.GroupNorm(2, 4), nn.GELU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(36, 5), nn.Softmax(-1),
    )  # fmt: skip


IMAGES = torch.randn(2, 3, 16, 16)
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, torch.randn(3, 784)),
    "convolution": (Convolution, torch.randn(2, 1, 8, 8)),
    "images": (layers_of_images, IMAGES),
    "channels last": (layers_of_images, IMAGES.to(memory_format=torch.channels_last)),
    "attention": (lambda: Attention(False), torch.randn(2, 10, 32)),
    "causal attention": (lambda: Attention(True), torch.randn(2, 10, 32)),
    "encoder": (encoder, torch.randn(2, 9, 32)),
    "lstm": (lambda: nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True), torch.randn(2, 5, 8)),
    "gru": (lambda: nn.GRU(8, 16), torch.randn(5, 2, 8)),
    "tied": (Tied, torch.randint(0, 50, (2, 7))),
    "bfloat16": (lambda: mlp().bfloat16(), torch.randn(3, 784).bfloat16()),
}


@pytest.mark.parametrize(("make", "x"), MODELS.values(), ids=MODELS.keys())
def test_the_counts_without_data_are_those_of_a_run(make: Callable[[], nn.Module], x: Tensor) -> None:
    module = make().eval()
    leaves = flat_call(module, (x,))[0]

    ran = tally_of(capture(module, (x,), fixed_shapes=True).model, leaves)

    assert tally_without_data(traced(module, (x,)), leaves) == ran
    assert ran.nodes and ran.peak_bytes > 0


def test_a_graph_whose_shapes_depend_on_values_is_run() -> None:
    x = torch.randn(4, 8)
    module = Positive().eval()

    with pytest.raises(UnsupportedModel, match="without data"):
        tally_without_data(traced(module, (x,)), [x])

    step = counted_workload(vv.Workload(module, inputs=(x,)))
    assert sum(operator.flops for operator in step.operators(4)) == 2 * 4 * 8 * 8


def test_a_call_is_counted_without_running_the_model() -> None:
    ran = []

    class Watched(nn.Module):
        """Says when it is given numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            """[N, 8] to [N, 4]."""
            if type(x) is Tensor:
                ran.append(x.shape)
            answer: Tensor = self.layer(x)
            return answer

    step = counted_workload(vv.Workload(Watched(), inputs=(torch.randn(16, 8),)))

    assert ran == []
    assert sum(operator.flops for operator in step.operators(16)) == 2 * 16 * 8 * 4


def test_counting_leaves_the_model_and_its_example_as_they_were() -> None:
    module, x = Recurrent().eval(), torch.randn(2, 5, 8)
    before, weights = x.clone(), copy.deepcopy(module.state_dict())

    counted_workload(vv.Workload(module, inputs=(x,)))

    assert torch.equal(x, before)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
