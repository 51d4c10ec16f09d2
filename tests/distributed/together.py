"""Jobs for trainings on several processes, and progresses that do harm to them while they train."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn import functional

from vivace.report.progress import SilentProgress
from vivace.testing.tiny_training import CLASSES, Points, accuracy, job

CLEAR = threading.Event()


def in_float64() -> nn.Module:
    """The same chain as `wide`, in float64."""
    return wide().double()


def loss_in_float64(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of points that are given in float32."""
    return functional.cross_entropy(model(batch[0].double()), batch[1])


def wide() -> nn.Module:
    """A chain of modules with a pair of linear layers, without dropout: every layout can train it."""
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), Block(16), Block(16), nn.Linear(16, CLASSES))


class Shaking:
    """An augmentation that draws from a generator of its own."""

    def __init__(self) -> None:
        self.chance = torch.Generator().manual_seed(1)

    def __call__(self, batch: Any) -> Any:
        return batch[0] + 0.1 * torch.randn(batch[0].shape, generator=self.chance), batch[1]


LETTERS, LONGEST = 11, 6


class Attention(nn.Module):
    """Causal attention with dropout inside of it."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.given = nn.Linear(size, 3 * size, bias=False)  # keys' gradients have no bias: Adam would learn noise
        self.out = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, length, size = x.shape
        parts = self.given(x).view(count, length, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        dropped = 0.2 if self.training else 0.0
        found = functional.scaled_dot_product_attention(*parts, dropout_p=dropped, is_causal=True)
        return self.out(found.transpose(1, 2).reshape(count, length, size))


class Written(nn.Module):
    """A small GPT as people write it: what is added up before the blocks is in no module, the last layer is tied."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(LETTERS, size), nn.Embedding(LONGEST, size)
        self.drop = nn.Dropout(0.2)
        self.blocks = nn.ModuleList([Both(size) for _ in range(2)])
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, LETTERS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, length = ids.size()
        assert length <= LONGEST
        x = self.drop(self.tokens(ids) + self.places(torch.arange(length, device=ids.device)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Untied(Written):
    """The same with a last layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(self.tokens.weight.detach().clone())


class Both(nn.Module):
    """A block of a transformer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.attention, self.block = nn.LayerNorm(size), Attention(size, 2), Block(size)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x + self.drop(self.attention(self.norm(x))))


class Letters(Points):
    """Rows of letters that follow one another; 52 of them, so that the last batch is smaller."""

    def __len__(self) -> int:
        return 52

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < 52:
            raise IndexError(index)
        ids = (torch.arange(LONGEST + 1) * (1 + index % 3) + index) % LETTERS
        return ids[:-1], ids[1:]


def following(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of the letters that come next."""
    ids, wanted = batch
    return functional.cross_entropy(model(ids).view(-1, LETTERS), wanted.reshape(-1))


def guessed(model: nn.Module) -> float:
    """The share of letters that are the likeliest ones."""
    ids, wanted = map(torch.stack, zip(*(Letters()[index] for index in range(20)), strict=True))
    with torch.no_grad():
        return float((model(ids).argmax(-1) == wanted).float().mean())


def written_job(**changes: Any) -> Any:
    """The small GPT on letters."""
    given = {
        "model": Written,
        "loss": following,
        "data": Letters(),
        "evaluate": guessed,
        "epochs": 2,
        "name": "letters",
    }
    return job(**{**given, **changes})


class Block(nn.Module):
    """A linear pair with a way around it, as transformers have it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.up, self.act, self.down = nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Frozen(nn.Sequential):
    """A chain with a batch normalization that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self[1].eval()
        return self


class Averaged(nn.Module):
    """What two layers give, on average: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, CLASSES), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.first(x) + self.last(x)) / 2


def wide_job(**changes: Any) -> Any:
    """The chain on points."""
    return job(**{"model": wide, "epochs": 2, "name": "wide", **changes})


def adagrad(parameters: Any) -> torch.optim.Optimizer:
    """An optimizer that has its state of every parameter from the beginning."""
    return torch.optim.Adagrad(parameters, 0.05)


def weighted_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The mean over the samples of the first classes alone, as over tokens without padding."""
    points, labels = batch
    kept = labels < 3
    return functional.cross_entropy(model(points)[kept], labels[kept])


def kept(batch: Any) -> float:
    """How many samples count."""
    return float((batch[1] < 3).sum())


def contrastive(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss over pairs of the batch's samples, which no process that has some of them can compute."""
    found = functional.normalize(model(batch[0]), dim=1)
    return functional.cross_entropy(found @ found.t(), torch.arange(len(found)))


class Hanging(Points):
    """A dataset that hangs, once, in whoever asks for a sample beyond the first half of a batch after some others."""

    def __init__(self, flag: Path, always: bool = False) -> None:
        super().__init__()
        self.flag = flag
        self.always = always
        self.asked = 0

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        if os.environ.get("RANK") == "1" and self.asked > 130 and (self.always or not self.flag.exists()):
            self.flag.write_text("hung")
            CLEAR.wait()
        return super().__getitem__(index)


