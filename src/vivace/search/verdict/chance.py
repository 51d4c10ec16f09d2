"""How likely the confirm part certifies what the select part has seen. It orders finalists, and decides nothing."""

from __future__ import annotations

import math

from vivace.core.quality import Quality, QualityVerdict
from vivace.measure.stats import normal_quantile

SELECT_ALPHA = 0.05
"""The error of the upper bound that a verdict on the select part holds."""
HELD_AGAIN, UNDECIDED = 0.95, 0.5
"""Guesses where there is no bound: for a plan that the select part held, and for one that it left undecided."""


def chance_of(quality: Quality | None, samples: int, alpha: float) -> float:
    """The probability of HELD on `samples` samples with the error `alpha`, given the verdict on the select part.

    P = Phi((margin - drop - z_alpha s') / sqrt(s^2 + s'^2))

    s is the standard error of the select part's drop, from its bound; s' that of the confirm part, smaller or larger by
    the square root of the samples. Without a bound (fidelity) a guess.

    >>> seen = Quality(QualityVerdict.HELD, "Tango", 400, margin=0.01, drop=0.0, drop_upper=0.005)
    >>> round(chance_of(seen, 400, 0.05), 2), round(chance_of(seen, 400, 0.05 / 3), 2)
    (0.88, 0.79)
    """
    if quality is None or quality.drop is None or quality.drop_upper is None:
        return HELD_AGAIN if quality is None or quality.verdict is QualityVerdict.HELD else UNDECIDED
    seen = max(quality.drop_upper - quality.drop, 1e-9) / normal_quantile(1 - SELECT_ALPHA)
    to_come = seen * math.sqrt(quality.samples / max(samples, 1))
    room = quality.margin - quality.drop - normal_quantile(1 - alpha) * to_come
    return 0.5 * (1 + math.erf(room / math.hypot(seen, to_come) / math.sqrt(2)))
