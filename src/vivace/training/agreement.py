"""How far each tensor of a plan's step is from a reference, beside how far the original's own step is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from vivace.core.training.parity import THE_LOSS, Agreement, Kind
from vivace.training.trace import Trace

FLOAT32_ROUNDOFF = 2.0**-24
FLOOR = 16 * FLOAT32_ROUNDOFF
"""The least error that is taken for the original's own, which may be small by luck: a sum over some hundred values in
another order makes about that."""
UPDATE_FLOOR = 1000 * FLOAT32_ROUNDOFF
"""The same of an update: optimizers take 1 - beta with a beta up to 0.999, which loses three digits where a compiler or
a fused kernel does it in float32 and the eager optimizer in Python's float64."""
GROWTH = 4.0
"""How many times the original's own error a plan of the same precision may make."""
MOST_ALLOWED = 0.25
"""However coarse the numbers, a gradient this far off is another gradient."""
MOST_MOVED = 0.05
"""However many units are tied, no more is put down to them."""
SMALLEST = 1e-300
"""Keeps the error of what is zero in both a number."""
VANISHING = 0.1
"""An original that is this far off by rounding alone has a tensor that is zero in truth, such as the gradient of a bias
before batch normalization. It is compared with the norm of all tensors of its kind."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares steps. `unit_roundoff` is the plan's; the error that rounding makes grows in proportion to it, so the
    original's own error against float64 tells for every tensor what coarser numbers may cost there.
    """

    unit_roundoff: float = FLOAT32_ROUNDOFF

    def agreements(
        self, step: int, exact: Trace, original: Trace, plan: Trace, first: bool, moved: Sequence[Trace] = ()
    ) -> Iterator[Agreement]:
        """Every tensor of a step, and its loss. `moved` are the original's steps from weights that were moved by
        rounding: each may be as far off as the furthest of them. Updates are compared in the first step and in full
        precision: later ones depend on the steps before, and those of adaptive optimizers on the sign of gradients that
        are almost zero. In coarser numbers `updates` compares them.
        """
        elsewhere = [one.gradients for one in moved]
        yield from self._of_kind(Kind.GRADIENT, step, exact.gradients, original.gradients, plan.gradients, elsewhere)
        if first and self.unit_roundoff <= FLOAT32_ROUNDOFF:
            told = {name for name, value in exact.gradients.items() if not _vanishes(value, original.gradients[name])}
            updates = {name: value for name, value in exact.updates.items() if name in told}
            changed = [one.updates for one in moved]
            yield from self._of_kind(Kind.UPDATE, step, updates, original.updates, plan.updates, changed)
        kept = [one.buffers for one in moved]
        yield from self._of_kind(Kind.BUFFER, step, exact.buffers, original.buffers, plan.buffers, kept)
        yield self._loss(step, exact, original, plan, [one.loss for one in moved])
        yield from self._counts(step, exact, original, plan, [one.counts for one in moved])
        yield from self._frozen(step, exact, original, plan)

    def _loss(self, step: int, exact: Trace, original: Trace, plan: Trace, moved: Sequence[float]) -> Agreement:
        """The number that the step returns. Where the original's own is nothing but rounding, as of a training that
        fits its data, or is the only reference, it may also be off by what rounding adds to 1."""
        reference, size = exact.loss, max(abs(exact.loss), SMALLEST)
        if not math.isfinite(plan.loss):
            return Agreement(Kind.LOSS, THE_LOSS, step, 0.0, float("inf"), 0.0, 0.0, f"it is {plan.loss}")
        coarser = max(1.0, self.unit_roundoff / FLOAT32_ROUNDOFF)
        error, noise = (abs(one - reference) / size for one in (plan.loss, original.loss))
        furthest = max((abs(one - reference) / size for one in moved), default=0.0)
        is_rounding = max(noise, furthest) > VANISHING
        allowed = max(GROWTH * max(noise, FLOOR) * coarser, min(furthest, MOST_MOVED))
        allowed = allowed if is_rounding else min(allowed, MOST_ALLOWED)
        if is_rounding or exact is original:
            allowed = max(allowed, GROWTH * FLOOR * coarser / size)
        sign = math.copysign(1.0, reference) * math.copysign(1.0, plan.loss)
        return Agreement(Kind.LOSS, THE_LOSS, step, sign, error, max(noise, furthest), allowed)

    def _counts(
        self, step: int, exact: Trace, original: Trace, plan: Trace, moved: Sequence[Mapping[str, Tensor]]
    ) -> Iterator[Agreement]:
        """What was added to whole numbers: the same, unless rounding alone makes it another."""
        for name, reference in exact.counts.items():
            own, other = original.counts.get(name), plan.counts.get(name)
            if own is None or other is None or own.shape != reference.shape or other.shape != reference.shape:
                yield _lacking(Kind.BUFFER, name, step, own is not None)
                continue
            size = max(float(reference.norm()), 1.0)
            apart_by_rounding = max(float((one - reference).norm()) / size for one in (own, *_of(moved, name)))
            is_coarse = self.unit_roundoff > FLOAT32_ROUNDOFF
            allowed = MOST_ALLOWED if is_coarse else min(GROWTH * apart_by_rounding, MOST_ALLOWED)
            error = float((other - reference).norm()) / size
            yield Agreement(Kind.BUFFER, name, step, cosine(reference, other), error, apart_by_rounding, allowed)

    def _frozen(self, step: int, exact: Trace, original: Trace, plan: Trace) -> Iterator[Agreement]:
        """Parameters that do not learn: they stay where they are, or go as far as the job itself moves them."""
        for name, own in original.frozen.items():
            update = plan.updates.get(name)
            other = plan.frozen.get(name) if update is None else update.norm()
            if other is None:
                continue
            if not float(own) and float(other):
                told = "it moves, and the original's is frozen"
                yield Agreement(Kind.UPDATE, name, step, 0.0, float("inf"), 0.0, 0.0, told)
                continue
            reference = exact.frozen.get(name, own)
            size = max(float(reference), SMALLEST)
            noise, error = (abs(float(one - reference)) / size for one in (own, other))
            coarser = max(1.0, self.unit_roundoff / FLOAT32_ROUNDOFF)
            allowed = min(GROWTH * max(noise, UPDATE_FLOOR) * coarser, MOST_ALLOWED)
            yield Agreement(Kind.UPDATE, name, step, 1.0, error, noise, allowed)

    def updates(
        self, step: int, original: Trace, plan: Trace, of_original: Mapping[str, Tensor], of_plan: Mapping[str, Tensor]
    ) -> Iterator[Agreement]:
        """A plan's update beside what the original's optimizer makes of the plan's own gradients in float64
        (`of_plan`): however coarse these are, weights and updates stay in float32. `of_original` is the same of the
        original's gradients."""
        for name, reference in of_plan.items():
            if not bool(reference.isfinite().all()):
                continue  # its gradient is told already
            own, other = of_original[name], plan.updates.get(name)
            if other is None:
                yield _lacking(Kind.UPDATE, name, step, True)
                continue
            size = max(float(reference.norm()), SMALLEST)
            noise = float((original.updates[name] - own).norm()) / max(float(own.norm()), SMALLEST)
            error = float((other - reference).norm()) / size
            allowed = min(GROWTH * max(noise, UPDATE_FLOOR), MOST_ALLOWED)
            yield Agreement(Kind.UPDATE, name, step, cosine(reference, other), error, noise, allowed)

    def _of_kind(
        self,
        kind: Kind,
        step: int,
        exact: Mapping[str, Tensor | None],
        original: Mapping[str, Tensor | None],
        plan: Mapping[str, Tensor | None],
        moved: Sequence[Mapping[str, Tensor | None]],
    ) -> Iterator[Agreement]:
        everything = sum(float(value.norm()) ** 2 for value in exact.values() if value is not None) ** 0.5
        for name, reference in exact.items():
            own, other = original.get(name), plan.get(name)
            if reference is None or own is None or other is None:
                if not (reference is None and own is None and other is None):
                    yield _lacking(kind, name, step, other is None)
                continue
            elsewhere = [value for one in moved if (value := one.get(name)) is not None]
            yield self._agreement(kind, name, step, reference, own, other, everything, elsewhere)

    def _agreement(
        self,
        kind: Kind,
        name: str,
        step: int,
        reference: Tensor,
        own: Tensor,
        other: Tensor,
        everything: float,
        moved: Sequence[Tensor],
    ) -> Agreement:
        if other.shape != reference.shape:
            told = f"shape {list(other.shape)}, and the original's is {list(reference.shape)}"
            return Agreement(kind, name, step, 0.0, float("inf"), 0.0, 0.0, told)
        if not bool(other.isfinite().all()) and bool(reference.isfinite().all()):
            return Agreement(kind, name, step, 0.0, float("inf"), 0.0, 0.0, "it holds NaN or infinite values")
        size = max(everything if _vanishes(reference, own) else float(reference.norm()), SMALLEST)
        noise = float((own - reference).norm()) / size
        error = float((other - reference).norm()) / size
        floor = UPDATE_FLOOR if kind is Kind.UPDATE else FLOOR
        allowed = GROWTH * max(noise, floor) * max(1.0, self.unit_roundoff / FLOAT32_ROUNDOFF)
        furthest = max((float((one - reference).norm()) / size for one in moved), default=0.0)
        allowed, noise = max(allowed, min(furthest, MOST_MOVED)), max(noise, furthest)
        return Agreement(kind, name, step, cosine(reference, other), error, noise, min(allowed, MOST_ALLOWED))


