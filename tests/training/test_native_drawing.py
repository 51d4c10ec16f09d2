"""Random numbers of compiled steps: those of a golden model in NumPy, as chance would have them; resumed, the same."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from native_loops import ALONE, CACHED, finish, loop_of, same, weights
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vivace.codegen import functions
from vivace.codegen.build import flags_for, library
from vivace.codegen.threads import head
from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.devices import machine
from vivace.runtimes.settings.around import threads as threads_inside
from vivace.testing.tiny_training import CLASSES, Points, job
from vivace.training.native import drawing

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="compiled steps need a C++ compiler: install g++")
MASK = (1 << 64) - 1


def key_of(key: int, place: int) -> tuple[int, int]:
    """The golden model: splitmix64's finalizer."""
    x = (key + (place + 1) * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    x ^= x >> 31
    return x & 0xFFFFFFFF, x >> 32


def drawn(key: int, place: int, count: int) -> NDArray[np.float64]:
    """What an operator draws for its first `count` elements."""
    first, second = key_of(key, place)
    x = np.arange(count, dtype=np.uint32) ^ np.uint32(first)
    for added in (second, 0):
        x ^= x >> 16
        x *= np.uint32(0x7FEB352D)
        x ^= x >> 15
        x *= np.uint32(0x846CA68B)
        x ^= x >> 16
        x += np.uint32(added)
    return (x >> 8).astype(np.float64) / (1 << 24)


class Dropped(nn.Module):
    """Dropout of two kinds and a shortcut; `masks` stand in for what would be drawn."""

    def __init__(self, masks: tuple[torch.Tensor, ...] = ()) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)
        self.masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._without(torch.relu_(self.first(x)), 0, 0.3)
        x = x + self._without(functional.gelu(self.second(x)), 1, 0.5)
        found: torch.Tensor = self.last(x)
        return found

    def _without(self, x: torch.Tensor, place: int, share: float) -> torch.Tensor:
        return x * self.masks[place] / (1 - share) if self.masks else functional.dropout(x, share, self.training)


def test_compiled_code_draws_what_the_golden_model_draws() -> None:
    entry = (
        'extern "C" void draw(const unsigned long *by, long place, long s, long n, float *to) {\n'
        "  keys = by; const Key key = key_of(place, s);\n"
        "  for (long i = 0; i < n; i++) to[i] = drawn(key, (unsigned)i); }\n"
    )
    source = head(Vector(8, 16), 1) + functions.TEXT + drawing.TEXT + entry
    built = library(source, HERE.cxx_compiler, flags_for(HERE.architecture, 8))
    keys, to = np.array([5, (1 << 63) + 12345], np.uint64), np.empty(1000, np.float32)
    for step in (0, 1):
        for place in (0, 7):
            built.draw(keys.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(place), ctypes.c_long(step),
                       ctypes.c_long(len(to)), to.ctypes.data_as(ctypes.c_void_p))  # fmt: skip
            assert np.array_equal(to, drawn(int(keys[step]), place, len(to)))


def test_numbers_are_even_and_tell_nothing_of_each_other() -> None:
    keys, count, z = [0, 1, 2, 1 << 40, (1 << 63) + 7], 1 << 16, 4.9  # five standard deviations, nearly
    draws = np.array([[drawn(key, place, count) for place in range(4)] for key in keys])

    for row in draws.reshape(-1, count):
        assert abs(row.mean() - 0.5) < z * (1 / 12 / count) ** 0.5
        seen = np.bincount((row * 256).astype(int), minlength=256)
        chi = ((seen - count / 256) ** 2 / (count / 256)).sum()
        assert abs(chi - 255) < z * (2 * 255) ** 0.5
    centred = (draws - draws.mean(-1, keepdims=True)).reshape(-1, count)
    for lag in (1, 2, 8, 32, 256, 1024):  # neighbours, vectors, rows
        along = (centred[:, :-lag] * centred[:, lag:]).mean(1) * 12
        assert np.abs(along).max() < z / (count - lag) ** 0.5, lag
    between = np.corrcoef(centred) - np.eye(len(centred))  # steps and operators
    assert np.abs(between).max() < z / count**0.5


@pytest.mark.parametrize("plan", [CACHED, ALONE], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_with_dropout_is_autograds_with_the_same_masks(plan: Plan, threads: int) -> None:
    given = job(model=Dropped, evaluate=None)
    with threads_inside(threads):
        native = loop_of(given, plan)
        torch.manual_seed(3)
        native.advance(1)
    torch.manual_seed(3)
    key = int(torch.empty(1, dtype=torch.int64).random_()) & MASK
    masks = tuple(
        torch.tensor(drawn(key, place, 16 * 32) < np.float32(kept)).reshape(16, 32).float()
        for place, kept in enumerate((0.7, 0.5))
    )
    golden = loop_of(job(model=lambda: Dropped(masks), evaluate=None), Plan())

    golden.advance(1)

    pairs = zip(native.rig.model.parameters(), golden.rig.model.parameters(), strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_every_step_and_every_operator_draws_anew() -> None:
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ones = torch.ones_like(x[:, :8])
            apart: torch.Tensor = functional.dropout(ones) - functional.dropout(ones)
            found: torch.Tensor = apart.abs().mean() + 0.0 * self.layer(x).sum()
            return found

    loop = loop_of(job(model=Told, loss=lambda model, batch: model(batch[0]), evaluate=None), CACHED)

    losses = finish(loop)

    assert len(set(losses)) > 10  # of 18; 128 numbers each
    assert all(0.6 < one < 1.4 for one in losses)


@pytest.mark.parametrize("plan", [CACHED, ALONE], ids=str)
def test_a_training_with_dropout_is_the_same_however_many_steps_are_taken_at_a_time(plan: Plan) -> None:
    found = []
    for pieces in ((100,), (1, 3, 100), (2, 2, 2, 100)):
        loop = loop_of(job(model=Dropped, data=Points(96), evaluate=None), plan)
        torch.manual_seed(11)
        for steps in pieces:
            loop.advance(steps)
        finish(loop)
        found.append(weights(loop))

    assert same(found[0], found[1]) and same(found[0], found[2])


def test_a_training_with_dropout_goes_on_exactly_from_a_checkpoint(tmp_path: Path) -> None:
    given = job(model=Dropped, data=Points(96), evaluate=None, epochs=2)
    first = loop_of(given, CACHED, tmp_path)
    first.advance(3)
    first.save()
    finish(first)
    resumed = loop_of(given, CACHED, tmp_path)
    assert resumed.resume().batch == 3

    finish(resumed)

    assert same(weights(first), weights(resumed))


class Unlike(nn.Module):
    """Another probability for each element."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x * torch.bernoulli(torch.sigmoid(x.detach())))
        return found


def test_another_chance_for_each_element_is_refused() -> None:
    with pytest.raises(NotApplicable, match="a probability for each element"):
        loop_of(job(model=Unlike, evaluate=None), CACHED).advance(1)
