"""A U-Net (Ronneberger et al. 2015, arXiv:1505.04597) of three levels finds the ink in a noisy 64 x 64 image.

The images are made from MNIST digits: two real digits on a canvas, a slope of brightness across it and Gaussian noise
added, all by seed. The target is where there was ink before. A sample's score is the share of pixels that are right
among those that are ink or were called ink (intersection over union).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import mnist, pairs, trained

SIZE, WIDTHS, NOISE = 64, (16, 32, 64), 0.4
BUDGET = vv.Budget(drop=0.01)


class UNet(nn.Module):
    """Down twice, up twice, with what was there on the way down."""

    def __init__(self) -> None:
        super().__init__()
        small, middle, large = WIDTHS
        self.first, self.second, self.bottom = pair(1, small), pair(small, middle), pair(middle, large)
        self.pool = nn.MaxPool2d(2)
        self.up_second, self.up_first = nn.ConvTranspose2d(large, middle, 2, 2), nn.ConvTranspose2d(middle, small, 2, 2)
        self.back_second, self.back_first = pair(2 * middle, middle), pair(2 * small, small)
        self.head = nn.Conv2d(small, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(self.pool(first))
        bottom = self.bottom(self.pool(second))
        second = self.back_second(torch.cat([second, self.up_second(bottom)], 1))
        return self.head(self.back_first(torch.cat([first, self.up_first(second)], 1)))


def pair(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


def scenes(count: int) -> tuple[Tensor, Tensor]:
    """Noisy images [N, 1, 64, 64] and where their ink is, as 0 and 1."""
    rows, _ = mnist()
    digits = (rows - rows.min()).reshape(-1, 28, 28)
    chance = torch.Generator().manual_seed(0)
    places = torch.randint(0, SIZE - 28, (count, 2, 2), generator=chance)
    chosen = torch.randperm(len(digits), generator=chance).repeat(2)[: 2 * count].reshape(count, 2)
    ink = torch.zeros(count, SIZE, SIZE)
    for i in range(count):
        for (down, right), digit in zip(places[i].tolist(), digits[chosen[i]], strict=True):
            part = ink[i, down : down + 28, right : right + 28]
            part.copy_(torch.maximum(part, digit))
    slope = torch.linspace(-0.5, 0.5, SIZE) * torch.randn(count, 1, 1, generator=chance)
    noisy = ink + slope + NOISE * torch.randn(ink.shape, generator=chance)
    return noisy[:, None], (ink[:, None] > 0.5).float()


def overlap(output: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the pixels called ink (score above 0) and those that are."""
    called, is_ink = output.flatten(1) > 0, target.flatten(1) > 0.5
    return (called & is_ink).sum(1).double() / (called | is_ink).sum(1).double().clamp(min=1)


def workload() -> vv.Workload:
    """Trained on 400 scenes, judged on 1,000 others."""
    images, ink = scenes(1400)
    loss = nn.functional.binary_cross_entropy_with_logits
    model = trained("unet", UNet, images[:400], ink[:400], epochs=4, rate=4e-3, batch=16, loss=loss)
    held_out = pairs(images[400:], ink[400:], 1)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=overlap, name="unet")
