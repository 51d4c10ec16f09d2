"""What cannot be trained, or no longer: one message with what is allowed, and nothing that was kept is lost."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import exploding
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import vivace as vv
from interrupting import Interrupting
from vivace.api.request import plan_of
from vivace.core.errors import DiskFull, UsageError
from vivace.core.plan import Plan
from vivace.measure.process import WorkerFailure
from vivace.search.training.diagnosis import Diagnoser
from vivace.testing.tiny_training import Points, accuracy, job, loss
from vivace.training.checkpoint import Position
from vivace.training.course import read_accounts
from vivace.training.keeping import files
from vivace.training.loop import Loop
from vivace.training.rig import assemble
from vivace.training.service import equip

SHARED = torch.nn.Linear(12, 4)


class Locked(Points):
    """A dataset that no process can be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_data_that_no_worker_can_be_sent_are_told_as_such() -> None:
    loader = torch.utils.data.DataLoader(Locked(), 16, num_workers=1, multiprocessing_context="spawn")

    with pytest.raises(UsageError, match=r"the data cannot be walked in epoch 0: .*pickle"):
        Diagnoser(job(data=loader, batch_size=None), Plan()).read(2)


class WalkedOnce:
    """Batches whose every walk goes on where the last one ended: none is left for a second epoch."""

    def __init__(self) -> None:
        self.left = iter([next(iter(torch.utils.data.DataLoader(Points(), 16)))] * 3)

    def __iter__(self) -> Any:
        return self.left


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (WalkedOnce, "gave no batch in epoch 1; give .* can be walked again"),
        (lambda: torch.utils.data.DataLoader(Points(), 104, drop_last=True), "gave no batch in epoch 0; .*drop_last"),
    ],
    ids=["once", "dropped"],
)
def test_a_diagnosis_does_not_wait_for_batches_that_never_come(data: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Diagnoser(job(data=data(), batch_size=None), Plan()).read(4)


def per_sample(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    points, labels = batch
    return torch.nn.functional.cross_entropy(model(points), labels, reduction="none")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": lambda model, batch: loss(model, batch) * float("nan")}, "the loss is nan in the first steps"),
        ({"loss": per_sample}, r"shape \[16\]; allowed is a scalar: take its mean"),
        ({"loss": lambda model, batch: loss(model, batch).item()}, "loss returned a float; allowed is a scalar tensor"),
        ({"model": lambda: SHARED}, "model returned the same module in two calls; allowed is a new one"),
        ({"model": lambda: torch.nn.Sequential(SHARED)}, "2 of the same parameters"),
        ({"optimizer": lambda p: torch.optim.SGD(list(p)[:2], 0.1)}, r"never learn: 3\.weight, 3\.bias; allowed"),
        ({"evaluate": lambda model: model.scores}, "evaluate failed: AttributeError: .*allowed is a function"),
        ({"evaluate": lambda model: float("nan")}, "evaluate returned nan; allowed is"),
    ],
    ids=["nan", "vector", "number", "same", "shared", "forgotten", "raising", "nan-score"],
)
def test_a_job_that_cannot_be_trained_is_told_before_it_is(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Diagnoser(job(**changes), Plan()).read(1)


def one_cycle(steps: int) -> Any:
    return lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)


def test_a_schedule_with_too_few_values_is_told_before_training() -> None:
    with pytest.raises(UsageError, match=r"a OneCycleLR of 20 values, .* takes 21 steps; allowed is one of 21 or more"):
        Diagnoser(job(schedule=one_cycle(20), advance="step"), Plan()).read(1)
    with pytest.raises(UsageError, match=r"of 2 values, and this training takes 3 epochs"):
        Diagnoser(job(schedule=one_cycle(2)), Plan()).read(1)

    assert Diagnoser(job(schedule=one_cycle(21), advance="step"), Plan()).read(1)["steps"] == 1