def _of(moved: Sequence[Mapping[str, Tensor]], name: str) -> list[Tensor]:
    return [one[name] for one in moved if name in one]


def apart(one: Mapping[str, Tensor | None], other: Mapping[str, Tensor | None]) -> float:
    """How far the gradients of two steps are apart, all of them together, beside the second's; infinite where one has
    a gradient that the other has not."""
    pairs = [(mine, other[name]) for name, mine in one.items()]
    if any((mine is None) != (theirs is None) for mine, theirs in pairs):
        return float("inf")
    both = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    size = math.hypot(*(float(theirs.double().norm()) for _, theirs in both))
    return math.hypot(*(float((mine - theirs).double().norm()) for mine, theirs in both)) / max(size, SMALLEST)


def _vanishes(reference: Tensor | None, own: Tensor | None) -> bool:
    """Whether a tensor of the original is nothing but rounding."""
    if reference is None or own is None:
        return False
    return float((own - reference).norm()) > VANISHING * float(reference.norm())


def _lacking(kind: Kind, name: str, step: int, is_plan: bool) -> Agreement:
    told = "there is none, and the original has one" if is_plan else "there is one, and the original has none"
    return Agreement(kind, name, step, 0.0, float("inf"), 0.0, 0.0, told)


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the angle between two tensors; of a zero one, 1 where both are."""
    norms = float(one.norm()) * float(other.norm())
    return float((one * other).sum()) / norms if norms > 0 else float(one.norm() == other.norm())
