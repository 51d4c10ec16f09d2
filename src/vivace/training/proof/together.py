"""A proof in the midst of a training of several processes: whether each could do its part, and what each found."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from torch import nn

from vivace.core.training.parity import Agreement, Kind
from vivace.core.training.rig import Ranks
from vivace.training.agreement import FLOOR


class Unproved(Exception):
    """Why a step cannot be compared here."""


@contextlib.contextmanager
def agreed(ranks: Ranks | None, what: str) -> Iterator[None]:
    """Something that each process does by itself, the user's code among it. Where it fails in one of them, all raise
    Unproved here, so that none waits for another in what they do together next."""
    reason = ""
    try:
        yield
    except Unproved as why:
        reason = str(why)
    except Exception as error:  # noqa: BLE001  the user's code may raise anything, and the training must not end by a proof
        reason = f"{what}: {type(error).__name__}: {error}"
    reasons = [reason] if ranks is None else [one["reason"] for one in ranks.told_by_all({"reason": reason})]
    first = next((rank for rank, told in enumerate(reasons) if told), None)
    if first is not None:
        raise Unproved(reasons[first] if len(set(reasons)) == 1 else f"rank {first}: {reasons[first]}")


def of_all(ranks: Ranks | None, found: Sequence[Agreement]) -> list[Agreement]:
    """What this process found, and what others found not to hold where this one sees nothing."""
    if ranks is None:
        return list(found)
    told = ranks.told_by_all({"off": [one for one in found if not one.holds]})
    seen = {(one.kind, one.name) for one in found if not one.holds}
    others = []
    for rank, theirs in enumerate(told):
        for one in theirs["off"]:
            if (one.kind, one.name) not in seen:
                seen.add((one.kind, one.name))
                others.append(dataclasses.replace(one, name=f"{one.name} on rank {rank}"))
    return [*found, *others]


def copies(ranks: Ranks, model: nn.Module, steps: int) -> list[Agreement]:
    """The tensors that are to be the same in several processes, and have come apart by more than what rounding adds up
    to in so many steps, as a walk at random does."""
    allowed = FLOOR * max(1, steps) ** 0.5
    return [
        Agreement(
            Kind.COPY, f"{name} on rank {rank}", steps, 0.0, apart, 0.0, allowed,
            f"it is {apart:.2g} of its norm away from that of the first process that holds it",
        )
        for name, rank, apart in ranks.strayed(model) if not apart <= allowed
    ]  # fmt: skip
