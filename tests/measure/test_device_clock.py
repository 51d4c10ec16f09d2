"""The clock of a device: slow blocks are timed again, a card that stays slow is told, an unknown clock is told too."""

from __future__ import annotations

import pytest

from vivace.measure.device_clock import MOST_TRIES, ClockWatch, nvml_share


class Nvml:
    """A card with a base clock of 1,500 MHz whose clock is read from a list."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, readings: list[int], has_base: bool = True) -> None:
        self.readings = readings
        self.has_base = has_base
        self.asked = ""

    def nvmlInit(self) -> None:  # noqa: N802
        """Nothing to do."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked = uuid
        return "card"

    def nvmlDeviceGetDefaultApplicationsClock(self, card: str, kind: int) -> int:  # noqa: N802
        if not self.has_base:
            raise self.NVMLError("not supported")
        assert (card, kind) == ("card", self.NVML_CLOCK_SM)
        return 1500

    def nvmlDeviceGetClockInfo(self, card: str, kind: int) -> int:  # noqa: N802
        if not self.readings:
            raise self.NVMLError("the card is gone")
        return self.readings.pop(0)


def blocks() -> tuple[list[int], object]:
    """A block that counts how often it was timed."""
    count = [0]

    def block() -> list[float]:
        count[0] += 1
        return [count[0] / 1000]

    return count, block


def test_a_block_below_three_quarters_of_the_base_clock_is_timed_again() -> None:
    nvml = Nvml([1124, 1125])
    count, block = blocks()
    watch = ClockWatch(nvml_share("GPU-1", nvml))

    assert watch.timed(block) == [0.002]  # type: ignore[arg-type]
    assert (count[0], watch.redone, watch.slow) == (2, 1, 0)
    assert watch.note() == ""
    assert nvml.asked == "GPU-1"


def test_a_card_that_stays_slow_is_timed_a_few_times_and_told() -> None:
    count, block = blocks()
    watch = ClockWatch(nvml_share("GPU-1", Nvml([300] * 20)))

    assert watch.timed(block) == [MOST_TRIES / 1000]  # type: ignore[arg-type]
    assert (count[0], watch.redone, watch.slow) == (MOST_TRIES, MOST_TRIES - 1, 1)
    assert watch.note() == "1 blocks were timed below 75% of the device's base clock"


@pytest.mark.parametrize("nvml", [Nvml([1500], has_base=False), Nvml([]), object()], ids=["games", "gone", "other"])
def test_an_unknown_clock_redoes_nothing_and_is_told(nvml: object) -> None:
    if not hasattr(nvml, "NVMLError"):
        nvml = type("Old", (), {"NVMLError": OSError, "nvmlInit": staticmethod(lambda: None)})()
    count, block = blocks()
    watch = ClockWatch(nvml_share("GPU-1", nvml))

    assert watch.timed(block) == [0.001]  # type: ignore[arg-type]
    assert count[0] == 1
    assert "unknown" in watch.note()


def test_without_the_package_the_clock_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)

    assert nvml_share("GPU-1")() is None