class Refusing(Points):
    """A dataset that one process cannot read to its end."""

    def __getitem__(self, index: int) -> Any:
        if os.environ.get("RANK") == "1":
            raise ValueError("the file of this sample is damaged")
        return super().__getitem__(index)


def ranks() -> list[psutil.Process]:
    """The processes that train for this one."""
    return [one for one in psutil.Process().children(recursive=True) if _is_rank(one)]


def _is_rank(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:  # it has ended
        return False


class Killing(SilentProgress):
    """Kills a rank when the training has come so far, as often as is asked."""

    def __init__(self, at: str, times: int = 1) -> None:
        self.at = at
        self.left = times
        self.notes: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        if name == "train" and self.at in detail and self.left:
            self.left -= 1
            os.kill(ranks()[-1].pid, signal.SIGKILL)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Named:
    """What a rank answers of itself: the name below which it met the others."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def met_at(self) -> str:
        """The name."""
        return os.environ["VIVACE_MEETING"]

    def sum_of_ranks(self) -> float:
        """What all ranks' numbers add up to."""
        return float(self.world.sum_over_batch(torch.tensor([float(self.world.rank)]), "numbers"))


def open_named(arguments: Any, payload: bytes, world: Any) -> Named:
    """The entry of a rank that answers of itself."""
    return Named(world)


PAIRED_FROM = 30
CALLED = {"steps": 0}


def paired_later(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss that becomes one over pairs of the batch's samples after some steps."""
    CALLED["steps"] += 1
    points, labels = batch
    own = functional.cross_entropy(model(points), labels)
    return own if CALLED["steps"] <= PAIRED_FROM else own + contrastive(model, batch)


class Quitting(Points):
    """A dataset that ends, once, the process of rank 1 after some samples, as if all were done."""

    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag
        self.asked = 0

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        if os.environ.get("RANK") == "1" and self.asked > 130 and not self.flag.exists():
            self.flag.write_text("gone")
            os._exit(0)
        return super().__getitem__(index)


class Full(Points):
    """A dataset for which rank 1 has no memory left after some samples."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        if os.environ.get("RANK") == "1" and self.asked > 130:
            raise MemoryError
        return super().__getitem__(index)


class Leaving(Points):
    """A dataset that asks to leave the program in one process."""

    def __getitem__(self, index: int) -> Any:
        if os.environ.get("RANK") == "1":
            sys.exit("no licence for this data set")
        return super().__getitem__(index)


class Padded(Points):
    """Points of which the second half of every batch of 16 is padding, that is of a class that does not count."""

    def __getitem__(self, index: int) -> Any:
        point, label = super().__getitem__(index)
        return point, CLASSES - 1 if index % 16 >= 8 else label


def padded_job(**changes: Any) -> Any:
    """The chain on points in their own order, so that a part of a batch may hold none that counts."""
    given = {"data": Padded(), "loss": weighted_loss, "weight": kept, "shuffle": False}
    return wide_job(**{**given, **changes})


class Recurrent(nn.Module):
    """A recurrence of two layers with dropout between, of as many steps as a part of a batch has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(5, 8, 2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(x)[0][:, -1])


def recurrent_job(**changes: Any) -> Any:
    """The recurrence on series of eight steps."""
    data = Points(60, (8, 5))
    return job(**{"model": Recurrent, "data": data, "evaluate": accuracy(data), "epochs": 2, **changes})


class Stages(SilentProgress):
    """Keeps the names of what has been begun."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.told.append(name)


class Uneven(Letters):
    """Rows of letters of different lengths."""

    def __getitem__(self, index: int) -> Any:
        ids, wanted = super().__getitem__(index)
        length = LONGEST - index % 4
        return ids[:length], wanted[:length]


def filled(samples: list[Any]) -> Any:
    """A batch of rows that are filled up to the longest of them with what does not count."""
    ids, wanted = zip(*samples, strict=True)
    fill = nn.utils.rnn.pad_sequence
    return fill(list(ids), batch_first=True), fill(list(wanted), batch_first=True, padding_value=-100)


def letters_that_count(batch: Any) -> float:
    """How many letters of a batch are no filling."""
    return float((batch[1] != -100).sum())


UNEVEN: dict[str, Any] = {
    "data": Uneven(), "collate": filled, "weight": letters_that_count, "batch_size": 6, "loss": following,
    "evaluate": guessed,
}  # fmt: skip


def uneven_job(**changes: Any) -> Any:
    """The small GPT on rows that are filled up batch by batch, in an order in which these differ in length."""
    return written_job(**{**UNEVEN, **changes})


def spelling() -> nn.Module:
    """A chain of modules over letters, without dropout."""
    return nn.Sequential(nn.Embedding(LETTERS, 16), Block(16), Block(16), nn.Linear(16, LETTERS))
