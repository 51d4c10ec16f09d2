"""Clocks: what is inside the timed region, in which order device events are placed, and no garbage collection there."""

from __future__ import annotations

import gc

import pytest

from vivace.measure.clock import FakeClock, quiet_collector, time_calls, time_device_block, time_device_calls


class Device:
    """A device that writes down what it is told; its events are 2.5 ms apart."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def synchronize(self) -> None:
        self.told.append("synchronize")

    def Event(self, enable_timing: bool) -> Event:  # noqa: N802
        assert enable_timing
        return Event(self)


class Event:
    """One event."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def record(self) -> None:
        self._device.told.append("record")

    def elapsed_time(self, other: Event) -> float:
        return 2.5


def test_a_device_call_is_synchronized_on_both_sides_of_its_events() -> None:
    device = Device()
    time_device_calls(lambda index: device.told.append(f"call {index}"), [3], device)
    assert device.told == ["synchronize", "record", "call 3", "record", "synchronize"]


def test_a_device_call_lasts_as_long_as_the_device_worked() -> None:
    seconds = time_device_calls(lambda index: None, [0, 1], Device())
    assert seconds == pytest.approx([0.0025, 0.0025])


def test_each_call_is_timed_with_its_own_input() -> None:
    seen: list[int] = []
    seconds = time_calls(seen.append, [4, 5, 4])
    assert seen == [4, 5, 4]
    assert all(0 <= second < 0.01 for second in seconds)


def test_no_garbage_is_collected_while_calls_are_timed() -> None:
    with quiet_collector():
        inside = gc.isenabled()
    assert not inside
    assert gc.isenabled()


def test_a_false_clock_moves_by_its_steps_and_by_hand() -> None:
    clock = FakeClock([1.0])
    clock.now()
    clock.advance(2.0)
    assert clock.now() == 3.0


class _Card:
    """A device that is done when it is asked to be."""

    def __init__(self) -> None:
        self.launched, self.waited_for = 0, list[int]()

    def synchronize(self) -> None:
        self.waited_for.append(self.launched)


def test_calls_of_a_device_block_are_all_launched_before_the_device_is_waited_for() -> None:
    card = _Card()

    def launch(_: int) -> None:
        card.launched += 1

    seconds = time_device_block(launch, range(5), cuda=card)

    assert card.waited_for == [0, 5]
    assert len(seconds) == 5 and len(set(seconds)) == 1
