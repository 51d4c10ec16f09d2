"""`vv.accelerate`: a loop of the user's own gets the job's parts with what was proved, and trains the same."""

from __future__ import annotations

import doctest
import importlib
import itertools

import pytest
import torch

import vivace as vv
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import image_job, job, loss
from vivace.training.loop import Loop
from vivace.training.own_loop import Accelerated, Batches
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


def walked(fast: Accelerated, steps: int, proving: bool = False) -> list[float]:
    """Losses of a loop that somebody writes, with a proof between gradients and update of every third step."""
    losses = []
    for number, batch in zip(range(steps), itertools.cycle(fast.loader), strict=False):
        fast.optimizer.zero_grad()
        found = fast.loss(batch)
        found.backward()
        if proving and number % 3 == 0:
            assert fast.prove(batch).verdict is QualityVerdict.HELD
        fast.optimizer.step()
        losses.append(float(found.detach()))
    return losses


def test_a_step_of_an_own_loop_is_proved_at_any_time_and_the_loop_is_as_it_was_to_the_bit() -> None:
    for plan in ((), ["fused-optimizer"], ["sample-cache", "recorded-step"]):
        one, other = (vv.accelerate(job(), plan=plan) for _ in range(2))
        torch.manual_seed(3)
        plain = walked(one, 10)
        torch.manual_seed(3)

        assert walked(other, 10, proving=True) == plain
        for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_what_the_loop_itself_sets_is_no_fault_of_the_plan() -> None:
    fast = vv.accelerate(image_job(), plan=["fused-optimizer"])
    walked(fast, 3)
    fast.model[1].eval()
    fast.model[0].weight.requires_grad_(False)
    fast.optimizer.param_groups[0]["lr"] = 1e-4

    assert fast.prove(next(iter(fast.loader))).verdict is QualityVerdict.HELD


def test_a_fault_that_comes_late_in_an_own_loop_is_told_and_the_original_steps_go_on() -> None:
    late = planted.LateDetachment(layer="0", after=30)
    work = job(model=lambda: torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)))
    fast = vv.accelerate(work, plan=Plan((FusedOptimizer(), late)))
    model, optimizer, _ = fast
    walked(fast, 20)
    batch = next(iter(fast.loader))
    assert fast.prove(batch).verdict is QualityVerdict.HELD
    walked(fast, 20)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.warns(RuntimeWarning, match=r"late-detachment.*gradient of 0\.(weight|bias)"):
        found = fast.prove(batch)

    assert found.verdict is QualityVerdict.NOT_HELD and {one.name[:2] for one in found.culprits} == {"0."}
    assert fast.plan == Plan() and "became another one" in fast.left_out[-1]
    assert fast.model is model and fast.optimizer is optimizer
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fast.prove(batch).verdict is QualityVerdict.HELD
    walked(fast, 3)
    for name in ("0.weight", "0.bias"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None and bool(gradient.any())
        assert not torch.equal(model.get_parameter(name), before[name])


def test_what_cannot_be_compared_is_said() -> None:
    fast = vv.accelerate(job(), plan=["fused-optimizer"])

    found = fast.prove("no batch")

    assert found.verdict is QualityVerdict.CANNOT_TELL and found.reason
