"""A training that was stopped goes on exactly with what the job's own code counts and draws by itself, too."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.plan import Plan
from vivace.core.technique import Stage
from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.testing.tiny_training import Points, job, loss, perceptron
from vivace.training.examine import examine
from vivace.training.feed import feed_of
from vivace.training.keeping import files
from vivace.training.keeping.model_file import load_model, write_model
from vivace.training.keeping.own_state import OwnState
from vivace.training.keeping.values import equal, read, written
from vivace.training.loop import Loop
from vivace.training.rig import assemble
from vivace.training.service import equip


def shaking() -> Any:
    """An augmentation that draws from generators that it closes over."""
    chance, other, third = torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3)

    def shaken(batch: Any) -> Any:
        noise = torch.randn(batch[0].shape, generator=chance)
        return batch[0] + noise * float(other.random()) * third.random(), batch[1]

    return shaken


class Drawing(Dataset[Any]):
    """Draws from an old generator of its own for each sample, and drops what it has seen last."""

    def __init__(self) -> None:
        self.points, self.chance, self.seen = Points(), np.random.RandomState(1), deque([0.0], maxlen=3)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Any:
        point, label = self.points[index]
        self.seen.append(self.chance.rand())
        return point + sum(self.seen), label


class Counting:
    """A batch sampler that orders each epoch by the number of it."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(103, generator=torch.Generator().manual_seed(self.epoch))
        self.epoch += 1
        return iter([part.tolist() for part in order.split(16)])


class Shuffling(Counting):
    """One that shuffles what it shuffled before."""

    def __init__(self) -> None:
        self.order = list(range(103))

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.order)
        return iter([self.order[place : place + 16] for place in range(0, 103, 16)])


class Stream(IterableDataset[Any]):
    """Samples in an order that a generator of its own draws."""

    def __init__(self) -> None:
        self.points, self.chance = Points(), np.random.default_rng(3)

    def __iter__(self) -> Iterator[Any]:
        return (self.points[int(number)] for number in self.chance.permutation(103))


class Warming(nn.Module):
    """Counts its calls, has a buffer that no state_dict has, keeps its last mean, and an extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.last, self.kinds = perceptron(), 0, None, {"seen": 0}
        self.register_buffer("mean", torch.zeros(12), persistent=False)

    def get_extra_state(self) -> Any:
        return self.kinds

    def set_extra_state(self, state: Any) -> None:
        self.kinds = state

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        self.kinds = {"seen": self.kinds["seen"] + 1}
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        found = self.inner(x - self.mean - (0.0 if self.last is None else self.last))
        self.last = x.detach().mean(0)
        return found * (1 + 1 / (self.calls + self.kinds["seen"]))


class Phased(torch.optim.Optimizer):
    """Keeps texts, lists and infinite numbers beside tensors, and counts in an attribute."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": np.float32(0.01)})
        self.count = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.count += 1
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            kept = state.setdefault("kept", [torch.zeros_like(parameter), 0.0])
            kept[0].mul_(0.9).add_(parameter.grad)
            state["best"] = min(state.get("best", float("inf")), float(parameter.grad.norm()))
            state["phase"] = "hot" if self.count % 2 else "cold"
            rate = self.param_groups[0]["lr"] * (2.0 if state["phase"] == "hot" else 1.0) * min(1.0, state["best"])
            parameter.sub_(kept[0], alpha=float(rate))