@pytest.mark.parametrize(("advance", "steps"), [("step", 20), ("epoch", 2)])
def test_a_schedule_that_ends_early_loses_no_step(advance: str, steps: int, tmp_path: Path) -> None:
    work = job(schedule=one_cycle(steps), advance=advance)
    loop = Loop(work, assemble(work), tmp_path, "x")
    with pytest.raises(UsageError, match=r"schedule fails after step 21: ValueError: .*; allowed .* 21 steps is kept"):
        for _ in range(4):
            loop.advance(100)

    assert Loop(work, assemble(work), tmp_path, "x").resume().steps == 21


@pytest.mark.parametrize("until", [float("nan"), float("inf")])
def test_a_score_that_is_never_reached_is_refused(until: float) -> None:
    with pytest.raises(UsageError, match=f"until is {until}, .*; allowed is a finite number"):
        vv.train(job(), until=until)


def test_a_part_that_no_process_can_be_sent_is_named() -> None:
    with pytest.raises(UsageError, match=r"the job's data cannot be sent .* cannot pickle '_thread.lock'.*__getitem__"):
        vv.train(job(data=Locked()))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UsageError, match=r"batch_size is 104, and data holds 103 samples; allowed is .* to 103"):
        job(batch_size=104)


def test_a_loss_without_a_gradient_is_told() -> None:
    rig = assemble(job(loss=lambda model, batch: loss(model, batch).detach()))
    with pytest.raises(UsageError, match="without a gradient; allowed"):
        Loop(job(), rig, None, "").advance(1)


def test_parameters_that_need_no_gradient_may_stay_out_of_the_optimizer() -> None:
    def frozen() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
        model[0].requires_grad_(False)
        return model

    partial = job(model=frozen, optimizer=lambda p: torch.optim.SGD([one for one in p if one.requires_grad], 0.1))

    assert Loop(partial, assemble(partial), None, "").advance(3).position.steps == 3


@pytest.mark.parametrize(
    "broken", [lambda model: float("inf"), lambda model: model.no_such_layer], ids=["inf", "raise"]
)
def test_a_score_that_fails_at_the_end_of_an_epoch_loses_no_step(broken: Any, tmp_path: Path) -> None:
    work = job(evaluate=broken)
    with pytest.raises(UsageError, match=r"evaluate .* what was trained in 1 epochs is kept .* resume"):
        Loop(work, assemble(work), tmp_path, "x").advance(100)

    assert Loop(job(), assemble(job()), tmp_path, "x").resume() == Position(1, 0, 7)


@pytest.mark.parametrize("plan", [(), ("sample-prefetch",)], ids=["plain", "prefetched"])
def test_a_sample_that_cannot_be_read_loses_no_step(plan: tuple[str, ...], tmp_path: Path) -> None:
    class Truncated(Points):
        def __getitem__(self, index: int) -> Any:
            if index == 70:
                raise OSError("image file is truncated")
            return super().__getitem__(index)

    work = job(data=Truncated(), shuffle=False)
    loop = Loop(work, equip(assemble(work), work, plan_of(plan)), tmp_path, "x")
    with pytest.raises(UsageError, match=r"at batch 4 of epoch 0: OSError: image .* in 4 steps is kept .* resume"):
        loop.advance(100)

    with pytest.raises(UsageError, match="the data fail at batch 4 of epoch 0: OSError: image file is truncated"):
        Diagnoser(work, Plan()).read(20)
    mended = job(shuffle=False)
    assert Loop(mended, assemble(mended), tmp_path, "x").resume() == Position(0, 4, 4)


def test_a_loss_that_explodes_before_a_checkpoint_does_not_promise_one(tmp_path: Path) -> None:
    wild = job(optimizer=lambda p: torch.optim.SGD(p, 1e30))
    with pytest.raises(UsageError, match="there is no checkpoint yet"):
        Loop(wild, assemble(wild), tmp_path, "x").advance(100)


