"""Words for the proofs in the midst of a training: how many there were, and for which steps they speak."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.core.quality import QualityVerdict
from vivace.core.training.proofs import LaterProof
from vivace.report.duration import show_duration
from vivace.report.html.words import plural


def later_words(proofs: Sequence[LaterProof], unproved: str) -> list[str]:
    """What proofs of the run's own steps said, one sentence for each thing to know; none where there were none.

    >>> proof = LaterProof("bfloat16", 40, 0, QualityVerdict.HELD, "", "float64", 8, None, 0.1)
    >>> later_words([proof], "")
    ["a step of the run's own was proved again once, the last time after step 40: HELD (0.1s in all)"]
    """
    told = []
    if proofs:
        last, times = proofs[-1], "once" if len(proofs) == 1 else plural(len(proofs), "time")
        seconds = show_duration(sum(one.seconds for one in proofs))
        told.append(
            f"a step of the run's own was proved again {times}, the last time after step {last.step}: "
            f"{last.verdict.value} ({seconds} in all)"
        )
    failed = [one for one in proofs if one.verdict is QualityVerdict.NOT_HELD]
    told += [f"steps {one.since + 1} to {one.step} with {one.plan} did not hold: {one.reason}" for one in failed]
    return [*told, *([unproved] if unproved else [])]
