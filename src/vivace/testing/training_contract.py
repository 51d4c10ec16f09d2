"""The contract of every technique that trains: on tiny jobs its steps are the original's, as far as its class says.

@pytest.mark.parametrize("job", training_contract.JOBS, ids=lambda job: job.name)
def test_my_technique_trains_the_same(job):
    training_contract.check_trains(MyTechnique(), job)

@pytest.mark.parametrize("job", training_contract.FEED_JOBS, ids=lambda job: job.name)
def test_my_technique_feeds_the_same(job):
    training_contract.check_feeds(Plan((MyTechnique(),)), job)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed
from vivace.testing import tiny_training
from vivace.training.examine import examine, same
from vivace.training.rig import assemble, seed_everything
from vivace.training.service import equip

JOBS: tuple[Training, ...] = (
    tiny_training.job(),
    tiny_training.image_job(name="images"),
    tiny_training.job(name="momentum", optimizer=tiny_training.momentum),
)
FEED_JOBS: tuple[Training, ...] = (
    tiny_training.job(),
    tiny_training.image_job(name="augmented", augment=tiny_training.shifted),
    tiny_training.job(name="in order", shuffle=False, batch_size=10),
)
STEPS = 7
"""All of an epoch of the perceptron's, with its smaller last batch."""
WALKED = ((0, 0, None), (1, 0, None), (2, 0, 2), (2, 2, None), (1, 3, 2), (1, 3, None), (2, 0, None), (3, 0, 1))
"""Epochs that are drawn from a feed, without how many batches, and how many of the rest; the last one is beyond the
job's own."""


def check_trains(technique: Technique, job: Training) -> str:
    """Take steps with a technique and compare every tensor. Returns why it does not apply, or an empty text.

    Raises AssertionError with the tensor that is furthest off.
    """
    plan = Plan((technique,))
    try:
        found = examine(job, lambda rig: equip(rig, job, plan), technique.unit_roundoff, STEPS)
    except NotApplicable as error:
        assert error.reason, f"{technique.name()} does not apply and does not say why"
        return error.reason
    wrong = [one for one in found.agreements if not one.holds]
    assert not wrong, f"{technique} on {job.name}: {wrong[0]}, and {len(wrong) - 1} more"
    return ""


def check_feeds(plan: Plan, job: Training) -> str:
    """Draw batches as trainings do and compare them to the bit, all of them held at once: whole epochs, an epoch that
    is left early, one that is entered in the middle, as after a restart, and what else draws random numbers meanwhile.
    Returns why the plan does not apply, or an empty text.

    Raises AssertionError with the first batch that differs.
    """
    try:
        rig = equip(assemble(job), job, plan)
    except NotApplicable as error:
        assert error.reason, f"{plan} does not apply and does not say why"
        return error.reason
    wanted, found = (list(_drawn(job, feed)) for feed in (assemble(job).feed, rig.feed))
    assert len(found) == len(wanted), f"{plan} on {job.name} gives {len(found)} batches in place of {len(wanted)}"
    for (place, original), (_, other) in zip(wanted, found, strict=True):
        assert same(original, other), f"{plan} on {job.name}: batch {place} differs from the original's"
    return ""


def _drawn(job: Training, feed: Feed) -> Iterator[tuple[str, Any]]:
    """Batches by where they were drawn, each with a random number that a step might draw."""
    seed_everything(job.seed)
    for epoch, skip, most in WALKED:
        for number, batch in enumerate(itertools.islice(feed.epoch(epoch, skip), most), skip):
            yield f"{number} of epoch {epoch}", (batch, torch.rand(1))
