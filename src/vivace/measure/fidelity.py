"""Fidelity: how close a candidate's outputs are to the original's, and whether a float64 referee finds them right.

Outputs are lists of calls, each a list of flat tensors. Arithmetic is in float64, call by call.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.quality import Decisions, Fidelity, Flip, Quality, QualityVerdict
from vivace.measure import stats

LEAST_SQNR_DB = 20.0
TIE_MARGIN = 1e-4
"""Two best scores this close, relative to the largest, are a tie: either decision is the original's own."""
BASIS = "fidelity to the original's outputs"
REFEREE_FACTOR = 2.0
SAMPLE_FACTOR = 10.0
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}
"""What counts as rounding, relative to the output's root mean square; a tenth of it is allowed beside eager's own."""

Outputs = Sequence[Sequence[Tensor]]


@dataclasses.dataclass
class _Sums:
    """Running sums over the calls of one output."""

    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    power: float = 0.0
    worst_db: float = math.inf

    def add(self, reference: Tensor, candidate: Tensor, axis: int | None) -> None:
        """Take in one call."""
        r, c = _comparable(reference, candidate)
        self.signal += float((r * r).sum())
        self.power += float((c * c).sum())
        self.product += float((r * c).sum())
        self.noise += float(((r - c) ** 2).sum())
        for signal, noise in _per_sample(r, c, axis):
            self.worst_db = min(self.worst_db, decibels(signal, noise))


def compare_outputs(
    reference: Iterable[Sequence[Tensor]],
    candidate: Iterable[Sequence[Tensor]],
    batch_axes: Sequence[int | None] | None = None,
) -> Fidelity:
    """How close a candidate's outputs are to the reference's, call by call.

    SQNR and cosine are those of the worst output. `batch_axes` names the samples' axis of each output (axis 0 when not
    given; None for an output without one, whose call then counts as one sample). Top-1 agreement is that of the first
    output of shape [samples, classes >= 2] in floating point, or of integers; ties in the reference are not counted
    against the candidate.

    Raises WorkerFailure: WRONG_OUTPUT when the number, shape or dtype of outputs differs, NONFINITE when the candidate
    has NaN or infinity where the reference has not.

    >>> reference = [[torch.tensor([[1.0, 2.0]])]]
    >>> compare_outputs(reference, [[torch.tensor([[1.1, 2.0]])]]).agreement
    1.0
    """
    sums: dict[int, _Sums] = {}
    decisions: dict[int, list[bool]] = {}
    samples = 0
    for number, (wanted, found) in enumerate(_both(reference, candidate)):
        problem = mismatch(wanted, found)
        if problem:
            raise WorkerFailure(problem[0], f"call {number}: {problem[1]}")
        axes = batch_axes if batch_axes is not None else [0] * len(wanted)
        samples += _count(wanted, axes)
        for place, (r, c) in enumerate(zip(wanted, found, strict=True)):
            axis = axes[place] if r.ndim else None
            sums.setdefault(place, _Sums()).add(r, c, axis)
            decided = same_decisions(r, c, axis)
            if decided is not None:
                decisions.setdefault(place, []).extend(decided.tolist())
    if not sums:
        raise WorkerFailure(Outcome.WRONG_OUTPUT, "there are no outputs to compare")
    first = decisions[min(decisions)] if decisions else []
    hits = sum(first)
    return Fidelity(
        sqnr_db=min(decibels(one.signal, one.noise) for one in sums.values()),
        cosine=min(_cosine(one) for one in sums.values()),
        worst_sample_sqnr_db=min(one.worst_db for one in sums.values()),
        agreement=hits / len(first) if first else None,
        agreement_low=stats.clopper_pearson_low(hits, len(first)) if first else None,
        samples=samples,
    )


def mismatch(reference: Sequence[Tensor], candidate: Sequence[Tensor]) -> tuple[Outcome, str] | None:
    """Why one call's outputs cannot be right whatever their values: number, shape, dtype, NaN or infinity."""
    if len(reference) != len(candidate):
        return Outcome.WRONG_OUTPUT, f"{len(candidate)} output tensors; the original has {len(reference)}"
    for place, (r, c) in enumerate(zip(reference, candidate, strict=True)):
        if r.shape != c.shape:
            return Outcome.WRONG_OUTPUT, f"output {place} has shape {list(c.shape)}; the original's is {list(r.shape)}"
        if r.dtype != c.dtype:
            return Outcome.WRONG_OUTPUT, f"output {place} has dtype {c.dtype}; the original's is {r.dtype}"
        if not bool((torch.isfinite(c) | (c == r) | (c.isnan() & r.isnan())).all()):
            return Outcome.NONFINITE, f"output {place} has NaN or infinity where the original has not"
    return None


