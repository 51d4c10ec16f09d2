"""Lets a plan's rig and the original's take the same steps from the same weights, and compares what they make."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.core.training.job import Training
from vivace.core.training.parity import THE_LOSS, Agreement, Kind
from vivace.core.training.rig import Feed, Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, FLOOR, GROWTH, SMALLEST, Judge, apart, cosine
from vivace.training.keeping.own_state import OwnState
from vivace.training.moved import Moved
from vivace.training.rig import assemble, seed_everything
from vivace.training.step import around, train_step
from vivace.training.trace import Trace, stilled, trace, updated_by, wide, widen, widened

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
    given = assemble(job)
    originals = Originals(lambda: assemble(job), lambda: in_float64(job), unit_roundoff, still, job.seed)
    original, plan = originals.rig, equip(given)
    off = stilled(plan.model) if still else []
    notes = [*([STILLED] if originals.off or off else []), *plan.notes]
    batches = list(itertools.islice(original.feed.epoch(0), steps))
    is_fed_anew = plan.feed is not given.feed
    found = list(_of_batches(job, original.feed, plan, len(batches))) if is_fed_anew else []
    for number, batch in enumerate(batches):
        state = {name: value.detach().clone() for name, value in original.model.state_dict().items()}
        if plan.ranks is None:
            plan.model.load_state_dict(state)
        else:
            plan.ranks.load(plan.model, state)
        found += originals.compared(plan, state, batch, job.seed + number, number, is_first=number == 0)
    found += _in_one_go(plan, len(batches)) if plan.several is not None else []
    if originals.off and plan.gradients is None and plan.ranks is None and batches:
        found += _draws(job, (original, plan), (originals.off, off), state, batches[0])
    return Examined(worst_first(found), originals.reference, (*notes, *originals.notes()))


@dataclasses.dataclass(frozen=True)
class Taken:
    """A step that the original took: from where, on what, what it made (`own`), and the same in float64 (`true`), where
    there is that."""

    state: Mapping[str, Tensor]
    batch: Any
    seed: int
    number: int
    is_first: bool
    own: Trace
    true: Trace | None


def worst_first(found: Iterable[Agreement]) -> tuple[Agreement, ...]:
    """Those that do not hold before those that do, each by how far it is off; a loss after the tensors that explain
    it."""
    return tuple(sorted(found, key=_rank))


def _rank(one: Agreement) -> tuple[bool, bool, float]:
    return one.holds, one.kind is Kind.LOSS and not one.holds, -one.error / max(one.allowed, SMALLEST)


class Originals:
    """The original's steps, which a plan's are compared with: in float32 and, where the model can, in float64.

    `make` gives the original's rig as it stands, `widen` the same in float64, each a fresh one in every call.
    """

    def __init__(
        self, make: Callable[[], Rig], widen: Callable[[], Rig], unit_roundoff: float, still: bool, seed: int
    ) -> None:
        self.rig = make()
        self.reference = FLOAT64
        self._widen = widen
        self._exact = widen()
        self.off = stilled(self.rig.model) if still else []
        """The dropout that was switched off."""
        if still:
            stilled(self._exact.model)
        self._roundoff = unit_roundoff
        self._judge = Judge(unit_roundoff)
        self._twin = Twin(make, still)
        self._moved = functools.cache(lambda: Moved(make(), still, seed))
        self._lacks = ""

    def compared(
        self,
        plan: Rig,
        state: Mapping[str, Tensor],
        batch: Any,
        seed: int,
        number: int,
        is_first: bool,
        take: Callable[[], Tensor] | None = None,
    ) -> list[Agreement]:
        """One step of the original's rig, which stands at `state`, and of a plan's, which does too (`take`, where it
        takes that otherwise than by `train_step`). Updates are compared where this `is_first`: where both have the same
        state of the optimizer."""
        taken = self.taken(state, batch, seed, number, is_first)
        return self.beside(taken, trace(plan, batch, seed, take))

    def taken(self, state: Mapping[str, Tensor], batch: Any, seed: int, number: int, is_first: bool) -> Taken:
        """A step of the original, which a plan's is to be compared with."""
        self._exact.model.load_state_dict(state)
        own = trace(self.rig, batch, seed)
        _check_finite(own, number)
        self._twin.follow(dict(state), batch, seed)
        true = None
        if self.reference == FLOAT64:
            true, lacks = _truth(self._exact, batch, seed, own, self._twin if is_first else None)
            if true is None:
                self.reference, self._lacks = FLOAT32, lacks
        return Taken(state, batch, seed, number, is_first, own, true)

    def beside(self, taken: Taken, other: Trace) -> list[Agreement]:
        """A plan's step beside the original's from the same state, on the same batch."""
        state, batch, seed, own, is_first = taken.state, taken.batch, taken.seed, taken.own, taken.is_first
        compare = functools.partial(
            self._judge.agreements, taken.number, taken.true or own, own, other, first=is_first
        )  # fmt: skip
        found = list(compare())
        if self._roundoff <= FLOAT32_ROUNDOFF and any(not one.holds and not one.reason for one in found):
            found = list(compare(moved=self._moved().traces(state, batch, seed, own)))
        if not all(one.holds for one in found):
            found = [beside(one, own, self._twin.traces()[-1]) for one in found]
        if is_first and self._roundoff > FLOAT32_ROUNDOFF:
            of_both = (updated_by(self._widen(), state, one) for one in (own, other))
            found += self._judge.updates(taken.number, own, other, *of_both)
        return found

    def notes(self) -> list[str]:
        """What a reader of the comparison should know."""
        told = [f"the model {self._lacks}, so the original in float32 is the reference"] if self._lacks else []
        return [*told, *([self._moved().note()] if self._moved.cache_info().currsize else [])]


