"""A transformer encoder that predicts each next character: 4 layers of width 256, one window of 64 a call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import LETTERS, pairs, text, trained

LENGTH, WIDTH, HEADS, LAYERS = 64, 256, 4, 4
BUDGET = vv.Budget(drop=0.01)


class Encoder(nn.Module):
    """Pre-norm layers with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(LETTERS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, LETTERS)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.symbols(codes) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Layer(nn.Module):
    """Attention, then a perceptron, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project_in, self.project_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.project_in(self.first_norm(x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project_out(mixed.transpose(1, 2).flatten(2))
        return x + self.perceptron(self.second_norm(x))


def next_character(output: Tensor, target: Tensor) -> Tensor:
    """The share of each window's characters that were predicted."""
    return (output.argmax(-1) == target).double().mean(-1)


def workload() -> vv.Workload:
    """Trained on 2,000 windows, judged on 1,200 others."""
    codes, following = text(LENGTH)
    model = trained("transformer", Encoder, codes[:2000], following[:2000], epochs=2, rate=1e-3)
    held_out = pairs(codes[3000:4200], following[3000:4200], 1)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=next_character, name="transformer")
