"""The contract catches the mistakes that it is there for."""

import dataclasses
import random

import pytest
import torch

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.testing import contract, tiny


@dataclasses.dataclass(frozen=True)
class Good(Technique):
    """Changes nothing and says so. Source: this test."""

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.EXACT
    source = "this test"

    def apply(self, model, work):
        raise NotApplicable("nothing to do")


class Thawed(Good):
    """Not a dataclass of its own with a frozen mark. Source: this test."""


@dataclasses.dataclass(frozen=True)
class Sourceless(Good):
    """Says nothing of where it comes from."""


@dataclasses.dataclass(frozen=True)
class Threads(Good):
    """Has a name that is taken. Source: this test."""


@dataclasses.dataclass(frozen=True)
class Contradictory(Good):
    """Gives what it breaks. Source: this test."""

    gives = frozenset({Fact.FLOAT32})
    breaks = frozenset({Fact.FLOAT32})


@dataclasses.dataclass(frozen=True)
class SharesCompiler(Good):
    """A compiler that another could follow. Source: this test."""

    stage = Stage.COMPILE


@dataclasses.dataclass(frozen=True)
class Magic(Good):
    """Promises that the work is gone. Source: this test."""

    def rewrite(self, cost):
        return cost.replace(flops=0.0)


@dataclasses.dataclass(frozen=True)
class Unstorable(Good):
    """Holds a setting that JSON cannot. Source: this test."""

    shape: tuple[int, ...] = (1, 2)


def test_a_good_technique_passes_every_check():
    contract.check_technique(Good)


@pytest.mark.parametrize("kind", [Thawed, Sourceless, Threads, Contradictory, SharesCompiler, Magic, Unstorable])
def test_a_mistake_in_a_class_is_caught(kind):
    with pytest.raises(AssertionError):
        contract.check_technique(kind)


@dataclasses.dataclass(frozen=True)
class Doubles(Good):
    """Scales a weight, which is not exact. Source: this test."""

    def apply(self, model, work):
        name = next(iter(model.program.state_dict))
        model.program.state_dict[name] = torch.nn.Parameter(model.program.state_dict[name] * 2)
        return model


@dataclasses.dataclass(frozen=True)
class Seeds(Good):
    """Sets the process's random state. Source: this test."""

    def apply(self, model, work):
        random.seed(0)
        return model


@pytest.mark.parametrize(("technique", "told"), [(Doubles(), "output 0"), (Seeds(), "Python's random state")])
def test_a_mistake_in_applying_is_caught(technique, told, tmp_path):
    random.seed(0)  # as the planted technique does: the same state must be seen to be set again
    with pytest.raises(AssertionError, match=told):
        contract.check_applied(technique, tiny.tiny("mlp"), tmp_path)


def test_a_technique_that_does_not_apply_gives_its_reason(tmp_path):
    assert contract.check_applied(Good(), tiny.tiny("mlp"), tmp_path) == "nothing to do"
