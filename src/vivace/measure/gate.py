"""The gate of quality: HELD, NOT HELD or CANNOT TELL for the drop of a mean score, from paired per-sample scores.

A score is higher when better. 0/1 scores without groups are judged by Tango's score test, everything else by a paired
bootstrap, of whole groups where samples are grouped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vivace.core.errors import UsageError
from vivace.core.quality import Gate, Quality, QualityVerdict
from vivace.measure import stats

ALPHA = 0.05
POWER = 0.80
RESAMPLES = 4000
SEED = 1337
MOST_TIMES = 100
"""As many samples as there are; how many would decide is not told above this."""
FEWEST_UNITS = 30
"""Independent samples (or groups) below which a bootstrap's error is not controlled."""
FEWEST_CHANGES = 5
"""Units that must differ between the arms before a bootstrap of the differences means anything."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """One-sided bounds of the drop, each with error alpha, and the standard deviation of a unit's difference."""

    low: float
    high: float
    deviation: float
    basis: str
    units: int


def judge_scores(
    baseline_scores: Any,
    candidate_scores: Any,
    margin: float,
    *,
    gate: Gate = Gate.STRICT,
    groups: Sequence[Any] | None = None,
    alpha: float = ALPHA,
) -> Quality:
    """Whether the candidate's mean score is at most `margin` below the baseline's, on data like these.

    Scores are one per sample, in the same order for both. HELD when the one-sided upper bound of the drop (error
    `alpha`) is below the margin, NOT HELD when its lower bound is above it, else CANNOT TELL with the number of samples
    that would decide. `groups` names each sample's group (a speaker, a document) where samples are not independent.
    Gate.POINT compares the means alone and says so.

    With a margin of 0 only a candidate that is certainly better is HELD: a drop of exactly nothing cannot be certified
    from samples, however many, since the next one may differ.

    Raises UsageError when scores are not finite, are none, or differ in number, or the margin is negative.

    >>> judge_scores([1] * 400, [1] * 400, 0.01).verdict.value
    'HELD'
    >>> judge_scores([1] * 100, [1] * 100, 0.01).samples_needed
    619
    """
    baseline, candidate = _paired(baseline_scores, candidate_scores)
    if not (math.isfinite(margin) and margin >= 0):
        raise UsageError(f"the margin is {margin}; allowed is a finite number of 0 or more")
    if gate is Gate.POINT:
        return _judge_point(baseline, candidate, margin)
    bounds = _bounds(baseline, candidate, groups, alpha)
    verdict = _verdict(bounds, margin)
    is_open = verdict is QualityVerdict.CANNOT_TELL
    hoped = _samples_hoped(bounds, margin, baseline.size, alpha) if is_open else None
    needed = None if hoped is None else _samples_needed(bounds, margin, baseline.size, hoped)
    return dataclasses.replace(
        _judge_point(baseline, candidate, margin),
        verdict=verdict,
        basis=bounds.basis,
        drop_upper=bounds.high if math.isfinite(bounds.high) else None,
        samples_needed=needed,
        samples_hoped=hoped,
        reason=_reason(verdict, bounds, margin, needed, alpha),
    )


def check_scores(scores: Any, samples: int) -> torch.Tensor:
    """A metric's answer as a vector of `samples` finite float64 scores.

    Accepts tensors, arrays, numbers and lists of numbers or bools; a shape such as [samples, 1] counts as one score
    per sample. Raises UsageError for the wrong number, for NaN and infinity, and for what is not numeric.

    >>> check_scores([True, False], 2).tolist()
    [1.0, 0.0]
    """
    try:
        found = torch.as_tensor(scores).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"metric returned a {type(scores).__name__} that is not numbers ({error}); allowed is one score per "
            "sample, as a tensor, an array or a list"
        ) from error
    if found.numel() != samples or (found.ndim > 0 and samples > 0 and found.shape[0] not in (samples, 1)):
        raise UsageError(
            f"metric returned {_shown(found)} for {samples} samples; allowed is one score per sample, so do not "
            "average inside the metric"
        )
    found = found.reshape(-1)
    bad = int((~torch.isfinite(found)).sum())
    if bad:
        first = int((~torch.isfinite(found)).nonzero()[0])
        raise UsageError(
            f"metric returned {bad} scores that are NaN or infinite, the first for sample {first}; allowed are finite "
            "numbers, so check the metric for a division by zero or a logarithm of zero"
        )
    return found


