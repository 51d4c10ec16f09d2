"""What a sample cache of half the data holds by each replacement policy, and what prefetching gains: run this file."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv
from vivace.core.plan import Plan
from vivace.data.replay import replay
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.training.feed import Order
from vivace.training.rig import assemble
from vivace.training.service import equip
from vivace.training.step import train_step

SAMPLES, SIDE = 400, 40
SAMPLE_BYTES = SIDE * SIDE + 8
EPOCHS = 3


class LargeDigits(torch.utils.data.Dataset[Any]):
    """Digits that are enlarged and filtered when they are asked for, which takes longer than learning from them."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images[:SAMPLES], dtype=torch.float32) * 15
        self.labels = digits.target[:SAMPLES].tolist()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = nn.functional.interpolate(self.images[index][None, None], (4 * SIDE, 4 * SIDE), mode="bicubic")
        small = nn.functional.adaptive_avg_pool2d(image, SIDE)
        return small[0].clamp(0, 255).to(torch.uint8), self.labels[index]


def network() -> nn.Module:
    """A convolution, and a linear layer."""
    return nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 18 * 18, 10))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch of bytes."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images.float() / 255), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam as the tutorials use it."""
    return torch.optim.Adam(parameters, lr=1e-3)


def shifted(batch: Any) -> Any:
    """A random augmentation, which stays outside of every cache."""
    images, labels = batch
    return torch.roll(images, int(torch.randint(-3, 4, ())), -1), labels


job = vv.Training(
    model=network, loss=loss, optimizer=adam, data=LargeDigits(), batch_size=32, epochs=EPOCHS, augment=shifted,
    name="large-digits",
)  # fmt: skip


def seconds_of(work: Iterator[Any]) -> float:
    """How long it takes to walk through it all."""
    started = clock.perf_counter()
    for _ in work:
        pass
    return clock.perf_counter() - started


def steps(plan: Plan) -> Callable[[int], Iterator[Any]]:
    """The steps of an epoch with a plan, one after the other."""
    rig = equip(assemble(job), job, plan)
    return lambda epoch: (train_step(rig, batch) for batch in rig.feed.epoch(epoch))


def main(time: str = "") -> None:
    """Compare the policies on the job's own order, then whole steps with reading ahead, with a cache, and with both.
    Nothing is searched for, so that it takes what it takes; `vivace train examples/cache_policies.py:job` does."""
    order = Order(SAMPLES, job.batch_size or 1, seed=job.seed)
    for found in replay(order.numbers, SAMPLES, SAMPLES // 2):
        half = SampleCache(gigabytes=SAMPLES // 2 * SAMPLE_BYTES * 1e-9, policy=found.policy)
        feed = equip(assemble(job), job, Plan((half,))).feed
        each = min(seconds_of(feed.epoch(epoch)) for epoch in range(EPOCHS))
        print(
            f"{found.policy:7} holds {found.share:5.1%} of what is asked for; the batches of an epoch take {each:.2f} s"
        )
    for plan in (Plan(), Plan((SamplePrefetch(),)), Plan((SampleCache(),)), Plan((SampleCache(), SamplePrefetch()))):
        epoch_of = steps(plan)
        print(f"{plan}: the steps of an epoch take {min(seconds_of(epoch_of(epoch)) for epoch in range(EPOCHS)):.2f} s")
    proof = vv.parity(job, ["sample-cache", "sample-prefetch"])
    print(f"the same training? {proof.verdict.value}: {proof.reason}")


if __name__ == "__main__":
    main()
