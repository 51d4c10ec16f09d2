"""Small networks that together have every operator that is written out as C++."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Convolutions of all kinds: with a stride, of each channel, pointwise, in groups; a shortcut, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 20, 3, 2, 1), nn.BatchNorm2d(20)
        self.channels, self.points = nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.Conv2d(20, 40, 1)
        self.groups, self.head = nn.Conv2d(40, 20, 3, padding=1, groups=4), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        y = functional.relu6(self.points(self.channels(x)))
        x = functional.max_pool2d((x + self.groups(y)).relu(), 2)
        return self.head(x.mean((2, 3)))


class Filters(nn.Module):
    """Windows of each channel: with a stride, with gaps, wider than the image; within bounds, with a shortcut, and read
    by a window that is no single place; a border on two sides alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.wider = nn.Conv2d(3, 20, 3, 2, 1), nn.Conv2d(20, 36, 1), nn.Conv2d(20, 36, 1)
        self.down = nn.Conv2d(36, 36, 3, 2, 1, groups=36, bias=False)
        self.far = nn.Conv2d(36, 36, 5, 1, 4, 2, groups=36)
        self.norm, self.norms = nn.BatchNorm2d(36), nn.BatchNorm2d(36)
        self.narrow, self.back = nn.Conv2d(36, 20, 1), nn.Conv2d(36, 20, 1)
        self.own, self.last = nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.Conv2d(20, 24, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        x = self.narrow(functional.relu6(self.norm(self.down(functional.relu6(self.wide(x))))))
        x = x + self.back(functional.hardtanh(self.norms(self.far(functional.relu6(self.wider(x)))), 0.0, 2.0))
        y = functional.relu6(x + self.own(x))
        return self.last(functional.pad(y, (0, 2, 1, 2))).mean((2, 3))


class Sequence(nn.Module):
    """Causal convolutions of a sequence with gaps in their windows, one of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv1d(1, 64, 8, stride=4, padding=2), nn.Conv1d(64, 64, 7, dilation=2)
        self.norm, self.pool, self.head = nn.BatchNorm1d(64), nn.AdaptiveAvgPool1d(7), nn.Linear(448, 10)
        self.own = nn.Conv1d(64, 64, 4, groups=64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.norm(self.wide(functional.pad(x, (12, 0)))).relu()
        y = self.own(functional.pad(y, (3, 0)))
        return self.head(self.pool((x + y).relu()).flatten(1))


class Hourglass(nn.Module):
    """Down and up again, with what was there on the way down; enlarged in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.last, self.head = (
            nn.ConvTranspose2d(32, 16, 2, 2),
            nn.Conv2d(48, 16, 3, padding=1),
            nn.Conv2d(16, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        second = self.second(functional.avg_pool2d(first, 2)).relu()
        wide = functional.interpolate(second[:, :16], scale_factor=2.0)
        return self.head(self.last(torch.cat([first, self.up(second), wide], 1)).relu())


class Encoder(nn.Module):
    """Attention with a mask, normalizations of lines, the length of a sentence's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(50, 48)
        layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 7)

    def forward(self, codes: Tensor) -> Tensor:
        states = self.head(self.layers(self.symbols(codes), src_key_padding_mask=codes == 0))
        return functional.normalize(states.mean(1), dim=1)


class Decoder(nn.Module):
    """Causal attention by hand and by PyTorch, gates, rows picked by numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols, self.norm = nn.Embedding(50, 32), nn.RMSNorm(32)
        self.mixed, self.gate, self.head = nn.Linear(32, 96), nn.Linear(32, 128), nn.Linear(64, 50)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.symbols(codes)
        query, key, value = (
            one.unflatten(-1, (2, 16)).transpose(1, 2) for one in self.mixed(self.norm(x)).chunk(3, -1)
        )
        x = x + functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        scores = (query @ key.transpose(-1, -2) / 4).softmax(-1)
        x = x + (scores @ value).transpose(1, 2).reshape(x.shape)
        one, other = self.gate(x).chunk(2, -1)
        return self.head(functional.silu(one) * other.tanh())


class Recurrent(nn.Module):
    """An LSTM of two layers, its last states too."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.symbols, self.head = nn.Embedding(50, 24), nn.Linear(40, 5)
        self.cells = nn.LSTM(24, 40, 2, batch_first=batch_first)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, (hidden, cells) = self.cells(self.symbols(codes))
        return self.head(states), hidden, cells


class Gated(nn.Module):
    """GRUs of two layers, in both directions or one, and an LSTM in both; their last states too."""

    def __init__(self, batch_first: bool, bidirectional: bool, bias: bool) -> None:
        super().__init__()
        width, ways = 20, 2 if bidirectional else 1
        self.symbols = nn.Embedding(50, 24)
        self.cells = nn.GRU(24, width, 2, bias, batch_first, bidirectional=bidirectional)
        self.others = nn.LSTM(ways * width, 12, 2, bias, batch_first, bidirectional=True)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        states, last = self.cells(self.symbols(codes))
        answer, (hidden, cells) = self.others(states)
        return answer, last, hidden, cells


class Started(nn.Module):
    """A GRU and an LSTM whose first states are given by what they read, beyond what later ones can be."""

    def __init__(self) -> None:
        super().__init__()
        self.gated, self.long = nn.GRU(6, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = 3 * x[:, 0][None]
        states, _ = self.gated(x, first)
        both = torch.cat([first, -first])
        return states, self.long(x, (both, both * 2))[0]


class SharedKeys(nn.Module):
    """Heads that share keys and values: all of them, and two by two."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.all, self.pairs = nn.Linear(24, 32), nn.Linear(24, 16), nn.Linear(24, 32)

    def forward(self, x: Tensor) -> Tensor:
        def heads(y: Tensor, count: int) -> Tensor:
            return y.unflatten(-1, (count, 8)).transpose(1, 2)

        query = heads(self.asked(x), 4)
        one, other = heads(self.all(x), 2).chunk(2, 1)
        first = functional.scaled_dot_product_attention(query, one, other, is_causal=True)
        keys, values = heads(self.pairs(x), 4).chunk(2, 1)
        return functional.scaled_dot_product_attention(first, keys, values, enable_gqa=True)


class Volumes(nn.Module):
    """Convolutions, pooling and resizing of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(2, 12, 3, padding=1), nn.BatchNorm3d(12)
        self.groups = nn.Conv3d(12, 24, (3, 3, 1), stride=(2, 1, 1), dilation=(2, 1, 1), padding=(2, 0, 0), groups=3)
        self.back, self.last = nn.ConvTranspose3d(24, 12, 2, stride=2), nn.Conv3d(12, 5, (1, 3, 3), stride=(1, 2, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = functional.max_pool3d(functional.relu(self.norm(self.first(x))), 3, 1, 1)
        x = functional.avg_pool3d(x, (1, 2, 2)) + functional.avg_pool3d(x, (3, 2, 2), (1, 2, 2), (1, 0, 0))
        y = functional.interpolate(self.back(self.groups(x)), scale_factor=2)
        return self.last(y), functional.adaptive_avg_pool3d(x, 1), functional.adaptive_avg_pool3d(y, (2, 1, 2))


class Bags(nn.Module):
    """Rows of tables, added up: as many for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.means = nn.EmbeddingBag(50, 24, mode="sum"), nn.EmbeddingBag(50, 24)
        self.weights, self.top = nn.Parameter(torch.randn(50)), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        weighted = functional.embedding_bag(
            x, self.sums.weight, mode="sum", per_sample_weights=functional.embedding(x, self.weights[:, None])[..., 0]
        )
        return self.top(torch.cat([self.sums(x), self.means(x), weighted], 1))


class Turned(nn.Module):
    """An image sampled where the network says (Jaderberg et al., NIPS 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.what = nn.Linear(3 * 4 * 4, 6), nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        turn = self.where(functional.adaptive_avg_pool2d(x, 4).flatten(1)).view(-1, 2, 3)
        grid = functional.affine_grid(turn, list(x.shape), align_corners=False)
        return self.what(functional.grid_sample(x, grid, align_corners=False))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 10), nn.LogSoftmax(-1))


CHANCE = torch.Generator().manual_seed(3)
NETWORKS = {
    "one row": (perceptron, torch.randn(1, 20, generator=CHANCE)),
    "many rows": (perceptron, torch.randn(70, 20, generator=CHANCE)),
    "one image": (Residual, torch.randn(1, 3, 32, 32, generator=CHANCE)),
    "images": (Residual, torch.randn(3, 3, 17, 19, generator=CHANCE)),
    "series": (Sequence, torch.randn(4, 1, 256, generator=CHANCE)),
    "hourglass": (Hourglass, torch.randn(1, 1, 32, 32, generator=CHANCE)),
    "encoder": (Encoder, torch.randint(0, 50, (2, 33), generator=CHANCE)),
    "decoder": (Decoder, torch.randint(0, 50, (1, 70), generator=CHANCE)),
    "recurrent": (Recurrent, torch.randint(0, 50, (7, 9), generator=CHANCE)),
    "by time": (lambda: Recurrent(False), torch.randint(0, 50, (9, 3), generator=CHANCE)),
    "gated both ways": (lambda: Gated(True, True, True), torch.randint(0, 50, (3, 8), generator=CHANCE)),
    "gated by time": (lambda: Gated(False, False, False), torch.randint(0, 50, (11, 1), generator=CHANCE)),
    "begun": (Started, torch.randn(2, 7, 6, generator=CHANCE)),
    "long decoder": (Decoder, torch.randint(0, 50, (2, 170), generator=CHANCE)),
    "filters": (Filters, torch.randn(3, 3, 17, 19, generator=CHANCE)),
    "filters of one image": (Filters, torch.randn(1, 3, 40, 36, generator=CHANCE)),
    "filters of a line": (Filters, torch.randn(1, 3, 2, 70, generator=CHANCE)),
    "shared keys": (SharedKeys, torch.randn(2, 19, 24, generator=CHANCE)),
    "volumes": (Volumes, torch.randn(2, 2, 6, 12, 14, generator=CHANCE)),
    "bags": (Bags, torch.randint(0, 50, (4, 6), generator=CHANCE)),
    "turned": (Turned, torch.randn(2, 3, 16, 20, generator=CHANCE)),
}