def same_decisions(reference: Tensor, candidate: Tensor, axis: int | None) -> Tensor | None:
    """For each sample, whether its decision is the reference's; None for an output that decides nothing.

    A decision is the class of the highest score in [samples, classes], or the integers themselves.
    """
    if axis is None or reference.ndim == 0:
        return None
    r, c = reference.movedim(axis, 0), candidate.movedim(axis, 0)
    if not r.is_floating_point():
        return (r == c).reshape(r.shape[0], -1).all(1) if r.shape[0] else None
    if r.ndim != 2 or r.shape[1] < 2:
        return None
    r, c = r.double(), c.double()
    best = r.topk(2, dim=1).values
    ties = best[:, 0] - best[:, 1] <= TIE_MARGIN * r.abs().amax(1)
    chosen = r.gather(1, c.argmax(1, keepdim=True)).squeeze(1)
    among_best = best[:, 0] - chosen <= TIE_MARGIN * r.abs().amax(1)
    return (r.argmax(1) == c.argmax(1)) | (ties & among_best)


def decisions_of(
    reference: Iterable[Sequence[Tensor]],
    candidate: Iterable[Sequence[Tensor]],
    batch_axes: Sequence[int | None],
    gains: Sequence[float] | None = None,
) -> Decisions | None:
    """Which decisions changed, by class; None where the first deciding output gives no classes.

    `gains` has one number a sample: how much the candidate's score is above the original's, where there is a metric.
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    place: int | None = None
    for wanted, found in _both(reference, candidate):
        if place is None:
            place = next((i for i, r in enumerate(wanted) if _decides(r, batch_axes[i])), None)
        if place is None:
            return None
        axis = batch_axes[place] or 0
        same = same_decisions(wanted[place], found[place], axis)
        assert same is not None
        kept.append((_classes(wanted[place], axis), _classes(found[place], axis), same))
    if not kept:
        return None
    before, after, same = (torch.cat(parts) for parts in zip(*kept, strict=True))
    changes = None if gains is None or len(gains) != len(before) else torch.as_tensor(gains, dtype=torch.float64)
    flips = []
    for pair, count in Counter(zip(before[~same].tolist(), after[~same].tolist(), strict=True)).most_common():
        chosen = ~same & (before == pair[0]) & (after == pair[1])
        better, worse = (
            (None, None) if changes is None else (int((changes[chosen] > 0).sum()), int((changes[chosen] < 0).sum()))
        )
        flips.append(Flip(*pair, count, better, worse))
    return Decisions(tuple(sorted(Counter(before.tolist()).items())), tuple(flips))


def _decides(output: Tensor, axis: int | None) -> bool:
    """Whether an output has one class a sample: scores of each, or the class itself."""
    if axis is None or output.ndim == 0:
        return False
    return output.ndim == 2 and output.shape[1] > 1 if output.is_floating_point() else output.ndim == 1


def _classes(output: Tensor, axis: int) -> Tensor:
    output = output.movedim(axis, 0)
    return output.argmax(1) if output.is_floating_point() else output.long()


def judge_fidelity(fidelity: Fidelity, margin: float) -> Quality:
    """The verdict without labels: HELD when at most `margin` of the decisions differ and the SQNR is 20 dB or more.

    It rests on agreement with the original on these samples: it can reject a candidate, and it certifies nothing about
    the task; the basis says so. Without a decision to compare, only the SQNR speaks.

    >>> judge_fidelity(Fidelity(42.0, 0.9999, 30.0, 1.0, 0.99, 300), 0.01).verdict.value
    'HELD'
    """
    differing = None if fidelity.agreement is None else 1 - fidelity.agreement
    reasons = []
    if fidelity.sqnr_db < LEAST_SQNR_DB:
        reasons.append(f"SQNR {fidelity.sqnr_db:.1f} dB is below {LEAST_SQNR_DB:g} dB")
    if differing is not None and differing > margin + 1e-12:
        reasons.append(f"{differing:.2%} of the decisions differ from the original's; the budget is {margin:.2%}")
    held = f"SQNR {fidelity.sqnr_db:.1f} dB" + ("" if differing is None else f", {differing:.2%} of decisions differ")
    return Quality(
        verdict=QualityVerdict.NOT_HELD if reasons else QualityVerdict.HELD,
        basis=BASIS,
        samples=fidelity.samples,
        margin=margin,
        fidelity=fidelity,
        reason="; ".join(reasons) or held,
    )


def referee(
    reference64: Iterable[Sequence[Tensor]],
    eager: Iterable[Sequence[Tensor]],
    candidate: Iterable[Sequence[Tensor]],
    batch_axes: Sequence[int | None] | None = None,
) -> tuple[bool, str]:
    """Whether a candidate that may only round is right, by outputs that were computed in float64; and the reason.

    For each output RMSE(candidate, ref64) <= 2 RMSE(eager, ref64) + tol / 10, the rule of PyTorch's own compiler
    benchmarks (torch/_dynamo/utils.py, `same`), with tol the dtype's tolerance times the root mean square of the
    reference: two roundings of equal right may differ by eager's own error, and neither is the truth. So that a few
    wrong samples do not hide in many right ones, each sample's error must be within 10 times the largest of eager's
    samples plus that tolerance (relative to the larger of its own and the mean scale). Integer outputs must be eager's.
    """
    exact, plain, found = list(reference64), list(eager), list(candidate)
    for number, (wanted, got) in enumerate(_both(plain, found)):
        problem = mismatch(wanted, got)
        if problem:
            return False, f"call {number}: {problem[1]}"
    if len(exact) != len(plain):
        return False, f"{len(plain)} calls to compare with {len(exact)} references"
    for place in range(len(plain[0]) if plain else 0):
        axis = 0 if batch_axes is None else batch_axes[place]
        reason = _referee_output(
            [(e[place], p[place], f[place]) for e, p, f in zip(exact, plain, found, strict=True)], axis
        )
        if reason:
            return False, f"output {place}: {reason}"
    return True, "within twice the original's own rounding error"


def decibels(signal: float, noise: float) -> float:
    """SQNR of a signal's and a noise's energy: 10 log10(signal / noise); infinite without noise.

    >>> decibels(100.0, 1.0)
    20.0
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _referee_output(calls: list[tuple[Tensor, Tensor, Tensor]], axis: int | None) -> str | None:
    """Why one output is wrong; None when it is right."""
    if not calls[0][1].is_floating_point():
        return None if all(torch.equal(p, f) for _, p, f in calls) else "integers differ from the original's"
    tolerance = TOLERANCE.get(calls[0][1].dtype, 1e-4) / 10
    eager = _errors([(e, p) for e, p, _ in calls], axis)
    found = _errors([(e, f) for e, _, f in calls], axis)
    scale = math.sqrt(eager.signal / max(eager.count, 1))
    own, error = eager.rmse, found.rmse
    if error > REFEREE_FACTOR * own + tolerance * scale:
        return (f"its error against float64 is {error:.3g}; allowed are {REFEREE_FACTOR:g} times the original's "
                f"{own:.3g} and {tolerance * scale:.3g}")  # fmt: skip
    worst = max(eager.samples, default=(0.0, 0.0))[0]
    for number, (sample_error, sample_scale) in enumerate(found.samples):
        allowed = SAMPLE_FACTOR * (worst + tolerance * max(scale, sample_scale))
        if sample_error > allowed:
            return f"sample {number} has an error of {sample_error:.3g} against float64; allowed are {allowed:.3g}"
    return None


