"""A false front door (api), so that the command line is tested alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivace.core.forecast import Expected, Forecast
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Status


def made_comparison() -> Comparison:
    times = ArmTimes(0.002, 0.003, None, 100, 0.1, 0.2, True, 1000)
    return Comparison(Interval(2.0, 1.9, 2.1), SpeedVerdict.FASTER, times, times, 20, 3, 0.01, ((2.0,),))


def made_result(status: Status = Status.FASTER) -> Result:
    quality = Quality(QualityVerdict.HELD, "Tango's score test", 500, 0.01, 0.98, 0.98, 0.0, 0.005)
    return Result("digits-cnn", status, Plan(), made_comparison(), quality, None, (), 0.01, {}, (), 3.0, Path("fast"))


def made_forecast() -> Forecast:
    return Forecast("job", (Expected(Plan(), 1.5, 12.0),), {}, (), 300.0, 100.0, 1000, (Expected(Plan(), 1.5, 20.0),))


class FalseApi:
    """What the verbs called it with, and what it does in answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answer: Callable[[], Any] = made_result

    def take(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return self.answer()

        return call
