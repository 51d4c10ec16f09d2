"""`vv.accelerate`: a loop of the user's own gets the job's parts with what was proved, and trains the same."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

import vivace as vv
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import job, loss
from vivace.training.loop import Loop
from vivace.training.own_loop import Batches
from vivace.training.rig import assemble


def test_the_example_of_the_documentation_runs() -> None:
    module = importlib.import_module("vivace.api.accelerate")
    assert doctest.testmod(module, extraglobs={"vv": vv}).failed == 0


def test_a_hand_written_loop_trains_as_the_original_does() -> None:
    work = job(model=lambda: torch.nn.Linear(12, 4))
    model, optimizer, loader = fast = vv.accelerate(work, plan=["sample-cache"])
    with fast.running():
        for _ in range(work.epochs):
            for batch in loader:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()
    trained = Loop(work, assemble(work), None, "")
    while not trained.advance(100).is_over:
        pass

    assert str(fast.plan) == "sample-cache"
    assert loader.epoch == 3
    for own, other in zip(model.parameters(), trained.rig.model.parameters(), strict=True):
        assert torch.equal(own, other)


def test_nothing_of_the_process_changes() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fast = vv.accelerate(job(), plan=[{"technique": "threads", "settings": {"count": 2}}])

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    with fast.running():
        assert torch.get_num_threads() == 2


def test_what_takes_the_whole_step_is_left_out_with_a_sentence() -> None:
    asked = ["fused-optimizer", {"technique": "gradient-accumulation", "settings": {"parts": 2}}]
    fast = vv.accelerate(job(), plan=asked)

    assert str(fast.plan) == "fused-optimizer"
    told = "it takes the step as a whole, which a hand-written loop does itself; vv.train can use it"
    assert fast.left_out == (f"gradient-accumulation: {told}",)
    assert fast.parity is not None and fast.parity.verdict is QualityVerdict.HELD


def test_a_plan_that_trains_differently_is_not_used() -> None:
    fast = vv.accelerate(job(), plan=Plan((planted.DetachedBranch(layer="0"),)))

    assert fast.plan == Plan()
    assert fast.parity is not None and fast.parity.verdict is QualityVerdict.NOT_HELD


def test_a_step_can_be_taken_as_a_whole() -> None:
    fast = vv.accelerate(job(), plan=())
    first = [float(fast.step(batch)) for batch in fast.loader]
    last = [float(fast.step(batch)) for batch in fast.loader]

    assert (fast.plan, fast.parity, fast.speedup) == (Plan(), None, None)
    assert sum(last) < sum(first)


@pytest.mark.slow
def test_the_plan_is_chosen_by_measurement() -> None:
    fast = vv.accelerate(job(), only=["sample-cache", "fused-optimizer", "gradient-accumulation"], time="40s")

    assert "sample-cache" in str(fast.plan)
    assert fast.speedup is not None and fast.speedup.low > 1.0


def test_a_loader_without_a_length_says_so() -> None:
    work = job(data=iter([]), batch_size=None)
    from vivace.training.feed import feed_of

    with pytest.raises(TypeError, match="no length"):
        len(Batches(feed_of(work)))


def test_a_job_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"vivace\.Training"):
        vv.accelerate("job")  # type: ignore[arg-type]