@dataclasses.dataclass(frozen=True)
class _Errors:
    """Squared sums over all calls, and (error, scale) as root mean squares of each sample."""

    noise: float
    signal: float
    count: int
    samples: list[tuple[float, float]]

    @property
    def rmse(self) -> float:
        """The root mean square of all errors."""
        return math.sqrt(self.noise / max(self.count, 1))


def _errors(pairs: Iterable[tuple[Tensor, Tensor]], axis: int | None) -> _Errors:
    noise = signal = 0.0
    count = 0
    samples: list[tuple[float, float]] = []
    for exact, other in pairs:
        r, c = _comparable(exact, other)
        noise += float(((r - c) ** 2).sum())
        signal += float((r * r).sum())
        count += r.numel()
        each = _per_sample(r, c, axis if r.ndim else None)
        size = max(1, r.numel() // max(1, len(each)))
        samples += [(math.sqrt(n / size), math.sqrt(s / size)) for s, n in each]
    return _Errors(noise, signal, count, samples)


def _comparable(reference: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, with zeros where both are the same NaN or infinity."""
    r, c = reference.double(), candidate.double()
    strange = ~(torch.isfinite(r) & torch.isfinite(c))
    if bool(strange.any()):
        r, c = r.masked_fill(strange, 0.0), c.masked_fill(strange, 0.0)
    return r, c


def _per_sample(reference: Tensor, candidate: Tensor, axis: int | None) -> list[tuple[float, float]]:
    """Energies of signal and noise of each sample."""
    if axis is None or reference.ndim == 0:
        r, c = reference.reshape(1, -1), candidate.reshape(1, -1)
    else:
        r, c = (t.movedim(axis, 0).unsqueeze(-1).flatten(1) for t in (reference, candidate))
    signal, noise = (r * r).sum(1), ((r - c) ** 2).sum(1)
    return list(zip(signal.tolist(), noise.tolist(), strict=True))


def _cosine(sums: _Sums) -> float:
    if sums.signal == 0 or sums.power == 0:
        return 1.0 if sums.signal == sums.power else 0.0
    return max(-1.0, min(1.0, sums.product / math.sqrt(sums.signal * sums.power)))


def _count(outputs: Sequence[Tensor], axes: Sequence[int | None]) -> int:
    for tensor, axis in zip(outputs, axes, strict=True):
        if axis is not None and tensor.ndim:
            return tensor.shape[axis]
    return 1


def _both(
    reference: Iterable[Sequence[Tensor]], candidate: Iterable[Sequence[Tensor]]
) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """Call by call; a missing or extra call is a wrong output."""
    missing: Sequence[Tensor] = ()
    wanted, found = iter(reference), iter(candidate)
    while True:
        r, c = next(wanted, missing), next(found, missing)
        if r is missing and c is missing:
            return
        if r is missing or c is missing:
            raise WorkerFailure(Outcome.WRONG_OUTPUT, "the number of calls differs from the original's")
        yield r, c
