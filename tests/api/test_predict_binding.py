"""What would bind more devices than were measured: the computing of each, and what it says of network and storage."""

from __future__ import annotations

import dataclasses
import math

import pytest
from torch import nn

import vivace as vv
from vivace.api.prediction.counting import counted_training
from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.prediction.work import Transformer
from vivace.devices.catalog import device
from vivace.devices.prediction.binding import scale_of, summing_seconds
from vivace.devices.prediction.measured import laws
from vivace.devices.prediction.operators import PARAMETERS
from vivace.testing import tiny_training

GPT = Transformer(layers=24, width=2048, heads=16, sequence=1024, vocabulary=51200)
LARGE = Transformer(layers=80, width=8192, heads=64, sequence=2048)


def wider() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 6000), nn.Linear(6000, 6000), nn.Linear(6000, 3))


def test_what_would_bind_a_small_model_rests_on_the_law_of_one_device_launches_included() -> None:
    """Each of ten thousand devices computes its 64 samples for as long as one device that has 64."""
    job = tiny_training.job()
    alone = vv.predict(job, on="h100-sxm", batch=64).lines[0].seconds
    found = vv.predict(job, on="h100-sxm", count=10_000, batch=640_000).scale[0]
    assert alone and found.computing_seconds == alone
    assert "measured on h100-sxm" in found.basis

    launch = list(PARAMETERS).index("update_launch_seconds")
    operators = len(counted_training(job).operators(64))
    launching = operators * math.exp(laws().operators["gpu"].parameters[launch])
    assert launching < alone.value < 2 * launching
    needed = 640_000 * counted_training(job).sample_bytes / alone.value / 1e9
    text = next(limit.assumption for limit in found.limits if limit.name == "input")
    assert text.startswith(f"storage must give {needed:.3g} [")


def test_what_would_bind_the_network_by_hand() -> None:
    """What is summed and not hidden, over that and computing; worst where a device computes fast and hides nothing."""
    job = tiny_training.job()
    found = vv.predict(job, on="h100-sxm", count=10_000, batch=640_000).scale[0]
    seconds = summing_seconds(device("h100-sxm"), 10_000, counted_training(job).gradient_bytes)
    lost = next(limit.lost for limit in found.limits if limit.name == "network")
    computing = found.computing_seconds
    assert lost and seconds
    assert seconds < (2 / 3) * computing.value  # trees between 1,250 nodes: the backward pass hides all of it
    assert (lost.value, lost.low) == (0.0, 0.0)
    assert lost.high == pytest.approx(seconds / (computing.low + seconds))

    wide = counted_training(dataclasses.replace(job, model=wider))
    slow = summing_seconds(device("h100-sxm"), 10_000, wide.gradient_bytes)
    found = scale_of(device("h100-sxm"), 10_000, Interval(1e-3, 9e-4, 2e-3), wide.gradient_bytes, 48.0, 640_000)
    lost = next(limit.lost for limit in found.limits if limit.name == "network")
    assert lost and slow
    assert lost.value == pytest.approx(1 - 1e-3 / (1e-3 / 3 + slow))
    assert lost.low == pytest.approx(1 - 2e-3 / (2e-3 / 3 + slow))
    assert lost.high == pytest.approx(slow / (9e-4 + slow))


def test_what_would_bind_a_transformer_counts_its_share_in_micro_batches_that_fit() -> None:
    """Two samples for each device, in one pass."""
    found = vv.predict(GPT, on="h100-sxm", count=10_000, batch=20_000)
    alone = vv.predict(GPT, on="h100-sxm", batch=2).lines[0].seconds
    assert found.scale[0].computing_seconds == alone
    assert "measured on h100-sxm" in found.scale[0].basis


def test_what_would_bind_a_transformer_beyond_the_law_of_one_device_rests_on_the_floor_and_says_so() -> None:
    found = vv.predict(LARGE, on="h100-sxm", count=10_000, batch=20_000)
    floor = found.lines[0].floor_seconds
    assert floor is not None
    assert found.scale[0].basis.startswith("the floor")
    assert found.scale[0].computing_seconds.value == pytest.approx(floor / 0.47)


def test_what_a_checkpoint_and_a_restart_take_decides_how_often_to_write_and_what_failures_cost() -> None:
    def failures(**asked: float) -> tuple[str, float]:
        found = vv.predict(GPT, on="h100-sxm", count=10_000, batch=20_000, **asked).scale[0]
        limit = next(limit for limit in found.limits if limit.name == "failures")
        assert limit.lost is not None
        return limit.assumption, limit.lost.value

    usual, slow = failures(), failures(checkpoint_seconds=240.0, restart_seconds=1200.0)

    assert "a checkpoint takes 60 s" in usual[0] and "starting again takes 600 s" in usual[0]
    assert "a checkpoint takes 240 s" in slow[0] and "starting again takes 1200 s" in slow[0]
    assert slow[1] > 1.5 * usual[1]


@pytest.mark.parametrize("asked", [{"checkpoint_seconds": 0.0}, {"restart_seconds": math.inf}])
def test_times_that_no_checkpoint_or_restart_can_take_are_refused(asked: dict[str, float]) -> None:
    (name,) = asked
    with pytest.raises(UsageError, match=rf"{name} \(--{name.replace('_', '-')}\) is"):
        vv.predict(GPT, on="h100-sxm", count=10_000, batch=20_000, **asked)
