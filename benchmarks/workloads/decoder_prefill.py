"""A decoder reads a prompt of 256 characters in one call: 4 layers of width 192, as LLaMA builds them.

Rotary places, RMS normalization, gated perceptrons (Touvron et al. 2023, arXiv:2302.13971, section 2.2). The data are
the plays of tinyshakespeare, or the text that `prepare.text` falls back to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import LETTERS, pairs, text, trained
from workloads.transformer import next_character

LENGTH, WIDTH, HEADS, LAYERS, HIDDEN = 256, 192, 4, 4, 512
BUDGET = vv.Budget(drop=0.01)


class Decoder(nn.Module):
    """Scores of the next character at each place of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(LETTERS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, LETTERS, bias=False)
        cosines, sines = rotation()
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.symbols(codes)
        for layer in self.layers:
            x = layer(x, self.cosines, self.sines)
        return self.head(self.norm(x))


class Layer(nn.Module):
    """Causal attention with rotated queries and keys, then a gated perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.value, self.out = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        y = self.first_norm(x)
        q, k, v = (one(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.query, self.key, self.value))
        q, k = rotated(q, cosines, sines), rotated(k, cosines, sines)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.second_norm(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


def rotation() -> tuple[Tensor, Tensor]:
    """Cosines and sines [LENGTH, WIDTH / HEADS] of the angles of each place (Su et al. 2021, arXiv:2104.09864)."""
    half = WIDTH // HEADS // 2
    angles = torch.outer(torch.arange(LENGTH), 10_000.0 ** (-torch.arange(half) / half))
    return torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat([-second, first], -1) * sines


def workload() -> vv.Workload:
    """Trained on 500 windows, judged on 1,000 others."""
    codes, following = text(LENGTH)
    model = trained("decoder", Decoder, codes[:500], following[:500], epochs=2, rate=4e-3, batch=8)
    held_out = pairs(codes[500:1500], following[500:1500], 1)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=next_character, name="decoder-prefill")