@pytest.mark.parametrize("share", [1e9, 1e-9], ids=["written", "held"])
def test_a_loss_that_is_nan_late_loses_no_epoch_that_was_over(share: float, tmp_path: Path) -> None:
    told = "the loss is nan after step 201 .*what was trained in 196 steps is kept in .*resume"
    work = job(model=exploding.counted, loss=exploding.late, epochs=40)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(UsageError, match=told):
        patched.setattr("vivace.api.running.drive.SAVING_SHARE", share)
        vv.train(work, plan=["fused-optimizer"], out=tmp_path)

    with pytest.raises(UsageError, match="the loss is nan after step 201"):
        vv.train(work, out=tmp_path, resume=True)
    kept = files.newest(tmp_path / "checkpoints")
    assert kept is not None and kept.name == "step-000000196"
    assert [len(one.losses) for one in read_accounts(tmp_path / "account.json").values()][-1] == 28


def test_weights_that_are_not_finite_are_in_no_checkpoint(tmp_path: Path) -> None:
    work = job(model=exploding.counted, loss=exploding.rooted)
    loop = Loop(work, assemble(work), tmp_path, "x")
    loop.advance(8)
    loop.save()
    loop.advance(7)

    with pytest.raises(UsageError, match=r"0\.weight holds NaN .* after step 14, .*trained in 7 steps is kept"):
        loop.save()
    assert [one.name for one in tmp_path.iterdir()] == ["step-000000007"]


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    loop.advance(3)
    loop.save()
    loop.advance(1)
    child = os.fork()
    if child == 0:
        files.flush = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        loop.save()
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert (tmp_path / ".step-000000004.part" / files.TENSORS).exists()
    resumed = Loop(job(), assemble(job()), tmp_path, "x")
    assert resumed.resume().steps == 3
    resumed.advance(2)
    resumed.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000005"]


def test_the_last_words_of_a_worker_that_is_killed_are_not_the_profilers(tmp_path: Path) -> None:
    trained = tmp_path / "trained"  # a diagnosis profiles after some dozen calls, and goes on in the same process

    def mortal(model: Any, batch: Any) -> torch.Tensor:
        with trained.open("a") as file:
            file.write(".")
        if trained.stat().st_size > 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(model, batch)

    with pytest.raises(WorkerFailure, match=r"the worker was killed by SIGKILL in [a-z]+$"):
        vv.train(job(loss=mortal, epochs=50), plan=[])


def filling(after: int, error: Exception) -> Any:
    """A score whose worker finds the disk full from its checkpoint number `after` on."""

    def evaluate(model: torch.nn.Module) -> float:
        from vivace.training.keeping import files as module

        kept, saved = module.save_file, []

        def save_file(*arguments: Any) -> None:
            saved.append(1)
            if len(saved) > after:
                raise error
            kept(*arguments)

        module.save_file = save_file
        return 0.5

    return evaluate


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_a_disk_that_fills_at_a_checkpoint_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    work = job(evaluate=filling(after=1, error=error))

    with pytest.raises(DiskFull, match="checkpoint before it is kept: make room, and go on with resume") as told:
        vv.train(work, plan=(), out=tmp_path / "run")
    where = re.escape(str(tmp_path / "run" / "checkpoints"))
    wanted = (
        rf"no room for a checkpoint in {where} \(.*No space left on device.*\): it needs 0\.\d MB, and [\d,.]+ MB "
        r"are free there; .*after step \d+$"
    )
    assert re.match(wanted, str(told.value)), told.value

    assert files.newest(tmp_path / "run" / "checkpoints") is not None
    assert vv.train(job(), plan=(), out=tmp_path / "run", resume=True).steps == 21