def counted() -> Any:
    """A loss that counts its calls in a variable that it closes over, and in one of its own attributes."""
    calls = 0

    def weighed(model: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        weighed.calls += 1  # type: ignore[attr-defined]
        return loss(model, batch) * (1 + 1 / (calls + weighed.calls))  # type: ignore[attr-defined]

    weighed.calls = 0  # type: ignore[attr-defined]
    return weighed


TIMES = {"called": 0}


def by_global(model: Any, batch: Any) -> Any:
    """A loss that counts its calls in a global."""
    TIMES["called"] += 1
    return loss(model, batch) * (1 + 1 / TIMES["called"])


def freeing(model: Any, batch: Any) -> Any:
    """A loss that lets the first layer learn after some steps, as is done in fine-tuning."""
    model.calls = getattr(model, "calls", 0) + 1
    model[0].weight.requires_grad_(model.calls > 5)
    return loss(model, batch)


class Averaging:
    """Adds a mean of what it has seen, which it keeps in large tensors of its own, one of them in a dictionary."""

    def __init__(self) -> None:
        self.mean, self.means = torch.zeros(400_000), {"first": torch.zeros(400_000)}

    def __call__(self, batch: Any) -> Any:
        self.mean.mul_(0.9).add_(batch[0].mean())
        self.means["first"].mul_(0.8).add_(batch[0].std())
        return batch[0] + self.mean[:12] + self.means["first"][:12], batch[1]


def loader(data: Any = None, **settings: Any) -> dict[str, Any]:
    given = Points() if data is None else data
    return {"data": DataLoader(given, **({"batch_size": 16} if "batch_sampler" not in settings else {}), **settings),
            "batch_size": None}  # fmt: skip


JOBS = {
    "augment": lambda: {"augment": shaking()},
    "dataset": lambda: {"data": Drawing()},
    "large": lambda: {"augment": Averaging()},
    "loader": lambda: loader(shuffle=True, generator=torch.Generator().manual_seed(4)),
    "sampler": lambda: loader(batch_sampler=Counting()),
    "shuffling": lambda: loader(batch_sampler=Shuffling()),
    "stream": lambda: loader(Stream()),
    "model": lambda: {"model": Warming},
    "optimizer": lambda: {"optimizer": Phased},
    "loss": lambda: {"loss": counted()},
    "global": lambda: {"loss": by_global},
    "learning": lambda: {"loss": freeing},
    "staying": lambda: loader(shuffle=True, num_workers=1, persistent_workers=True),
}


def fresh(name: str) -> Training:
    """The job as another process has it."""
    TIMES["called"] = 0
    return job(**{"evaluate": None, **JOBS[name]()})


def trained(loop: Loop, most: int = 10**9) -> list[float]:
    losses: list[float] = []
    while len(losses) < most and loop.position.epoch < 3:
        losses += loop.advance(most - len(losses)).losses
    return losses


@pytest.mark.parametrize("stopped_after", [3, 7, 12])
@pytest.mark.parametrize("name", JOBS)
def test_what_the_jobs_own_code_keeps_goes_on_as_it_was(name: str, stopped_after: int, tmp_path: Path) -> None:
    work = fresh(name)
    whole = Loop(work, assemble(work), None, "x")
    wanted = trained(whole)

    work = fresh(name)
    first = Loop(work, assemble(work), tmp_path, "x")
    before = trained(first, stopped_after)
    first.save()
    work = fresh(name)
    second = Loop(work, assemble(work), tmp_path, "x")
    second.resume()
    after = trained(second)

    assert before + after == wanted
    assert second.notes == ()
    for one, other in zip(whole.rig.model.parameters(), second.rig.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Opening(Dataset[Any]):
    """Opens what it reads when it is first asked, and remembers that."""

    def __init__(self) -> None:
        self.points, self.is_open = None, False

    def __len__(self) -> int:
        return 103

    def __getitem__(self, index: int) -> Any:
        if not self.is_open:
            self.points, self.is_open = Points(), True
        return self.points[index]


def test_a_flag_beside_what_cannot_be_kept_is_not_kept_without_it(tmp_path: Path) -> None:
    first = Loop(job(data=Opening()), assemble(job(data=Opening())), tmp_path, "x")
    first.advance(3)
    first.save()
    work = job(data=Opening())
    second = Loop(work, assemble(work), tmp_path, "x")
    second.resume()

    assert not work.data.is_open
    assert len(second.advance(2).losses) == 2


def test_what_could_not_be_kept_is_told_when_the_run_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        work = job(data=Opening())
        loop = Loop(work, assemble(work), tmp_path, "x")
        loop.resume()
        loop.advance(3)
        loop.save()

    assert loop.notes == ("not as it was when the run was stopped: data: is_open, beside points",)


def test_what_is_put_back_is_what_was_looked_at_first_where_nothing_was_kept_of_it() -> None:
    work = job(data=Drawing())
    own = OwnState(work, assemble(work))
    before = own.now()
    wanted = work.data[3][0]
    own.restore(before)

    assert torch.equal(work.data[3][0], wanted)


def test_techniques_that_look_at_samples_leave_the_job_s_own_generators_as_they_were() -> None:
    work = job(data=Drawing(), augment=shaking())
    wanted = [work.augment(work.data[place])[0] for place in range(3)]
    work = job(data=Drawing(), augment=shaking())
    with pytest.raises(NotApplicable, match="asked for twice"):
        SamplePrefetch(1).equip(assemble(work), work)

    work = job(data=Drawing(), augment=shaking())
    equip(assemble(work), work, Plan((SamplePrefetch(1),)), may_lack=(Stage.FEED,))
    found = [work.augment(work.data[place])[0] for place in range(3)]

    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_samples_that_are_only_read_are_not_copied() -> None:
    samples = torch.rand(300_000, 2)
    work = job(data=TensorDataset(samples, torch.zeros(300_000)))
    own = OwnState(work)

    held = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape == samples.shape]

    assert all(one is samples for one in held)
    assert not own.now().values
    samples.add_(1)
    assert [key for _, key in own.now().values] == ["tensors"]


VALUES = [
    None, True, 3, -(2**70), 0.1, float("nan"), float("-inf"), "text", b"\x00\xff", (1, [2.5, {"a", "b"}]),
    {1: "one", "two": (2,)}, deque([1, 2]), list(range(100)), torch.arange(5.0), torch.tensor(True),
    np.arange(6, dtype="<u2").reshape(2, 3), np.float32(0.1), np.int64(7), random.Random(1), np.random.default_rng(1),
    np.random.Generator(np.random.MT19937(1)), np.random.RandomState(1), torch.Generator().manual_seed(5),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_values_are_read_back_as_they_were_written(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    found = read(written(value, tensors, "x"), tensors)

    assert equal(found, value)
    assert not equal(found, "another")


def test_a_checkpoint_that_is_damaged_gives_way_to_the_one_before(tmp_path: Path) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    for _ in range(2):
        loop.advance(3)
        saved = loop.save()
    assert saved is not None
    (saved / files.TENSORS).write_bytes((saved / files.TENSORS).read_bytes()[:-100])

    again = Loop(job(), assemble(job()), tmp_path, "x")

    assert again.resume().steps == 3
    assert len(again.notes) == 1 and "step-000000006 cannot be read" in again.notes[0]
    assert again.notes[0].endswith("the one before it is gone on from")
    assert [one.name for one in tmp_path.iterdir()] == ["step-000000003"]


@pytest.mark.parametrize("renamed", ["step-000000003", ".step-000000003.part"])
def test_a_kill_while_a_checkpoint_is_replaced_leaves_one(renamed: str, tmp_path: Path) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    loop.advance(3)
    loop.save()
    child = os.fork()
    if child == 0:
        rename = Path.rename

        def killed(self: Path, to: Path) -> Path:
            found = rename(self, to)
            if self.name == renamed:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        Path.rename = killed  # type: ignore[method-assign]
        loop.save()
    os.waitpid(child, 0)

    assert Loop(job(), assemble(job()), tmp_path, "x").resume().steps == 3
    loop.save()
    assert [one.name for one in tmp_path.iterdir()] == ["step-000000003"]


def test_a_state_that_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    class Strange(Phased):
        def step(self, closure: Any = None) -> None:
            super().step()
            for state in self.state.values():
                state["thing"] = object()

    loop = Loop(job(), assemble(job(optimizer=Strange)), tmp_path, "x")
    loop.advance(1)
    with pytest.raises(UsageError, match="optimizer/0/thing holds a object, which no checkpoint can hold"):
        loop.save()


def test_a_plan_that_feeds_anew_is_compared_on_batches_drawn_from_the_same_place() -> None:
    work = job(model=perceptron, augment=shaking())

    found = examine(work, lambda rig: rig.replace(feed=feed_of(work)))

    assert [one.reason for one in found.agreements if one.kind is Kind.BATCH] == ["", "", ""]


def test_a_tensor_without_memory_is_not_read() -> None:
    """FSDP takes the memory of what it has gathered away; reading such a tensor ends the process."""
    work = job(model=perceptron)
    rig = assemble(work)
    rig.model.gathered, rig.model.several = torch.zeros(1000), [torch.zeros(1000)]
    own = OwnState(work, rig)
    rig.model.gathered, rig.model.several = torch.zeros(1000), [torch.zeros(1000)]
    for one in (rig.model.gathered, *rig.model.several):
        one.untyped_storage().resize_(0)

    assert not {key for _, key in own.now().values} & {"gathered", "several"}


class Overlapping(nn.Module):
    """Has tensors that share memory, wholly and in part, and an extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last.weight = self.first.weight
        self.register_buffer("part", self.first.weight.detach()[:2])
        self.seen = 0

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


def test_a_model_whose_tensors_overlap_and_with_an_extra_state_is_written_and_read(tmp_path: Path) -> None:
    model, again = Overlapping(), Overlapping()
    model.seen = 5
    write_model(model, tmp_path / "model.safetensors")
    load_model(again, tmp_path / "model.safetensors")

    assert again.seen == 5 and again.last.weight is again.first.weight
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"]
