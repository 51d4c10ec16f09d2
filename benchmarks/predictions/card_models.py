"""The networks that are measured on a card and predicted without one: plain PyTorch, sent to the card as this text."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.body(x)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))


def block(width, heads):
    up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    return nn.Sequential(
        Residual(nn.LayerNorm(width), Attention(width, heads)), Residual(nn.LayerNorm(width), up, nn.GELU(), down)
    )


def conv(i, o, s=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


def resnet():
    body = [conv(3, 64)]
    for i, o in ((64, 64), (64, 128), (128, 256), (256, 512)):
        body += [conv(i, o, 1 + (i < o)), Residual(conv(o, o), conv(o, o)), Residual(conv(o, o), conv(o, o))]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def mlp():
    hidden = [nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(4096, 10))


def encoder():
    return nn.Sequential(*[block(768, 12) for _ in range(6)])


def decoder():
    return nn.Sequential(nn.Embedding(32000, 1024), *[block(1024, 16) for _ in range(12)], nn.Linear(1024, 32000))


MODELS = {
    "mlp": (mlp, lambda b: torch.randn(b, 784)),
    "resnet": (resnet, lambda b: torch.randn(b, 3, 64, 64)),
    "encoder": (encoder, lambda b: torch.randn(b, 128, 768)),
    "decoder": (decoder, lambda b: torch.randint(0, 32000, (b, 512))),
}
