"""Every technique of the catalogue that trains, in every setting, on every tiny job."""

from __future__ import annotations

import pytest

from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.techniques import CATALOGUE
from vivace.techniques.memory.activation_checkpointing import ActivationCheckpointing
from vivace.techniques.memory.fitting_micro_batch import FittingMicroBatch
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.testing import contract, training_contract

TRAINING = [kind for kind in CATALOGUE if kind.trains()]
COMPILERS = {"compiled-training"}
ASKED_FOR = (
    GradientAccumulation(3), NarrowOptimizerState(), ActivationCheckpointing(), ActivationCheckpointing("products"),
    FittingMicroBatch(5e-6),
)  # fmt: skip
"""What a search does not try by itself."""


def _settings() -> list[object]:
    found: list[object] = []
    for kind in TRAINING:
        offered = contract.variants_of(kind)
        marks = [pytest.mark.slow] if kind.name() in COMPILERS else []
        found += [pytest.param(one, id=str(one), marks=marks) for one in offered]
    return [*found, *(pytest.param(one, id=str(one)) for one in ASKED_FOR)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of compilers, about themselves
@pytest.mark.parametrize("job", training_contract.JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("technique", _settings())
def test_a_technique_that_trains_leaves_the_steps_as_they_were(technique: Technique, job: Training) -> None:
    reason = training_contract.check_trains(technique, job)

    assert isinstance(reason, str)