def tango_z(harmed: int, helped: int, samples: int, margin: float) -> float:
    """Tango's score statistic for the hypothesis that the drop of a proportion is `margin`, from paired 0/1 scores.

    `harmed` = b: baseline right and candidate wrong; `helped` = c: the reverse. With q the restricted estimate of the
    probability of help, z = (b - c - n m) / sqrt(n (2 q + m (1 - m))),
    q = (-B + sqrt(B^2 - 4 A C)) / (2 A), A = 2 n, B = -b - c + (2 n - b + c) m, C = -c m (1 - m).
    Far below 0 means that the drop is smaller than the margin. Source: Tango, Statistics in Medicine 17, 1998.

    >>> round(tango_z(0, 0, 300, 0.01), 3)
    -1.741
    """
    b, c, n, m = harmed, helped, samples, margin
    big_b = -b - c + (2 * n - b + c) * m
    big_c = -c * m * (1 - m)
    q = (-big_b + math.sqrt(max(0.0, big_b * big_b - 8 * n * big_c))) / (4 * n)
    variance = n * (2 * q + m * (1 - m))
    numerator = b - c - n * m
    if variance <= 1e-12:
        return math.copysign(math.inf, numerator) if numerator else 0.0
    return numerator / math.sqrt(variance)


def drop_bounds(harmed: int, helped: int, samples: int, alpha: float = ALPHA) -> tuple[float, float]:
    """One-sided bounds of the drop of a proportion, low and high, each with error alpha: Tango's test inverted.

    Where every flip is harmful (or every one helps), the drop is a plain proportion, for which the score test errs by
    up to 7% at a nominal 5%; the exact bound (Clopper-Pearson) replaces it there if it is wider. For no flip at all it
    is the exact one alone, 1 - alpha**(1/n): 299 samples for a margin of one point, 408 with a third of the error.
    """
    if harmed == helped == 0:
        unseen = stats.clopper_pearson_high(0, samples, alpha)
        return -unseen, unseen
    critical = stats.normal_quantile(1 - alpha)
    high = stats.bisect(lambda m: -critical - tango_z(harmed, helped, samples, m), -1.0, 1.0)
    low = stats.bisect(lambda m: critical - tango_z(harmed, helped, samples, m), -1.0, 1.0)
    if helped == 0:
        high = max(high, stats.clopper_pearson_high(harmed, samples, alpha))
        low = min(low, stats.clopper_pearson_low(harmed, samples, alpha))
    if harmed == 0:
        high = max(high, -stats.clopper_pearson_low(helped, samples, alpha))
        low = min(low, -stats.clopper_pearson_high(helped, samples, alpha))
    return low, high


