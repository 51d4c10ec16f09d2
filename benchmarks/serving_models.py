"""What the benchmark of serving serves: the digits network and a small transformer encoder, one sample a request."""

from __future__ import annotations

from torch import Tensor, nn

import vivace as vv
from prepare import LETTERS, pairs, text, trained
from vivace.cli.digits import load_digits, train_network

BATCH = 8
LENGTH, WIDTH, HEADS, LAYERS = 16, 64, 4, 2


class Encoder(nn.Module):
    """Reads 16 characters and scores each one that follows: 2 layers of width 64, 120,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(LETTERS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, LETTERS)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores [N, T, 96] for codes [N, T]; a character sees all others, so this is no language model."""
        scores: Tensor = self.head(self.layers(self.symbols(codes) + self.places.weight))
        return scores


def same_characters(output: Tensor, target: Tensor) -> Tensor:
    """The share of each window's characters that were predicted."""
    return (output.argmax(-1) == target).double().mean(-1)


def digits_cnn() -> vv.Workload:
    """The demo's network, 8 images a call while it is optimized."""
    training, held_out = load_digits()
    data = pairs(held_out.images, held_out.labels, BATCH)
    metric = vv.metrics.accuracy
    return vv.Workload(train_network(training), inputs=(data[0][0],), data=data, metric=metric, name="digits-cnn")


def encoder() -> vv.Workload:
    """Trained on 4,000 windows, judged on 2,000 others, 8 windows a call while it is optimized."""
    codes, following = text(LENGTH)
    model = trained("serving-encoder", Encoder, codes[:4000], following[:4000], epochs=2, rate=2e-3)
    data = pairs(codes[4000:6000], following[4000:6000], BATCH)
    return vv.Workload(model, inputs=(data[0][0],), data=data, metric=same_characters, name="encoder")


MODELS = {"digits_cnn": digits_cnn, "encoder": encoder}
