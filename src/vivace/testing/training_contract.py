"""The contract of every technique that trains: on tiny jobs its steps are the original's, as far as its class says.

@pytest.mark.parametrize("job", training_contract.JOBS, ids=lambda job: job.name)
def test_my_technique_trains_the_same(job):
    training_contract.check_trains(MyTechnique(), job)
"""

from __future__ import annotations

from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.testing import tiny_training
from vivace.training.examine import examine
from vivace.training.service import equip

JOBS: tuple[Training, ...] = (
    tiny_training.job(),
    tiny_training.image_job(name="images"),
    tiny_training.job(name="momentum", optimizer=tiny_training.momentum),
)
STEPS = 7
"""All of an epoch of the perceptron's, with its smaller last batch."""


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
