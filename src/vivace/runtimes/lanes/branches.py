"""Which operators of a graph are branches that need nothing of each other, and which thread takes each branch whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx
from torch.export import ExportedProgram

from vivace.runtimes import eager
from vivace.runtimes.lanes.run import needs_of, operators_of

SHARED = "-"
"""In the place of a lane's digit: all threads share the operator."""
UNEVEN = 1.25
"""A thread's branches may be so many times an even share of their work; else all threads share each operator."""


def told(program: ExportedProgram, work: Mapping[str, float], count: int) -> str:
    """The branches of a graph on `count` threads as one text, a sign for each operator: the digit of the thread that
    takes it alone, or `SHARED`. `work` is what each operator takes, by its name. A bidirectional LSTM or GRU is shared,
    and its directions are the branches. Empty where there are none."""
    nodes = operators_of(eager.copied_graph(program))
    lanes = branches([work.get(node.name, 0) for node in nodes], needs_of(nodes), count)
    if not any(map(_is_two_way, nodes)) and set(lanes) == {None}:
        return ""
    return "".join(SHARED if lane is None else str(lane) for lane in lanes)


def _is_two_way(node: fx.Node) -> bool:
    """Whether it is an LSTM or GRU that reads its steps in both directions."""
    return getattr(node.target, "_opname", "") in ("lstm", "gru") and len(node.args) > 7 and node.args[7] is True


def branches(work: Sequence[float], needs: Sequence[Sequence[int]], count: int) -> list[int | None]:
    """The lane, of `count`, of each operator; None for those that all threads share.

    Operators come after what they `need`; `work` is what each takes, in any unit. The graph is cut where it is narrow:
    at operators that every other one with work either needs or is needed by. Between two cuts, operators that are not
    connected are branches; the largest goes first to the lane that has least. Sums of branches that follow one another
    (work 0) do not connect them.

    Source: longest processing time first; Graham, SIAM J. Appl. Math. 17, 1969.

    >>> branches([1, 5, 4, 0, 2], [[], [0], [0], [1, 2], [3]], 2)
    [None, 0, 1, None, None]
    """
    before, after = _reached(needs)
    busy = sum(1 << one for one, amount in enumerate(work) if amount > 0)
    narrow = [busy & ~(before[one] | after[one] | 1 << one) == 0 for one in range(len(needs))]
    parts: dict[int, list[int]] = {}
    cuts = sum(1 << one for one, is_cut in enumerate(narrow) if is_cut)
    for one in range(len(needs)):
        if not narrow[one]:
            parts.setdefault(before[one] & cuts, []).append(one)
    found: list[int | None] = [None] * len(needs)
    for part in parts.values():
        ends = {one for one in part if not busy & (after[one] | 1 << one) & sum(1 << other for other in part)}
        for members in (part, [one for one in part if one not in ends]):
            lanes = _spread(members, work, needs, count)
            if lanes:
                for one, lane in lanes.items():
                    found[one] = lane
                break
    return found


def _reached(needs: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """The operators that each one needs, and those that need it, at any distance: a bit for each."""
    before, after = [0] * len(needs), [0] * len(needs)
    for one, given in enumerate(needs):
        for other in given:
            before[one] |= before[other] | 1 << other
    for one in reversed(range(len(needs))):
        for other in needs[one]:
            after[other] |= after[one] | 1 << one
    return before, after


def _spread(
    members: Sequence[int], work: Sequence[float], needs: Sequence[Sequence[int]], count: int
) -> dict[int, int]:
    """The lanes of some operators; none where they are connected, or too uneven to be worth it."""
    groups: dict[int, list[int]] = {}
    of: dict[int, int] = {}
    for one in members:
        linked = {of[other] for other in needs[one] if other in of}
        whole = sorted({other for group in linked for other in groups.pop(group)} | {one})
        groups[whole[0]] = whole
        of |= dict.fromkeys(whole, whole[0])
    amounts = {group: sum(work[one] for one in whole) for group, whole in groups.items()}
    taken, lanes = [0.0] * count, dict[int, int]()
    for group in sorted(groups, key=lambda one: (-amounts[one], one)):
        lane = taken.index(min(taken))
        taken[lane] += amounts[group]
        lanes |= dict.fromkeys(groups[group], lane)
    return lanes if max(taken) * count <= UNEVEN * sum(taken) and sum(taken) > 0 else {}
