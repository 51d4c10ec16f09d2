"""`vivace optimize --dry-run`: which plans would compete, without building or timing any."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivace.api.request import machine_of, names_native, offered, options_of
from vivace.core.plan import Plan
from vivace.core.workload import Workload
from vivace.devices.roofline import predicted_seconds
from vivace.search.prepare import prepare
from vivace.search.rank import Ranking
from vivace.search.space import check_usable, space_of


@dataclasses.dataclass(frozen=True)
class Preview:
    """What `preview` found: plans in the order in which they look promising, with PREDICTED speed-ups."""

    name: str
    plans: tuple[tuple[Plan, float], ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def preview(
    work: Workload,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    native: bool = False,
    fixed_shapes: bool = False,
    device: str = "auto",
) -> Preview:
    """The plans that `optimize` would begin with, most promising first; nothing is built or timed."""
    options = options_of(work, only=only, without=without)
    machine = machine_of(device)
    with tempfile.TemporaryDirectory(prefix="vivace-") as folder:
        prepared = prepare(work, Path(folder), fixed_shapes=fixed_shapes, native=native or names_native(options))
        space = space_of(prepared.work, offered(machine, device), options.known, options.only, options.without)
        check_usable(space, options.only)
        ranking = Ranking(prepared.work.cost, lambda cost: predicted_seconds(cost, machine))
        original = ranking.predicted_seconds(Plan())
        plans = ranking.ordered({*space.seeds(), *space.neighbours(Plan())})
        return Preview(
            work.name,
            tuple((plan, original / ranking.predicted_seconds(plan)) for plan in plans),
            space.left_out,
            prepared.notes,
        )
