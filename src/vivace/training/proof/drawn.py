"""A step that draws other masks than the original's: both averaged over many draws, beside what chance alone makes.

Compiled code draws by generators of its own, so that no seed gives it the original's masks. But what is drawn has the
same distribution: over many draws, gradients must have the same mean, and be as large. What chance leaves of a
difference is known from how draws differ among themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from vivace.core.training.parity import THE_LOSS, Agreement, Kind
from vivace.training.agreement import FLOAT32_ROUNDOFF, FLOOR, MOST_ALLOWED, MOST_MOVED, SMALLEST, cosine
from vivace.training.proof.together import Unproved
from vivace.training.trace import Trace

DRAWS, AGAIN = 12, 36
"""Of each side; and of each where these show a difference, drawn anew, which alone are believed then: Student's t of 70
degrees of freedom is beyond `SURE` once in ten million times."""
SURE = 6.0
"""How many standard errors of a difference are not put down to chance."""
HIDDEN = 0.5
"""Where a fault of this share of a gradient would not be seen, both by its mean and its size, nothing can be told."""
ZERO = 10 * FLOOR
"""A tensor this small beside all of its kind is zero in truth, and nothing but rounding: it is compared with these."""
STEPS_OF_ONE = 2 * DRAWS + 4
"""Steps that a proof takes: two of each draw, and those in float64 that updates are compared with."""

Draw = Callable[[int], Trace]
"""Takes a step from where the run is, with the masks of a seed."""


@dataclasses.dataclass
class Drawn:
    """The mean of a tensor over draws, how far these are from it (`spread`: the sum of squared distances), and their
    norms."""

    mean: Tensor
    count: int = 0
    spread: float = 0.0
    norms: list[float] = dataclasses.field(default_factory=list)

    def take_in(self, value: Tensor) -> None:
        """One more draw. Source: Welford, Technometrics 4(3), 1962."""
        self.count += 1
        before = value - self.mean
        self.mean = self.mean + before / self.count
        self.spread += float((before * (value - self.mean)).sum())
        self.norms.append(float(value.norm()))

    @property
    def norm(self) -> float:
        """The mean of their norms."""
        return math.fsum(self.norms) / self.count

    @property
    def variances(self) -> tuple[float, float]:
        """Of the mean, summed over its elements, and of the mean of the norms."""
        norms = math.fsum((one - self.norm) ** 2 for one in self.norms)
        degrees = self.count * (self.count - 1)
        return self.spread / degrees, norms / degrees


def compared(original: Draw, plan: Draw, seed: int, step: int, roundoff: float) -> list[Agreement]:
    """Gradients, buffers and the loss of a plan's step beside the original's, averaged over draws. A difference has to
    show twice, in draws that have nothing to do with each other.

    Raises Unproved where chance is so large that a fault could hide in it.
    """
    found = _over(DRAWS, original, plan, seed, step, roundoff)
    if any(not one.holds for one in found):
        found = _over(AGAIN, original, plan, seed + DRAWS, step, roundoff)
    off = [one for one in found if not one.holds]
    unseen = [one for one in found if one.holds and one.allowed > HIDDEN]
    if unseen and not off:
        worst = max(unseen, key=lambda one: one.allowed)
        raise Unproved(
            f"CANNOT TELL, as its compiled code draws other dropout masks than the original: over {DRAWS} draws "
            f"of each, {worst.allowed:.2g} of the {worst.what} would be taken for chance"
            + (f", and so of {len(unseen) - 1} more" if len(unseen) > 1 else "")
        )
    return found


def _over(count: int, original: Draw, plan: Draw, seed: int, step: int, roundoff: float) -> list[Agreement]:
    """All tensors over so many draws of each; one that is missing on one side ends it."""
    sides: tuple[dict[tuple[Kind, str], Drawn], ...] = ({}, {})
    for number in range(count):
        traces = (original(seed + number), plan(seed + number))
        lacking = list(_lacking(*traces, step))
        if lacking:
            return lacking
        for side, one in zip(sides, traces, strict=True):
            for place, value in _tensors(one):
                side.setdefault(place, Drawn(value * 0.0)).take_in(value)
    rounding = MOST_MOVED if roundoff <= FLOAT32_ROUNDOFF else MOST_ALLOWED
    everything = {kind: math.hypot(*(one.norm for (of, _), one in sides[0].items() if of is kind)) for kind in Kind}
    compare = functools.partial(_agreement, step, rounding)
    return [compare(kind, name, everything[kind], own, sides[1][kind, name]) for (kind, name), own in sides[0].items()]


def _tensors(one: Trace) -> Iterator[tuple[tuple[Kind, str], Tensor]]:
    kinds: tuple[tuple[Kind, Mapping[str, Tensor | None]], ...]
    kinds = ((Kind.GRADIENT, one.gradients), (Kind.BUFFER, one.buffers))
    for kind, tensors in kinds:
        yield from (((kind, name), value) for name, value in tensors.items() if value is not None)
    yield (Kind.LOSS, THE_LOSS), torch.tensor(one.loss, dtype=torch.float64)


def _lacking(original: Trace, plan: Trace, step: int) -> Iterator[Agreement]:
    """Gradients that one side has and the other has not, or that are of another shape or not finite."""
    for name, own in original.gradients.items():
        other = plan.gradients.get(name)
        told = ""
        if (own is None) != (other is None):
            told = "there is none, and the original has one" if other is None else "there is one, the original has none"
        elif own is not None and other is not None and own.shape != other.shape:
            told = f"shape {list(other.shape)}, and the original's is {list(own.shape)}"
        elif own is not None and other is not None and bool(own.isfinite().all()) and not bool(other.isfinite().all()):
            told = "it holds NaN or infinite values"
        if told:
            yield Agreement(Kind.GRADIENT, name, step, 0.0, float("inf"), 0.0, 0.0, told)


def _agreement(
    step: int, rounding: float, kind: Kind, name: str, everything: float, own: Drawn, other: Drawn
) -> Agreement:
    """By the mean or by the size, whichever is further off; what is allowed is of that which would show less, where
    both hold."""
    mean_variance, norm_variance = (a + b for a, b in zip(own.variances, other.variances, strict=True))
    is_zero = own.norm <= ZERO * everything
    sizes = (everything, everything) if is_zero else (float(own.mean.norm()), own.norm)
    by_mean = _beside(float((other.mean - own.mean).norm()), mean_variance, sizes[0], rounding)
    by_size = _beside(abs(other.norm - own.norm), norm_variance, sizes[1], rounding)
    angle = cosine(own.mean, other.mean)
    worst = max(by_mean, by_size, key=lambda one: one[0] / one[1])
    if worst[0] <= worst[1]:
        worst = min(by_mean, by_size, key=lambda one: one[1])
    return Agreement(kind, name, step, angle, worst[0], worst[2], worst[1])


def _beside(apart: float, variance: float, size: float, rounding: float) -> tuple[float, float, float]:
    """A difference, what is allowed of it, and its standard error, all beside a size."""
    chance = math.sqrt(variance) / max(size, SMALLEST)
    return apart / max(size, SMALLEST), max(SURE * chance, rounding), chance
