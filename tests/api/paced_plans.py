"""Techniques whose programs take a known time: one that gains, and one that the race alone sees to gain."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import store

ORIGINAL_SECONDS, QUICK_SECONDS, LUCKY_SECONDS, IN_TRUTH_SECONDS = 0.010, 0.004, 0.0035, 0.0043
"""Of a call: of the original, with `quick`, and with a lucky technique beside it, in its race and ever after."""
HELD = "opened"


@dataclasses.dataclass(frozen=True)
class Paced(Technique):
    """Leaves the program as it is; `open_paced` makes its calls last as long as the plan says."""

    family, effect, source = Family.SYSTEM, Effect.EXACT, "toy"
    needs = frozenset({Fact.RUNNABLE})
    program_entry: ClassVar[str] = "api.paced_plans:open_paced"

    def rewrite(self, cost: Cost) -> Cost:
        return cost.replace(operator_seconds=cost.operator_seconds * 0.9, efficiency=min(1.0, cost.efficiency * 1.2))

    def apply(self, model: Model, work: Work) -> Model:
        return model


@dataclasses.dataclass(frozen=True)
class Quick(Paced):
    """Gains."""

    stage = Stage.COMPILE


@dataclasses.dataclass(frozen=True)
class LuckyFirst(Paced):
    """Looks faster beside `quick` in the race, and is slower."""

    stage = Stage.PARALLEL


@dataclasses.dataclass(frozen=True)
class LuckySecond(LuckyFirst):
    """Another of its kind."""


KINDS = (Quick, LuckyFirst, LuckySecond)


def open_paced(arguments: Mapping[str, Any], payload: object | None = None) -> Callable[..., Any]:
    """Worker entry: the program, whose calls sleep as long as its plan says."""
    folder = Path(arguments["folder"])
    program: Callable[..., Any] = store.load(folder, True)
    seconds = _seconds({entry["technique"] for entry in arguments["plan"]}, folder)

    def run(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return program(*args, **kwargs)

    return run


def _seconds(names: set[str], folder: Path) -> float:
    if "quick" not in names:
        return ORIGINAL_SECONDS
    if len(names) == 1:
        return QUICK_SECONDS
    opened = folder.with_name(f"{folder.name}.{HELD}")
    is_raced = folder.parent.name == "programs" and not opened.exists()
    if is_raced:
        opened.touch()
    return LUCKY_SECONDS if is_raced else IN_TRUTH_SECONDS
