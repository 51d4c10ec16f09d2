"""Lets a plan's rig and the original's take the same steps from the same weights, and compares what they make."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement, Kind
from vivace.core.training.rig import Feed, Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, FLOOR, SMALLEST, Judge, apart, cosine
from vivace.training.moved import Moved
from vivace.training.rig import assemble, seed_everything
from vivace.training.step import around, train_step
from vivace.training.trace import Trace, stilled, trace, updated_by, wide, widened

FLOAT64, FLOAT32 = "float64", "float32"
STILLED = "dropout is off while gradients are compared"
FAR = 0.1
"""A step in float64 that is further from the original's than this computes something else, not something finer."""


@dataclasses.dataclass(frozen=True)
class Examined:
    """All agreements, what they are with, and what the reader should know."""

    agreements: tuple[Agreement, ...]
    reference: str
    notes: tuple[str, ...]


def examine(
    job: Training,
    equip: Callable[[Rig], Rig],
    unit_roundoff: float = FLOAT32_ROUNDOFF,
    steps: int = 3,
    still: bool = True,
) -> Examined:
    """Compare `steps` steps of the rig that `equip` makes with the original's, tensor by tensor.

    Every step starts from the original's weights. The reference is the same step in float64; where the model cannot
    compute in it, or draws other numbers there, the original's own step in float32. What differs is compared with what
    differs between two runs of the original. `still` switches dropout off; where it stays on, the plan must
    draw the original's masks. Where several processes train, each calls this and computes the original's steps too.
    Raises UsageError where the original's loss is not finite.
    """
    original, given, exact = assemble(job), assemble(job), _in_float64(job)
    plan = equip(given)
    had_dropout = [stilled(rig.model) if still else [] for rig in (original, plan, exact)]
    notes = [*([STILLED] if any(had_dropout) else []), *plan.notes]
    batches = list(itertools.islice(original.feed.epoch(0), steps))
    moved: Moved | None = None
    twin = Twin(job, still)
    is_fed_anew = plan.feed is not given.feed
    found = list(_of_batches(job, original.feed, plan, len(batches))) if is_fed_anew else []
    reference, judge = FLOAT64, Judge(unit_roundoff)
    for number, batch in enumerate(batches):
        state = {name: value.detach().clone() for name, value in original.model.state_dict().items()}
        exact.model.load_state_dict(state)
        if plan.ranks is None:
            plan.model.load_state_dict(state)
        else:
            plan.ranks.load(plan.model, state)
        own = trace(original, batch, job.seed + number)
        _check_finite(own, number)
        twin.follow(state, batch, job.seed + number)
        true = None
        if reference == FLOAT64:
            true, lacks = _truth(exact, batch, job.seed + number, own, twin if number == 0 else None)
            if true is None:
                reference = FLOAT32
                notes.append(f"the model {lacks}, so the original in float32 is the reference")
        other = trace(plan, batch, job.seed + number)
        compare = functools.partial(judge.agreements, number, true or own, own, other, first=number == 0)
        of_step = list(compare())
        if unit_roundoff <= FLOAT32_ROUNDOFF and any(not one.holds and not one.reason for one in of_step):
            moved = moved or Moved(job, still)
            of_step = list(compare(moved=moved.traces(state, batch, job.seed + number, own)))
        if not all(one.holds for one in of_step):
            of_step = [beside(one, own, twin.traces()[number]) for one in of_step]
        found += of_step
        if number == 0 and unit_roundoff > FLOAT32_ROUNDOFF:
            of_both = (updated_by(_in_float64(job), state, one.gradients) for one in (own, other))
            found += judge.updates(number, own, other, *of_both)
    found += _in_one_go(plan, len(batches)) if plan.several is not None else []
    if had_dropout[0] and plan.gradients is None and plan.ranks is None and batches:
        found += _draws(job, (original, plan), had_dropout[:2], state, batches[0])
    if moved is not None:
        notes.append(moved.note())
    found.sort(key=lambda one: (one.holds, -one.error / max(one.allowed, 1e-300)))
    return Examined(tuple(found), reference, tuple(notes))


class Twin:
    """The original a second time: what differs between the two is chance. It takes steps only when somebody asks, and
    all of them, since a generator of the model's own goes on with each."""

    def __init__(self, job: Training, still: bool) -> None:
        self._job = job
        self._still = still
        self._given: list[tuple[dict[str, Tensor], Any, int]] = []
        self._traces: list[Trace] = []
        self._rig: Rig | None = None

    def follow(self, state: dict[str, Tensor], batch: Any, seed: int) -> None:
        """A step that the original takes, from these weights."""
        self._given.append((state, batch, seed))

    def traces(self) -> list[Trace]:
        """The same steps."""
        if self._rig is None:
            self._rig = assemble(self._job)
            if self._still:
                stilled(self._rig.model)
        for state, batch, seed in self._given[len(self._traces) :]:
            self._rig.model.load_state_dict(state)
            self._traces.append(trace(self._rig, batch, seed))
        return self._traces


def _truth(exact: Rig, batch: Any, seed: int, own: Trace, twin: Twin | None) -> tuple[Trace | None, str]:
    """The original's step in float64, or None and why there is none to go by. With a `twin`, which takes the original's
    first step again, a step is none that is far from both where these are the same."""
    true = _float64_trace(exact, batch, seed)
    if true is None:
        return None, "cannot compute in float64"
    if twin is None or apart(true.gradients, own.gradients) <= FAR:
        return true, ""
    if apart(twin.traces()[0].gradients, own.gradients) <= FLOOR:
        return None, "draws other numbers, or computes something else, in float64"
    return true, ""


