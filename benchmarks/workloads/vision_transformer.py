"""A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): 6 layers of width 192, one image a call.

The data are scikit-learn's 1,797 handwritten digits, scaled up to 3 x 48 x 48, in 36 patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import digits, pairs, trained

SIZE, PATCH, WIDTH, HEADS, LAYERS = 48, 8, 192, 3, 6
BUDGET = vv.Budget(drop=0.01)


class VisionTransformer(nn.Module):
    """Patches and a class token, pre-norm layers, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2 + 1, WIDTH) * 0.02)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])


class Layer(nn.Module):
    """Attention to all patches, then a perceptron, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project_in, self.project_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project_in(self.first_norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project_out(mixed.transpose(1, 2).flatten(2))
        return x + self.perceptron(self.second_norm(x))


def workload() -> vv.Workload:
    """Trained on 600 digits, judged on the others."""
    images, labels = digits(SIZE, channels=3)
    model = trained("vision-transformer", VisionTransformer, images[:600], labels[:600], epochs=10, rate=1e-3)
    held_out = pairs(images[600:], labels[600:], 1)
    return vv.Workload(
        model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="vision-transformer"
    )
