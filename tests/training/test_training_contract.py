"""Every technique of the catalogue that trains, in every setting, on every tiny job."""

from __future__ import annotations

import pytest

from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.techniques import CATALOGUE
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.techniques.memory.activation_checkpointing import ActivationCheckpointing
from vivace.techniques.memory.fitting_micro_batch import FittingMicroBatch
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.testing import contract, training_contract

TRAINING = [kind for kind in CATALOGUE if kind.trains()]
COMPILERS = {"compiled-training"}
HALF = 5e-6
"""Gigabytes in which most of the points have room, and a sixth of the images."""
ON_DISK = SampleCache(on="disk", least_seconds=0.0)
FEEDS = [
    (SampleCache(),), (ON_DISK,), (SampleCache(gigabytes=HALF),),
    (SampleCache(gigabytes=HALF, on="disk", least_seconds=0.0),),
    *((SampleCache(gigabytes=HALF, policy=policy),) for policy in ("belady", "arc", "lfu", "lru", "fifo")),
    (SamplePrefetch(),), (SamplePrefetch(workers=3, depth=1),), (SamplePrefetch(workers=2, depth=9),),
    (SampleCache(), SamplePrefetch()), (ON_DISK, SamplePrefetch(depth=1)),
    (SampleCache(gigabytes=HALF), SamplePrefetch(workers=2)),
    (SampleCache(gigabytes=HALF, policy="belady"), SamplePrefetch(workers=2, depth=4)),
    (SampleCache(gigabytes=HALF, policy="arc"), SamplePrefetch(workers=2, depth=9)),
]  # fmt: skip
ASKED_FOR = (
    GradientAccumulation(3), NarrowOptimizerState(), ActivationCheckpointing(), ActivationCheckpointing("products"),
    FittingMicroBatch(5e-6),
)  # fmt: skip
"""What a search does not try by itself."""


def _settings() -> list[object]:
    found: list[object] = []
    for kind in TRAINING:
        offered = contract.variants_of(kind)
        for one in offered:
            is_slow = kind.name() in COMPILERS or "processes" in str(one)
            found.append(pytest.param(one, id=str(one), marks=[pytest.mark.slow] if is_slow else []))
    return [*found, *(pytest.param(one, id=str(one)) for one in ASKED_FOR)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of compilers, about themselves
@pytest.mark.parametrize("job", training_contract.JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("technique", _settings())
def test_a_technique_that_trains_leaves_the_steps_as_they_were(technique: Technique, job: Training) -> None:
    reason = training_contract.check_trains(technique, job)

    assert isinstance(reason, str)


@pytest.mark.parametrize("job", training_contract.FEED_JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("techniques", FEEDS, ids=lambda techniques: str(Plan(techniques)))
def test_what_feeds_gives_the_same_batches_wherever_it_begins(techniques: tuple[Technique, ...], job: Training) -> None:
    assert training_contract.check_feeds(Plan(techniques), job) == ""


@pytest.mark.slow
@pytest.mark.parametrize("techniques", [(), (SampleCache(gigabytes=HALF),)], ids=["prefetch", "half a cache"])
def test_processes_give_the_same_batches_too(techniques: tuple[Technique, ...]) -> None:
    plan = Plan((*techniques, SamplePrefetch(workers=2, by="processes")))

    assert training_contract.check_feeds(plan, training_contract.FEED_JOBS[1]) == ""