def beside(one: Agreement, own: Trace, twin: Trace) -> Agreement:
    """An agreement that does not hold, with how far the original's second run is from its first."""
    if one.holds or one.kind is Kind.BATCH:
        return one
    kinds = {Kind.GRADIENT: "gradients", Kind.UPDATE: "updates", Kind.BUFFER: "buffers"}
    first, second = (getattr(run, kinds[one.kind]).get(one.name) for run in (own, twin))
    if first is None or second is None:
        return one
    return dataclasses.replace(one, again=float((second - first).norm()) / max(float(first.norm()), SMALLEST))


def _draws(
    job: Training, rigs: Sequence[Rig], off: Sequence[Any], state: dict[str, Tensor], batch: Any
) -> Iterator[Agreement]:
    """Whether a plan still has the dropout that was off while gradients were compared, where its passes are autograd's:
    what is drawn makes another loss of the original, and must of the plan."""
    differ = []
    for rig, switched in zip(rigs, off, strict=True):
        for module, name, value in switched:
            setattr(module, name, value)
        losses = []
        for seed in (job.seed, job.seed + 1):
            rig.model.load_state_dict(state)
            losses.append(trace(rig, batch, seed).loss)
        differ.append(abs(losses[0] - losses[1]) > FLOOR * abs(losses[0]))
    if differ == [True, False]:
        told = "the loss is the same whatever masks are drawn, and the original's is not"
        yield Agreement(Kind.GRADIENT, "dropout", 0, 0.0, float("inf"), 0.0, 0.0, told)


def _in_one_go(plan: Rig, steps: int) -> Iterator[Agreement]:
    """Whether steps that a plan takes in one go leave the model where the same ones do that are taken one by one."""
    assert plan.several is not None
    weights = {name: value.detach().clone() for name, value in plan.model.state_dict().items()}
    state = copy.deepcopy(plan.optimizer.state_dict())
    with around(plan.outside):
        losses = plan.several(0, 0, steps)
        steps = 0 if losses is None else len(losses)
        together = {name: wide(value) for name, value in plan.model.state_dict().items()}
        plan.model.load_state_dict(weights)
        plan.optimizer.load_state_dict(state)
        for batch in itertools.islice(plan.feed.epoch(0), steps):
            train_step(plan, batch)
    for name, value in plan.model.state_dict().items():
        own = wide(value)
        size = max(float((own - wide(weights[name])).norm()), SMALLEST)
        error = float((together[name] - own).norm()) / size
        told = f"{name} after {steps} steps in one go"
        yield Agreement(Kind.UPDATE, told, steps, cosine(own, together[name]), error, 0.0, FLOOR)


def _in_float64(job: Training) -> Rig:
    """The original in float64, by its factory where that knows how (`in_float64`), else by converting its tensors."""
    wide = getattr(job.model, "in_float64", None)
    rig = assemble(job if wide is None else dataclasses.replace(job, model=wide))
    model = rig.model if wide is not None else rig.model.double()
    return rig.replace(forward=lambda batch: job.loss(model, widened(batch)))


def _float64_trace(exact: Rig, batch: Any, seed: int) -> Trace | None:
    try:
        # PyTorch 2.13's own kernel is wrong in float64 beside a float32 mask on processors with AVX2
        with sdpa_kernel([SDPBackend.MATH]):
            return trace(exact, batch, seed)
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _check_finite(own: Trace, step: int) -> None:
    if not torch.isfinite(torch.tensor(own.loss)):
        raise UsageError(
            f"the loss of the original is {own.loss} in step {step}; lower the learning rate, or look for a division "
            "by zero or a logarithm of zero in the loss"
        )


def _of_batches(job: Training, original: Feed, plan: Rig, count: int) -> Iterator[Agreement]:
    """Whether a plan's feed gives the same batches, and leaves alone those that it gave before; of several processes,
    each its part of them."""
    own = _drawn(job, original, count)
    if plan.ranks is not None:
        own = [plan.ranks.cut(batch) for batch in own]
    other = _drawn(job, plan.feed, count)
    for number in range(count):
        if number >= len(other):
            yield _batch(number, "it is not there, and the original's is")
        elif not same(own[number], other[number]):
            yield _batch(number, "its values differ from the original's")
        else:
            yield Agreement(Kind.BATCH, f"batch {number}", number, 1.0, 0.0, 0.0, 0.0)


def _batch(number: int, reason: str) -> Agreement:
    return Agreement(Kind.BATCH, f"batch {number}", number, 0.0, float("inf"), 0.0, 0.0, reason)


def _drawn(job: Training, feed: Feed, count: int) -> list[Any]:
    """The first batches, all held at once, so that a buffer that is written again shows."""
    seed_everything(job.seed)
    return list(itertools.islice(feed.epoch(0), count))


def same(one: Any, other: Any) -> bool:
    """Whether two batches hold the same values in the same structure, to the bit; NaN equals NaN."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):  # such as a share of a batch
        one, other = (vars(each) for each in (one, other))
    mine, my_spec = pytree.tree_flatten(one)
    theirs, their_spec = pytree.tree_flatten(other)
    return my_spec == their_spec and all(map(_same_leaf, mine, theirs))


def _same_leaf(one: Any, other: Any) -> bool:
    if torch.is_tensor(one) and torch.is_tensor(other):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        other = other.to(one.device)  # a feed may have sent it ahead
        return bool(torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num()))
    return type(one) is type(other) and bool(one == other)
