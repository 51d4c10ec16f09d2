"""A step that was recorded and becomes another one: it is noticed, and the training is the original's all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import outgrown
import pytest
import torch
from fake_graph import FakeGraph
from safetensors.torch import load_file
from torch import nn

import vivace as vv
from vivace.core.errors import StepChanged
from vivace.report.reading import read_run
from vivace.report.training import headline
from vivace.testing.tiny_training import job
from vivace.training.captured import WARM_STEPS, CapturedGradients
from vivace.training.loop import Loop
from vivace.training.recording import RecordedGradients
from vivace.training.rig import assemble


def growing(epochs: int) -> vv.Training:
    return job(loss=outgrown.loss, evaluate=outgrown.counted, epochs=epochs)


@pytest.mark.parametrize("plan", [["recorded-step"], ["sample-cache", "native-step"]], ids=["recorded", "native"])
def test_a_loss_that_grows_beside_the_model_is_noticed_and_trained_without_its_recording(
    plan: list[str], tmp_path: Path
) -> None:
    wanted = vv.train(growing(4), plan=(), out=tmp_path / "plain")
    found = vv.train(growing(4), plan=plan, out=tmp_path / "run")

    assert [str(one) for one in found.plan] == plan[:-1]
    assert found.losses == wanted.losses and found.steps == wanted.steps
    plain, trained = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "run"))
    assert all(torch.equal(value, trained[name]) for name, value in plain.items())
    (told,) = found.dropped
    assert told.startswith(f"{plan[-1]} was taken out, since the model computes something else by now")
    assert found.comparison is None and told in headline(read_run(tmp_path / "run"))  # type: ignore[arg-type]


def test_what_changes_only_after_the_last_step_takes_nothing_out() -> None:
    found = vv.train(growing(outgrown.PLAIN_EPOCHS), plan=["recorded-step"])

    assert (str(found.plan), found.dropped) == ("recorded-step", ())


class Frozen(FakeGraph):
    """A graph as a card has one: it goes on with what was counted when it was captured."""

    def record(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        seen = dict(outgrown.SEEN)
        loss, replay = super().record(step)

        def as_then() -> None:
            now = dict(outgrown.SEEN)
            outgrown.SEEN.update(seen)
            replay()
            outgrown.SEEN.update(now)

        return loss, as_then


def test_a_captured_step_of_a_loss_that_grows_is_noticed_and_looking_changes_nothing() -> None:
    outgrown.SEEN["evaluations"] = 0
    rig = assemble(growing(4))
    gradients = CapturedGradients(rig, Frozen(rig.model))
    batch = next(rig.feed.epoch(0))
    for _ in range(WARM_STEPS + 2):
        gradients(batch)
    before = [buffer.clone() for buffer in rig.model.buffers()]
    drawn = torch.get_rng_state()

    gradients.look()
    assert all(torch.equal(buffer, kept) for buffer, kept in zip(rig.model.buffers(), before, strict=True))
    assert all(one.grad is not None for one in rig.model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    outgrown.SEEN["evaluations"] = outgrown.PLAIN_EPOCHS
    with pytest.raises(StepChanged, match="train without captured-step"):
        gradients.look()
    outgrown.SEEN["evaluations"] = 0


def test_no_checkpoint_is_kept_of_steps_that_may_have_been_others(tmp_path: Path) -> None:
    class Annealed(nn.Linear):
        factor = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.factor

    work = job(model=lambda: Annealed(12, 4), evaluate=None)
    rig = assemble(work)
    gradients = RecordedGradients(rig)
    loop = Loop(work, rig.replace(gradients=gradients, look=gradients.look), tmp_path, "")
    loop.advance(2)
    assert loop.save() is not None
    Annealed.factor = 0.5
    loop.advance(2)

    with pytest.raises(StepChanged, match="computes something else by now"):
        loop.save()
    assert [one.name for one in tmp_path.iterdir()] == ["step-000000002"]
