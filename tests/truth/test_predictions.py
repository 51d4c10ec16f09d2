"""The models behind predictions against published numbers and closed forms that others derived."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.prediction.layout import Layout
from vivace.core.prediction.work import Operator, OperatorKind, Transformer
from vivace.devices.catalog import device
from vivace.devices.prediction import binding, sharded_scaling, step_time, training_rate
from vivace.devices.prediction.convergence import fit_convergence, noise_scale
from vivace.devices.prediction.fitting import factor95, fitted
from vivace.devices.prediction.memory import layer_activation_bytes, states, transformer_memory
from vivace.devices.prediction.operators import PRIOR, Peaks, floor_seconds, parts_of, seconds_of
from vivace.devices.prediction.reliability import daly_interval_seconds, device_hours_between_failures, useful_share
from vivace.devices.prediction.transformer_operators import forward_operators, step_operators

GPT3 = Transformer(layers=96, width=12288, heads=96, sequence=2048, vocabulary=51200)


def test_dalys_own_examples() -> None:
    """Future Generation Computer Systems 22(3), figures 3 to 5: 117, 57 and 9.1 minutes."""
    found = [daly_interval_seconds(5 * 60, mean * 60) / 60 for mean in (24 * 60, 6 * 60, 15)]
    assert [round(minutes, 1) for minutes in found] == [116.7, 56.7, 9.1]


def test_dalys_interval_is_where_the_useful_share_is_largest() -> None:
    best = daly_interval_seconds(60, 18000)
    shares = {step: useful_share(step, 60, 600, 18000) for step in (best / 2, best, best * 2)}
    assert max(shares, key=lambda step: shares[step]) == best


def test_a_cluster_of_the_size_of_llama_3_fails_every_three_hours() -> None:
    """The Llama 3 Herd of Models: 419 interruptions in 54 days, "one failure every three hours"."""
    hours = device_hours_between_failures(419, 16384, 54 * 24).value / 16384
    assert hours == pytest.approx(3.1, abs=0.05)


def test_the_weights_of_gpt3_and_its_operations() -> None:
    """Brown and others: 175 billion; Narayanan and others, 2104.04473, equation 2: 96 B s l h^2 (1 + s/6h + V/16lh)
    with recomputation, of which three quarters are without."""
    assert GPT3.parameters == pytest.approx(175e9, rel=0.01)
    s, h, layers, v = GPT3.sequence, GPT3.width, GPT3.layers, GPT3.vocabulary
    narayanan = 96 * s * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))
    whole = 4 * layers * GPT3.layer_flops + 3 * 2 * s * v * h
    assert whole == pytest.approx(narayanan, rel=1e-9)


def test_llm_foundrys_utilisation_is_met() -> None:
    """Its table: 7B at 8 H100, 10,643 tokens a second and device, 46.44% of the peak."""
    mpt = Transformer(layers=32, width=4096, heads=32, sequence=2048, vocabulary=50368)
    share = training_rate.step_flops(mpt) * 10643 / 2048 / 989e12
    assert share == pytest.approx(0.4644, rel=0.01)


def test_model_states_of_zero() -> None:
    """Rajbhandari and others, 1910.02054, figure 1: 7.5 billion weights on 64 devices: 120, 31.4, 16.6 and 1.9 GB."""
    found = [states(15e9, 15e9, 90e9, 0, 64, stage).held_bytes / 1e9 for stage in range(4)]
    assert [round(one, 1) for one in found] == [120, 31.4, 16.6, 1.9]


def test_activations_of_a_layer_of_gpt3() -> None:
    """Korthikanti and others, 2205.05198: s b h (34 + 5 a s / h) without tensor parallelism; 5 a s / h is 80."""
    assert layer_activation_bytes(GPT3, 1, scores=True) == 2048 * 12288 * (34 + 80)
    assert layer_activation_bytes(GPT3, 1, recompute=True) == 2 * 2048 * 12288


def test_a_pipeline_waits_as_long_as_narayanan_says() -> None:
    """2104.04473: idle over ideal is (p - 1) / m."""
    model = Transformer(layers=8, width=1024, heads=16, sequence=1024, vocabulary=1)
    run = step_time.Run(model, 32, Layout(pipeline=4))
    step = step_time.law_seconds(step_time.PRIOR, [run], step_time.Rates(312e12, 1.5e12, 3e11))
    assert float(step.bubble[0] / step.layers[0]) == pytest.approx(3 / 32, rel=1e-3)


def test_the_laws_of_steps_and_of_scaling_find_their_own_parameters_again() -> None:
    rates = step_time.Rates(312e12, 1.5e12, 3e11)
    runs = [
        step_time.Run(Transformer(12, width, 16, 1024, 51200), 32, Layout(data, tensor, pipeline, 0, micro))
        for width in (1024, 2048)
        for data, tensor, pipeline in ((1, 1, 2), (2, 1, 1), (1, 2, 1), (2, 2, 2), (8, 1, 1), (1, 8, 1), (2, 1, 4))
        for micro in (1, 2, 4)
    ]
    truth = step_time.PRIOR + 0.2
    seconds = step_time.law_seconds(truth, runs, rates).total
    found = step_time.step_seconds(step_time.fit_steps(runs, seconds, rates), runs, rates).total
    assert np.abs(found / seconds - 1).max() < 0.05


def test_scaling_from_a_count_to_itself_changes_nothing() -> None:
    one = sharded_scaling.Shards(7e9, 64, 6)
    assert sharded_scaling.samples_per_second(sharded_scaling.PRIOR, one, 5.0, one) == pytest.approx(5.0)


def test_more_devices_are_never_predicted_to_be_each_faster_at_the_same_batch() -> None:
    counts = [sharded_scaling.Shards(7e9, count, 6) for count in (16, 32, 64, 128, 256, 512)]
    rates = [sharded_scaling.samples_per_second(sharded_scaling.PRIOR, counts[0], 5.0, one) for one in counts]
    assert rates == sorted(rates, reverse=True)


def test_the_law_of_mlperfs_resnet() -> None:
    """33.2 epochs at the least and a critical batch of 41,290, fitted to its logs: 3,200 takes 35.8, 57,344 79.3."""
    law = fit_convergence([(b, 33.2 * (1 + b / 41290)) for b in (3200, 8192, 16384, 57344)])
    assert law.samples(3200).value == pytest.approx(35.8, abs=0.05)
    assert law.samples(57344).value == pytest.approx(79.3, abs=0.05)


def test_a_batch_beyond_the_runs_is_refused() -> None:
    law = fit_convergence([(16, 1000), (32, 1100), (64, 1300), (128, 1690)])
    with pytest.raises(UsageError, match="beyond those that reached the target"):
        law.samples(1024)
    assert law.samples(64).low < 1300 < law.samples(64).high


def test_time_to_a_target_combines_both_intervals() -> None:
    law = fit_convergence([(16, 1000), (32, 1100), (64, 1300), (128, 1690)])
    found = law.seconds(64, Interval(10, 8, 12))
    assert found.low < law.samples(64).value / 12 < found.value < law.samples(64).value / 8 < found.high


def test_the_noise_scale_of_gradients_with_known_noise() -> None:
    generator = np.random.default_rng(0)
    signal, noise = np.ones(1000) / np.sqrt(1000), 0.1
    squares = {
        batch: np.mean([np.sum((signal + generator.normal(0, noise / np.sqrt(batch), 1000)) ** 2) for _ in range(200)])
        for batch in (4, 64)
    }
    assert noise_scale(4, 64, squares[4], squares[64]) == pytest.approx(1000 * noise**2, rel=0.05)


def test_an_outlier_hardly_moves_a_fit() -> None:
    seen = np.log(np.array([2.0] * 9 + [20.0]))
    found = fitted(lambda theta: theta[0] - seen, np.zeros(1), np.array([5.0]), 0.05)
    assert math.exp(found[0]) == pytest.approx(2.0, rel=0.02)


def test_the_factor_holds_nineteen_of_twenty() -> None:
    generator = np.random.default_rng(1)
    held = [
        np.mean(np.abs(generator.normal(0, 0.1, 200)) <= math.log(factor95(generator.normal(0, 0.1, 100))))
        for _ in range(200)
    ]
    assert 0.94 < float(np.mean(held)) < 0.98


PEAKS = Peaks("bf16", 1e12, 1e12, 1e11)


def test_the_floor_is_williams_roofline() -> None:
    product = Operator("mm", OperatorKind.PRODUCT, 1e9, 1e6)
    assert floor_seconds([product], PEAKS, 1e6) == 1e-3
    assert floor_seconds([product], PEAKS, 1e9) == 1e-2


def test_a_step_is_never_predicted_to_beat_the_floor() -> None:
    model = Transformer(layers=4, width=1024, heads=16, sequence=512, vocabulary=32000)
    operators = step_operators(model, 8, 8)
    assert seconds_of(parts_of(operators, PEAKS, PRIOR)) > floor_seconds(operators, PEAKS, 2.0 * model.parameters)


def test_described_operators_have_the_models_operations() -> None:
    model = Transformer(layers=4, width=1024, heads=16, sequence=512, vocabulary=32000)
    assert sum(one.flops for one in forward_operators(model, 3)) == pytest.approx(3 * model.flops)
    assert sum(one.flops for one in step_operators(model, 8, 2)) == pytest.approx(24 * model.flops)


def test_a_model_that_is_sharded_further_holds_less() -> None:
    held = [transformer_memory(GPT3, Layout(data=64, sharding=stage), 1).held_bytes for stage in range(4)]
    assert held == sorted(held, reverse=True)


def test_the_slowest_of_many_normal_devices() -> None:
    """The largest of n normal numbers, in 4,000 simulated clusters: its median, and what holds 95% of them."""
    generator = np.random.default_rng(0)
    largest = np.array([generator.normal(size=10000).max() for _ in range(4000)])
    deviation = binding.SPREAD_OF_EIGHT / binding.RANGE_OF_EIGHT
    found = binding.stragglers(10000)
    expected = deviation * np.quantile(largest, [0.5, 0.025, 0.975])
    assert [found.value, found.low, found.high] == pytest.approx(expected.tolist(), rel=0.01)
    assert binding.stragglers(1).high == 0.0
    assert 0.0 < binding.stragglers(10**9).value < 0.2


def test_what_binds_ten_thousand_devices_is_told_worst_first() -> None:
    found = binding.scale_of(device("h100-sxm"), 10000, Interval(1.0, 0.9, 1.1), 14e9, 8192, 20000)
    known = [limit.lost.value for limit in found.limits if limit.lost]
    assert known == sorted(known, reverse=True)
    assert {limit.name for limit in found.limits} == {"network", "input", "stragglers", "failures"}
    assert all(limit.assumption and limit.source for limit in found.limits)
    assert found.hours_between_failures.value == pytest.approx(5.07, abs=0.01)


def test_storage_that_is_too_slow_binds() -> None:
    slow = binding.scale_of(
        device("h100-sxm"), 10000, Interval(1.0, 0.9, 1.1), 1e6, 1e6, 20000, input_bytes_per_second=1e9
    )
    assert slow.binding == "input"


def test_a_batch_smaller_than_the_devices_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves some of 10000 devices without a sample"):
        binding.scale_of(device("h100-sxm"), 10000, Interval(1.0, 0.9, 1.1), 1e6, 1e6, 64)


def test_a_layers_activations_are_those_of_the_paper_on_sequences() -> None:
    """Korthikanti and others, 2205.05198, equation 2: s b h (10 + 24 / t + 5 a s / (h t)) bytes."""
    model, b, t = GPT3, 2, 8
    s, h, a = model.sequence, model.width, model.heads
    whole = layer_activation_bytes(model, b, t, scores=True)
    assert whole == pytest.approx(s * b * h * (10 + 24 / t + 5 * a * s / (h * t)))
    assert whole - layer_activation_bytes(model, b, t) == pytest.approx(s * b * 5 * a * s / t)
