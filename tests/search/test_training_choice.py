"""The greedy choice of a training's techniques: the first setting that is kept, or the fastest where that is tuned."""

from __future__ import annotations

import pytest

from vivace.api.step_plans import trained_with
from vivace.core.measurement import Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.training.run import StepTrial
from vivace.search.training.choose import START, greedy
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch


def tried(settings: list[object], accepted: set[str]) -> tuple[list[str], Plan]:
    """The plans that were asked for, and the choice, where these plans are faster than the best so far."""
    strategy, asked = greedy(settings, START), list[str]()  # type: ignore[arg-type]
    plan = next(strategy)
    while True:
        asked.append(str(plan))
        try:
            plan = strategy.send(StepTrial(plan, Outcome.OK, None, 0.0, str(plan) in accepted))
        except StopIteration as ended:
            return asked, ended.value


@pytest.mark.parametrize("verdict", list(SpeedVerdict))
def test_only_a_plan_that_was_confirmed_to_be_faster_trains(verdict: SpeedVerdict) -> None:
    plan = Plan((SampleCache(),))

    assert (trained_with(plan, verdict) == plan) == (verdict is SpeedVerdict.FASTER)


def test_a_technique_that_is_not_tuned_keeps_its_first_setting_that_is_faster() -> None:
    on_disk, in_memory = SampleCache(on="disk"), SampleCache()

    assert tried([on_disk, in_memory], {str(on_disk)}) == ([str(on_disk)], Plan((on_disk,)))
    assert tried([on_disk, in_memory], {str(in_memory)}) == ([str(on_disk), str(in_memory)], Plan((in_memory,)))


def test_every_setting_of_a_tuned_technique_is_tried_in_place_of_the_best_so_far() -> None:
    cache, one, two, deep = SampleCache(), SamplePrefetch(), SamplePrefetch(workers=2), SamplePrefetch(depth=8)
    faster = {str(cache), str(Plan((cache, one))), str(Plan((cache, deep)))}

    asked, chosen = tried([cache, one, two, deep], faster)

    assert asked == [str(cache), *(str(Plan((cache, setting))) for setting in (one, two, deep))]
    assert chosen == Plan((cache, deep))