def bootstrap_bounds(
    differences: Array, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """One-sided BCa bootstrap bounds of the mean of independent differences.

    Source: Efron, Better bootstrap confidence intervals, JASA 82, 1987, with the jackknife's acceleration.
    """
    weights = np.ones_like(differences)
    return _bca(differences, weights, alpha, resamples, seed)


def _bca(sums: Array, counts: Array, alpha: float, resamples: int, seed: int) -> tuple[float, float]:
    """BCa bounds of sum(sums) / sum(counts), units resampled whole."""
    total = float(sums.sum() / counts.sum())
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, 2_000_000 // sums.size)
    for start in range(0, resamples, step):
        chosen = generator.integers(0, sums.size, (min(step, resamples - start), sums.size))
        means[start : start + step] = sums[chosen].sum(1) / counts[chosen].sum(1)
    below = (np.sum(means < total) + 0.5 * np.sum(means == total)) / resamples
    if not 0 < below < 1:
        return total, total
    bias = stats.normal_quantile(float(below))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    deviation = left_out.mean() - left_out
    scale = 6 * float((deviation**2).sum()) ** 1.5
    acceleration = float((deviation**3).sum()) / scale if scale > 0 else 0.0
    ends = [_bca_level(bias, acceleration, z) for z in (stats.normal_quantile(alpha), stats.normal_quantile(1 - alpha))]
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def _bca_level(bias: float, acceleration: float, z: float) -> float:
    """Which quantile of the resampled means is the bound."""
    shifted = bias + (bias + z) / (1 - acceleration * (bias + z))
    return 0.5 * math.erfc(-shifted / math.sqrt(2))


def _paired(baseline_scores: Any, candidate_scores: Any) -> tuple[Array, Array]:
    baseline = torch.as_tensor(baseline_scores)
    first = check_scores(baseline, baseline.numel()).numpy()
    if not first.size:
        raise UsageError("there is no score to judge by; give data with at least one sample")
    return first, check_scores(candidate_scores, first.size).numpy()


def _judge_point(baseline: Array, candidate: Array, margin: float) -> Quality:
    drop = float(np.mean(baseline - candidate))
    held = drop <= margin
    return Quality(
        verdict=QualityVerdict.HELD if held else QualityVerdict.NOT_HELD,
        basis="point estimate: the means compared, without a bound",
        samples=int(baseline.size),
        margin=margin,
        baseline=float(baseline.mean()),
        candidate=float(candidate.mean()),
        drop=drop,
        reason=f"drop {drop:.4g} is {'within' if held else 'above'} the budget {margin:.4g} (point estimate only)",
    )


def _bounds(baseline: Array, candidate: Array, groups: Sequence[Any] | None, alpha: float) -> _Bounds:
    zero_one = bool(np.isin(baseline, (0.0, 1.0)).all() and np.isin(candidate, (0.0, 1.0)).all())
    if not zero_one or groups is not None:
        return _bootstrap(baseline, candidate, groups, alpha)
    harmed = int(np.sum(baseline > candidate))
    helped = int(np.sum(candidate > baseline))
    low, high = drop_bounds(harmed, helped, baseline.size, alpha)
    flips = (harmed + helped + 1) / baseline.size
    basis = f"Tango's score test ({harmed} harmed, {helped} helped of {baseline.size} samples)"
    return _Bounds(low, high, math.sqrt(flips), basis, int(baseline.size))


def _bootstrap(baseline: Array, candidate: Array, groups: Sequence[Any] | None, alpha: float) -> _Bounds:
    sums, counts = _units(baseline - candidate, groups)
    low, high = _bca(sums, counts, alpha, RESAMPLES, SEED)
    changed = int(np.count_nonzero(sums))
    if changed < FEWEST_CHANGES:
        # An unseen unit may lose as much as the scores seen are apart; this many unseen ones have probability alpha.
        unseen = (1 - alpha ** (1 / sums.size)) * float(np.ptp(np.concatenate([baseline, candidate])))
        low, high = low - unseen, high + unseen
    if sums.size < FEWEST_UNITS:
        low, high = -math.inf, math.inf
    deviation = float(np.std(sums / counts.mean(), ddof=1)) if sums.size > 1 else math.inf
    kind = "paired bootstrap (BCa)" if groups is None else f"paired bootstrap of {sums.size} groups (BCa)"
    return _Bounds(low, high, deviation, kind, int(sums.size))


def _units(differences: Array, groups: Sequence[Any] | None) -> tuple[Array, Array]:
    """Sums of differences and numbers of samples, one a unit: a sample, or a group."""
    if groups is None:
        return differences, np.ones_like(differences)
    if len(groups) != differences.size:
        raise UsageError(f"received {len(groups)} groups for {differences.size} samples; allowed is one per sample")
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums = np.bincount(index, weights=differences).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _verdict(bounds: _Bounds, margin: float) -> QualityVerdict:
    if bounds.high < margin:
        return QualityVerdict.HELD
    if bounds.low > margin:
        return QualityVerdict.NOT_HELD
    return QualityVerdict.CANNOT_TELL


def _samples_hoped(bounds: _Bounds, margin: float, samples: int, alpha: float) -> int | None:
    """How many samples would decide with a power of 80% if the true drop is 0; None with a margin of 0.

    n = (z_alpha + z_power)^2 s^2 / m^2 with s the deviation of a difference (for 0/1 scores s^2 is the share of flips,
    one added), at least what zero flips take, ln(alpha) / ln(1 - m), and always more than there are.
    """
    if margin == 0 or not math.isfinite(bounds.deviation):
        return None
    z = stats.normal_quantile(1 - alpha) + stats.normal_quantile(POWER)
    by_power = math.ceil((z * bounds.deviation / margin) ** 2 * samples / bounds.units)
    by_zero = math.ceil(math.log(alpha) / math.log1p(-margin)) if margin < 1 else 1
    by_units = math.ceil(FEWEST_UNITS * samples / bounds.units)
    return max(by_power, by_zero, by_units if bounds.units < FEWEST_UNITS else 0, samples + 1)


def _samples_needed(bounds: _Bounds, margin: float, samples: int, hoped: int) -> int | None:
    """How many samples like these leave the margin outside of what they tell, at least as many as are hoped for; None
    where the drop is so near to the margin that a hundred times as many would not.

    n = N (w / (m - d))^2 with d the middle and w half the width of what N samples tell of the drop.
    """
    if not math.isfinite(bounds.low) or not math.isfinite(bounds.high):
        return hoped
    middle, half = (bounds.low + bounds.high) / 2, (bounds.high - bounds.low) / 2
    if abs(margin - middle) * math.sqrt(MOST_TIMES) <= half:
        return None
    return max(hoped, math.ceil(samples * (half / (margin - middle)) ** 2))


def _reason(verdict: QualityVerdict, bounds: _Bounds, margin: float, needed: int | None, alpha: float) -> str:
    sure = f"{1 - alpha:.3g}"
    if verdict is QualityVerdict.HELD:
        return f"the drop is below {bounds.high:.4g} with confidence {sure}; the budget is {margin:.4g}"
    if verdict is QualityVerdict.NOT_HELD:
        return f"the drop is above {bounds.low:.4g} with confidence {sure}; the budget is {margin:.4g}"
    between = f"the drop is between {bounds.low:.4g} and {bounds.high:.4g}, and the budget is {margin:.4g}"
    if margin == 0:
        return f"{between}: no number of samples certifies a drop of exactly nothing; give a budget above 0"
    if needed:
        return f"{between}; about {needed} samples like these would decide"
    return f"{between}, too near for any number of samples" if math.isfinite(bounds.deviation) else between


def _shown(found: torch.Tensor) -> str:
    return f"{found.numel()} scores" if found.ndim < 2 else f"a tensor of shape {list(found.shape)}"