def without_room_for_the_model(model: torch.nn.Module) -> float:
    """A score whose worker then finds the disk full where it writes the model."""
    from vivace.training.keeping import model_file as module

    def save_file(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    module.save_file = save_file
    return 0.5


def test_a_disk_that_fills_at_the_model_keeps_what_was_trained_and_says_where(tmp_path: Path) -> None:
    place = re.escape(str(tmp_path))
    told = rf"no room for model\.safetensors in {place} \(.+\): it needs 0\.\d MB, .*step-000000021 is kept"
    with pytest.raises(DiskFull, match=told):
        vv.train(job(evaluate=without_room_for_the_model), plan=(), out=tmp_path)

    run = vv.train(job(), plan=(), out=tmp_path, resume=True)
    assert (run.steps, run.resumed_steps) == (21, 21)
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_that_the_run_goes_on_from(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        vv.train(job(), plan=(), out=tmp_path / "run", progress=Interrupting())
    went_on = vv.train(job(), plan=(), out=tmp_path / "run", resume=True)
    whole = vv.train(job(), plan=(), out=tmp_path / "whole")

    assert 0 < went_on.resumed_steps < went_on.steps == whole.steps
    kept, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(value, kept[name]) for name, value in wanted.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def pressing_as_it_is_written(trainer: int) -> Any:
    """An `evaluate` whose process writes only a part of the model, and presses Ctrl-C for the one that trains."""

    def evaluate(model: torch.nn.Module) -> float:
        from vivace.training.keeping import model_file as module

        def save_file(_: Any, to: Path, **__: Any) -> None:
            to.write_bytes(b"a part")
            os.kill(trainer, signal.SIGINT)
            threading.Event().wait(60)

        module.save_file = save_file
        return 0.5

    return evaluate


@pytest.mark.slow
def test_ctrl_c_while_the_model_is_written_leaves_nothing_half_written(tmp_path: Path) -> None:
    work = job(evaluate=pressing_as_it_is_written(os.getpid()))
    with pytest.raises(KeyboardInterrupt):
        vv.train(work, plan=(), out=tmp_path / "run")

    assert sorted(one.name for one in (tmp_path / "run").rglob("*") if "part" in one.name or "model" in one.name) == []
    assert vv.train(job(), plan=(), out=tmp_path / "run", resume=True).steps == 21


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": lambda p: torch.optim.LBFGS(p)}, "optimizer returned a LBFGS, whose step needs closure"),
        ({"schedule": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o)}, "whose step needs metrics"),
    ],
    ids=["closure", "metrics"],
)
def test_what_cannot_step_by_itself_is_told_at_once(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        assemble(job(**changes))


def test_lazy_layers_that_are_not_initialised_are_refused_with_their_names() -> None:
    lazy = job(model=lambda: torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Linear(8, 4)))

    with pytest.raises(UsageError, match=r"lazy layers that are not initialised: 0\.weight, 0\.bias; allowed is one"):
        assemble(lazy)


def ending_early(advance: str, values: int) -> Any:
    return job(schedule=one_cycle(values), advance=advance, evaluate=accuracy(Points()))


@pytest.mark.parametrize(("advance", "values"), [("step", 14), ("epoch", 2)])
def test_a_schedule_may_be_too_short_for_epochs_that_a_score_to_stop_at_makes_needless(
    advance: str, values: int
) -> None:
    run = vv.train(ending_early(advance, values), until=0.0, plan=())

    assert (run.reached, run.steps) == (True, 7)
    (note,) = [one for one in run.diagnosis.notes if "schedule" in one]
    assert f"a OneCycleLR of {values} values" in note and "unless it has reached 0 (until) before" in note


def test_a_schedule_that_ends_before_the_score_is_reached_stops_the_run_with_what_it_had(tmp_path: Path) -> None:
    told = "schedule fails after step 15: .*or a score to stop at .*that is reached before.* in 15 steps is kept"
    with pytest.raises(UsageError, match=told):
        vv.train(ending_early("step", 14), until=1.1, plan=(), out=tmp_path)

    assert [one.name for one in files.every(tmp_path / "checkpoints")][-1] == "step-000000015"


class Warming(torch.optim.lr_scheduler.LambdaLR):
    """Somebody's own, which goes on after its last value."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.total_steps = 5
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / 5))


def test_a_schedule_of_ones_own_that_says_a_number_of_steps_and_goes_on_after_it_is_trained_with() -> None:
    assert vv.train(job(schedule=Warming, advance="step", epochs=1), plan=()).steps == 7
