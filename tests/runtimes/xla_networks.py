"""Small networks of every family that XLA's translation is tested on, each with a call of four samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class VisionBlock(nn.Module):
    """Patches, one attention block, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.norm, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(attended)
        return self.head((x + self.mlp(self.second(x)))[:, 0])


class Encoder(nn.Module):
    """Token ids through PyTorch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(tokens)).mean(1))


class Recurrent(nn.Module):
    """Two layers of LSTM in both directions, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
        self.gates = nn.GRU(32, 12, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found, (states, _) = self.cells(x)
        return self.gates(found)[0], states.transpose(0, 1)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4), nn.GroupNorm(4, 16), nn.ReLU6(), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.LogSoftmax(-1),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4), nn.Softmax(-1))


NETWORKS = {
    "cnn": (convolutional, torch.randn(4, 3, 32, 32)),
    "vit": (VisionBlock, torch.randn(4, 3, 32, 32)),
    "encoder": (Encoder, torch.randint(0, 100, (4, 12))),
    "lstm": (Recurrent, torch.randn(4, 9, 8)),
    "mlp": (perceptron, torch.randn(4, 20)),
}