class Twin:
    """The original a second time: what differs between the two is chance. It takes steps only when somebody asks, and
    all of them, since a generator of the model's own goes on with each."""

    def __init__(self, make: Callable[[], Rig], still: bool) -> None:
        self._make = make
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
            self._rig = self._make()
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
    if one.kind is Kind.LOSS:
        return dataclasses.replace(one, again=abs(twin.loss - own.loss) / max(abs(own.loss), SMALLEST))
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
    """Whether steps that a plan takes in one go leave the model where the same ones do that are taken one by one, and
    return the same losses."""
    assert plan.several is not None
    weights = {name: value.detach().clone() for name, value in plan.model.state_dict().items()}
    state = copy.deepcopy(plan.optimizer.state_dict())
    with around(plan.outside):
        losses = plan.several(0, 0, steps)
        steps = 0 if losses is None else len(losses)
        together = {name: wide(value) for name, value in plan.model.state_dict().items()}
        plan.model.load_state_dict(weights)
        plan.optimizer.load_state_dict(state)
        singly = [float(train_step(plan, batch)) for batch in itertools.islice(plan.feed.epoch(0), steps)]
    for number, (own, other) in enumerate(zip(singly, [] if losses is None else losses.tolist(), strict=False)):
        error = abs(other - own) / max(abs(own), SMALLEST)
        yield Agreement(Kind.LOSS, f"{THE_LOSS}, of steps in one go,", number, 1.0, error, 0.0, GROWTH * FLOOR)
    for name, value in plan.model.state_dict().items():
        alone = wide(value)
        size = max(float((alone - wide(weights[name])).norm()), SMALLEST)
        error = float((together[name] - alone).norm()) / size
        told = f"{name} after {steps} steps in one go"
        yield Agreement(Kind.UPDATE, told, steps, cosine(alone, together[name]), error, 0.0, FLOOR)


def in_float64(job: Training) -> Rig:
    """The original in float64, by its factory where that knows how (`in_float64`), else by converting its tensors."""
    wide = getattr(job.model, "in_float64", None)
    rig = assemble(job if wide is None else dataclasses.replace(job, model=wide))
    model = rig.model if wide is not None else widen(rig.model)
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
    each its part of them. Generators of the job's own draw for both from where they are."""
    state = OwnState(job)
    own = _drawn(job, original, count)
    state.restore()
    if plan.ranks is not None:
        own = [plan.ranks.cut(batch) for batch in own]
    other = _drawn(job, plan.feed, count)
    wanted, given = original.steps(), plan.feed.steps()
    if job.has_samples and given != wanted:
        yield dataclasses.replace(_batch(0, f"there are {given}, and its samples make {wanted}"), name="epoch 0")
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
