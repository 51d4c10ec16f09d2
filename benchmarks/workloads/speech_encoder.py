"""A speech encoder: convolutional subsampling and four Conformer blocks of width 144, two seconds of sound a call.

The architecture is Conformer-S with fewer blocks (Gulati et al. 2020, arXiv:2005.08100, table 1). The sound is
SYNTHETIC, for no recordings are at hand: the ten digits of a telephone keypad (pairs of tones, ITU-T Q.23) with gaps
drawn at random, under a buzz of harmonics with a gliding pitch and white noise. The label is the key. The input is the
log-mel spectrogram, 80 bands every 10 ms, as speech recognizers take it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import kept, pairs, trained

RATE, SECONDS, BANDS, WINDOW, HOP = 16000, 2.0, 80, 512, 160
WIDTH, HEADS, BLOCKS, KERNEL = 144, 4, 4, 15
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)
KEYS = ((3, 1), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))
"""Row and column of the keys 0 to 9."""
NOISE = 1.5
BUDGET = vv.Budget(drop=0.01)


class SpeechEncoder(nn.Module):
    """Spectrograms [N, 1, frames, bands] to scores [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.subsample = nn.Sequential(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU())
        self.project = nn.Linear(32 * BANDS // 4, WIDTH)
        self.blocks = nn.Sequential(*(Conformer() for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, spectrograms: Tensor) -> Tensor:
        x = self.subsample(spectrograms).transpose(1, 2).flatten(2)
        return self.head(self.blocks(self.project(x)).mean(1))


class Conformer(nn.Module):
    """Half a perceptron, attention, convolution, half a perceptron, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = perceptron(), perceptron()
        self.attention_norm, self.convolution_norm, self.norm = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.project_in, self.project_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.convolution = nn.Sequential(
            nn.Conv1d(WIDTH, 2 * WIDTH, 1), nn.GLU(1),
            nn.Conv1d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH), nn.BatchNorm1d(WIDTH), nn.SiLU(),
            nn.Conv1d(WIDTH, WIDTH, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        parts = self.project_in(self.attention_norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project_out(mixed.transpose(1, 2).flatten(2))
        x = x + self.convolution(self.convolution_norm(x).transpose(1, 2)).transpose(1, 2)
        return self.norm(x + 0.5 * self.last(x))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, WIDTH))


def sounds(labels: Tensor, chance: torch.Generator) -> Tensor:
    """Sound [N, RATE * SECONDS] of a key pressed once, for 0.15 to 0.4 s, somewhere in each."""
    count, time = len(labels), torch.arange(int(RATE * SECONDS)) / RATE
    pressed = torch.rand(count, 2, generator=chance) * torch.tensor([1.5, 0.25]) + torch.tensor([0.0, 0.15])
    phase = 2 * math.pi * torch.rand(count, 3, generator=chance)
    pitch = 110 + 110 * torch.rand(count, 1, generator=chance)
    angle = 2 * math.pi * pitch * (time + 0.1 * (3 * time + phase[:, 2:]).sin())
    buzz = sum((harmonic * angle).sin() / harmonic**0.5 for harmonic in range(1, 13))
    noise = torch.randn(count, len(time), generator=chance)
    return 0.6 * press(labels, pressed, phase[:, :2]) + 0.3 * buzz + NOISE * noise


def press(labels: Tensor, pressed: Tensor, phase: Tensor) -> Tensor:
    """The two tones [N, RATE * SECONDS] of keys `labels`, from and for `pressed` [N, 2] seconds."""
    time = torch.arange(int(RATE * SECONDS)) / RATE
    there = (time >= pressed[:, :1]) & (time < pressed.sum(1, keepdim=True))
    low, high = (torch.tensor([tones[KEYS[key][i]] for key in labels.tolist()]) for i, tones in enumerate((LOW, HIGH)))
    tones = (2 * math.pi * torch.stack([low, high], 1)[:, :, None] * time + phase[:, :, None]).sin()
    return there * tones.sum(1)


def log_mel(sound: Tensor) -> Tensor:
    """Log-mel spectrograms [N, 1, frames, BANDS], each with mean 0 and deviation 1."""
    window = torch.hann_window(WINDOW)
    power = torch.stft(sound, WINDOW, HOP, window=window, return_complex=True).abs().square()[..., :-1]
    found = (mel_filters() @ power).clamp(min=1e-6).log().transpose(1, 2)[:, None]
    return (found - found.mean((2, 3), keepdim=True)) / found.std((2, 3), keepdim=True)


def mel_filters() -> Tensor:
    """Triangles [BANDS, WINDOW / 2 + 1], evenly spaced in mel = 2595 log10(1 + f / 700)."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def made(count: int) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (count,), generator=chance)
    parts = [log_mel(sounds(part, chance)) for part in labels.split(100)]
    return {"spectrograms": torch.cat(parts), "labels": labels}


def workload() -> vv.Workload:
    """Trained on 500 sounds, judged on 1,000 others."""
    data = kept("keypad-sounds", lambda: made(1500))
    inputs, labels = data["spectrograms"], data["labels"]
    model = trained("speech-encoder", SpeechEncoder, inputs[:500], labels[:500], epochs=6, rate=1e-3)
    held_out = pairs(inputs[500:], labels[500:], 1)
    return vv.Workload(
        model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="speech-encoder"
    )
