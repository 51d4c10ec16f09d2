"""`vivace.predict` on jobs in code and on transformers in words: lines, refusals, memory, layouts, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.prediction.counting import counted_training, counted_workload
from vivace.core.errors import UsageError
from vivace.core.prediction.layout import Layout
from vivace.core.prediction.work import Purpose, Transformer
from vivace.devices.catalog import device
from vivace.devices.prediction.layouts import layouts_of, plan
from vivace.devices.prediction.lines import Asked, line_of
from vivace.devices.prediction.measured import laws
from vivace.testing import tiny_training

GPT = Transformer(layers=24, width=2048, heads=16, sequence=1024, vocabulary=51200)
LARGE = Transformer(layers=80, width=8192, heads=64, sequence=2048)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def wide() -> nn.Module:
    """Enough weights to be like the models that several devices were measured with."""
    return nn.Sequential(nn.Linear(12, 12000), nn.Linear(12000, 12000), nn.Linear(12000, 3))


def huge() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 40_000), nn.Linear(40_000, 40_000), nn.Linear(40_000, 3))


def wide_job() -> vv.Training:
    return dataclasses.replace(tiny_training.job(), model=wide)


@pytest.fixture(scope="module")
def work() -> vv.Workload:
    return vv.Workload(network(), inputs=(torch.zeros(64, 784),), name="mnist")


def test_the_work_of_a_call_is_counted_on_its_graph(work: vv.Workload) -> None:
    step = counted_workload(work)
    assert (step.purpose, step.batch, step.parameters) == (Purpose.INFERENCE, 64, 784 * 128 + 128 + 1280 + 10)
    assert sum(one.flops for one in step.operators(64)) == 2 * 64 * (784 * 128 + 128 * 10)


def test_a_call_has_lines_with_intervals_above_the_floor(work: vv.Workload) -> None:
    line = vv.predict(work, on="h100-sxm").line("h100-sxm")
    assert line.label == "PREDICTED"
    assert line.seconds is not None and line.floor_seconds is not None
    assert line.floor_seconds < line.seconds.low < line.seconds.value < line.seconds.high
    assert line.bound == "launch"
    assert line.memory is not None and line.memory.fits


def test_what_does_not_fit_has_no_time() -> None:
    line = vv.predict(dataclasses.replace(tiny_training.job(), model=huge), on="t4").line("t4")
    assert line.memory is not None and line.memory.fits is False
    assert line.seconds is None
    assert "does not fit" in line.refusal and "on each device, which has 16" in line.refusal


def test_recurrent_layers_are_refused_as_nobody_measured_any() -> None:
    work = vv.Workload(nn.LSTM(8, 16, batch_first=True), inputs=(torch.zeros(2, 30, 8),))
    line = vv.predict(work, on="h100-sxm").line("h100-sxm")
    assert line.seconds is None
    assert "recurrent layers (lstm)" in line.refusal


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_training_a_recurrent_layer_is_refused_as_well(kind: type[nn.RNNBase]) -> None:
    """On tensors without memory its steps are spelled out: they must not pass for operators of their own."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(3, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(x.unflatten(1, (4, 3)))[0]
            return found[:, -1]

    line = vv.predict(tiny_training.job(model=Last), on="h100-sxm").line("h100-sxm")
    assert line.seconds is None
    assert "no measurement of recurrent layers (" in line.refusal


def test_the_memory_of_a_call_is_what_is_held_at_once() -> None:
    layers = [nn.Linear(256, 256) for _ in range(20)]
    step = counted_workload(vv.Workload(nn.Sequential(*layers), inputs=(torch.zeros(64, 256),)))
    assert step.activation_bytes == 2 * 256 * 4  # a sample's input and answer of one layer


def test_a_shape_between_those_measured_has_the_interval_of_fits_that_had_not_seen_it() -> None:
    def spreads(width: int, plainly: bool) -> set[float]:
        model = Transformer(24, width, 16, 1024, 51200)
        found = plan(model, 64, device("a100-sxm-40"), 8, laws()).ranked
        by_steps = [one for one in found if one.law == laws().steps.source]
        chosen = [one for one in by_steps if plainly is not bool(one.layout.recompute or one.layout.sharding)]
        return {round(one.seconds.high / one.seconds.low, 4) for one in chosen if one.seconds}

    seen, unseen = (round(one**2, 4) for one in (laws().steps.factor95, laws().step_elsewhere_factor95))
    assert unseen > 1.5
    assert spreads(2048, plainly=True) == {seen}
    assert spreads(1536, plainly=True) == {unseen}
    assert spreads(2048, plainly=False) == {unseen}


def test_copies_answer_more_calls_and_not_faster_ones(work: vv.Workload) -> None:
    found = vv.predict(work, on="h100-sxm", count=[1, 8])
    one, eight = found.line("h100-sxm", 1), found.line("h100-sxm", 8)
    assert one.seconds == eight.seconds
    assert one.samples_per_second and eight.samples_per_second
    assert eight.samples_per_second.value == pytest.approx(8 * one.samples_per_second.value)


def test_a_card_that_was_not_measured_has_a_wider_interval(work: vv.Workload) -> None:
    found = vv.predict(work, on=["h100-sxm", "t4"])
    widths = [line.seconds.high / line.seconds.low for line in found.lines if line.seconds]
    assert len(widths) == 2
    assert widths[1] > widths[0]
    assert "not on t4" in found.line("t4").basis


def test_a_kind_of_device_that_nobody_measured_is_refused_with_its_floor(work: vv.Workload) -> None:
    line = vv.predict(work, on="tpu-v5e", precision="bf16").line("tpu-v5e")
    assert line.seconds is None
    assert line.refusal == "nothing was measured on a tpu; the peaks allow no less than the floor"
    assert line.floor_seconds is not None and line.floor_seconds > 0


def test_a_rate_that_the_catalogue_lacks_is_named(work: vv.Workload) -> None:
    found = vv.predict(work, on=["tpu-v5e", "tpu-v2"])
    assert "does not know a dense rate in f32 of tpu-v5e" in found.line("tpu-v5e").refusal
    assert "does not know the rate of the memory of tpu-v2" in found.line("tpu-v2").refusal


def test_an_update_is_counted_without_computing_it() -> None:
    step = counted_training(tiny_training.job())
    twice = sum(one.flops for one in step.operators(4)) / sum(one.flops for one in step.operators(2))
    assert step.purpose is Purpose.TRAINING
    assert twice == pytest.approx(2.0)
    assert step.gradient_bytes == step.weight_bytes == 4 * step.parameters
    assert step.optimizer_bytes > 0
    assert step.activation_bytes > 0


def test_a_model_that_this_machine_could_not_hold_is_counted_without_making_it() -> None:
    made = []

    def model() -> nn.Module:
        made.append(torch.empty(0).device.type)
        return tiny_training.perceptron()

    counted_training(tiny_training.job(model=model))

    assert set(made) == {"meta"}


def test_an_update_is_divided_among_devices_and_says_what_they_rest_on() -> None:
    found = vv.predict(wide_job(), on="h100-sxm", count=[1, 8], batch=64)
    one, eight = found.line("h100-sxm", 1), found.line("h100-sxm", 8)
    assert one.parts and eight.parts
    assert one.parts.communication_seconds == 0 < eight.parts.communication_seconds
    assert "llm-foundry" in eight.basis


def test_a_batch_that_does_not_divide_is_refused_with_counts_that_do() -> None:
    line = vv.predict(tiny_training.job(), on="h100-sxm", count=7, batch=64).line("h100-sxm", 7)
    assert line.refusal == (
        "a batch of 64 does not divide among 7 devices; counts near it: 2, 4, 8; or give a batch of 63 or 70"
    )
    assert line.cannot_run
    more = vv.predict(tiny_training.job(), on="h100-sxm", count=100, batch=64).line("h100-sxm", 100)
    assert more.refusal.endswith("or give a batch of 100")


def test_counts_and_devices_beyond_every_measurement_are_refused() -> None:
    found = vv.predict(wide_job(), on=["h100-sxm", "t4"], count=[8, 1024], batch=1024)
    assert found.line("h100-sxm", 8).seconds
    assert found.line("h100-sxm", 1024).refusal == "no measurement beyond 512 x h100-sxm"
    assert "no measurement of more than one t4" in found.line("t4", 8).refusal


def test_models_smaller_than_any_that_several_devices_trained_have_a_wider_interval() -> None:
    small, large = (vv.predict(job, on="h100-sxm", count=[1, 8], batch=64) for job in (tiny_training.job(), wide_job()))
    one, eight, measured = small.line("h100-sxm", 1), small.line("h100-sxm", 8), large.line("h100-sxm", 8)
    assert one.seconds and eight.seconds and measured.seconds
    widths = [line.high / line.low for line in (one.seconds, measured.seconds, eight.seconds)]
    assert widths == sorted(widths) and widths[1] < widths[2]
    assert eight.seconds.high > one.seconds.high
    assert "none were measured with so few weights; gradients by alpha-beta" in eight.basis


def test_links_of_a_node_are_enough_for_a_small_model_and_nodes_need_the_rate_of_a_network() -> None:
    found = vv.predict(tiny_training.job(), on="a100-sxm-80", count=[8, 64], batch=64)
    assert device("a100-sxm-80").network_bytes_per_second is None
    assert found.line("a100-sxm-80", 8).seconds
    assert found.line("a100-sxm-80", 64).refusal.startswith("several a100-sxm-80 were measured with 0.124")


def test_models_larger_than_any_that_several_devices_trained_are_refused() -> None:
    step = dataclasses.replace(counted_training(tiny_training.job(), 64), parameters=10**11)
    line = line_of(step, device("h100-sxm"), 8, Asked("f32"), laws())
    assert line.refusal == "several h100-sxm were measured with 0.124 to 64.837 billion weights only"


def test_small_models_on_more_devices_than_were_measured_are_refused() -> None:
    found = vv.predict(tiny_training.job(), on=["h100-sxm", "t4"], count=1024, batch=1024)
    assert found.line("h100-sxm", 1024).refusal == "no measurement beyond 512 x h100-sxm"
    assert "no measurement of more than one t4" in found.line("t4", 1024).refusal


def test_what_the_user_measured_is_what_other_counts_rest_on() -> None:
    seven = Transformer(layers=32, width=4096, heads=32, sequence=2048, vocabulary=50368)
    found = vv.predict(seven, on="h100-sxm", count=512, batch=3072, measured={"h100-sxm": (8, 8 * 10643 / 2048, 48)})
    tokens = [line.samples_per_second.value * 2048 / line.count for line in found.lines if line.samples_per_second]
    assert tokens == pytest.approx([9670], rel=0.05)
    assert found.lines[0].basis.startswith("your ")


def test_published_throughputs_of_transformers_lie_in_the_intervals() -> None:
    """llm-foundry: 13B with recomputation, micro-batch 16, 5,080 tokens a second and device on 128 H100."""
    thirteen = Transformer(layers=40, width=5120, heads=40, sequence=2048, vocabulary=50368)
    line = vv.predict(thirteen, on="h100-sxm", count=128, batch=2048).line("h100-sxm", 128)
    assert line.samples_per_second
    assert line.samples_per_second.low < 5080 * 128 / 2048 < line.samples_per_second.high


def test_money_and_energy_follow_the_seconds(work: vv.Workload) -> None:
    line = vv.predict(work, on="h100-sxm", prices={"h100-sxm": 3600.0}).line("h100-sxm")
    assert line.seconds and line.cost and line.joules
    assert line.cost.value == pytest.approx(line.seconds.value)
    assert line.joules.value == pytest.approx(700 * line.seconds.value)
    assert vv.predict(work, on="h100-sxm").line("h100-sxm").cost is None


def test_runs_that_reached_a_target_give_the_time_to_it() -> None:
    runs = [(64, 1e6), (256, 1.3e6), (1024, 2.5e6)]
    line = vv.predict(GPT, on="h100-sxm", count=8, batch=512, runs=runs).lines[0]
    assert line.target_seconds and line.samples_per_second
    assert line.target_seconds.low < line.target_seconds.value < line.target_seconds.high


def test_ten_thousand_devices_are_refused_and_what_would_bind_them_is_told() -> None:
    found = vv.predict(LARGE, on="h100-sxm", count=10_000, batch=20_000)
    assert found.lines[0].refusal == "no measurement beyond 512 x h100-sxm"
    assert {limit.name for limit in found.scale[0].limits} == {"network", "input", "stragglers", "failures"}
    assert 4 < found.scale[0].hours_between_failures.value < 6


def test_what_could_never_run_is_told_from_what_was_not_measured() -> None:
    """On 7 cards no layout divides; on 2 none fits; of 1,024 nobody measured a step."""
    found = vv.predict(LARGE, on="a100-sxm-40", count=[2, 7, 1024], batch=3072)
    assert [(line.count, line.seconds, line.cannot_run) for line in found.lines] == [
        (2, None, True), (7, None, True), (1024, None, False),
    ]  # fmt: skip
    assert "fits in no layout of 2 x a100-sxm-40" in found.lines[0].refusal
    assert "no layout divides 7 devices" in found.lines[1].refusal


def test_memory_is_told_of_devices_that_nobody_measured_together() -> None:
    found = vv.predict(LARGE, on=["h100-sxm", "t4"], count=[8, 10_000], batch=80_000)
    held = {(line.device, line.count): line.memory for line in found.lines}
    sharded = held[("h100-sxm", 10_000)]
    assert sharded is not None and sharded.fits
    assert sharded.sharding == "optimizer, gradients and weights"
    small = held[("t4", 8)]
    assert small is not None and small.fits is False
    assert small.optimizer_bytes == pytest.approx(12 * LARGE.parameters / 8)


def test_what_an_fpga_takes_follows_from_a_design(work: vv.Workload) -> None:
    line = vv.predict(work, on="ecp5-85f").line("ecp5-85f")
    assert line.refusal.startswith("what ecp5-85f takes follows from a design and not from peaks")


def test_the_best_layouts_are_told_with_why_the_others_lose() -> None:
    found = vv.predict(GPT, on="a100-sxm-40", count=8, batch=32, layouts=True).layouts[0]
    seconds = [one.seconds.value for one in found.best]
    assert len(found.best) == 3
    assert seconds == sorted(seconds)
    assert found.best[0].reason == ""
    assert found.best[1].reason.startswith("1.23 times the first, measured with other code")
    overlaps = [one.seconds.low <= found.best[0].seconds.high for one in found.best[1:]]
    assert [one.reason.endswith("and the intervals overlap") for one in found.best[1:]] == overlaps
    assert dict(found.refused)["no measurement of micro batch 16; measured are 1 to 8"] > 0


def test_every_layout_divides_the_devices_the_heads_the_layers_and_the_batch() -> None:
    for one in layouts_of(GPT, 32, 8):
        assert one.devices == 8
        assert (GPT.heads % one.tensor, GPT.layers % one.pipeline, 32 % (one.data * one.micro_batch)) == (0, 0, 0)


def test_a_count_that_no_layout_divides_is_refused_with_counts_that_one_does() -> None:
    with pytest.raises(UsageError, match="no layout divides 7 devices: heads=16, layers=24 and a batch of 32 allow"):
        plan(GPT, 32, device("a100-sxm-40"), 7, laws())


def test_a_model_that_fits_nowhere_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"fits in no layout of 8 x a100-sxm-40: the leanest .* holds .* GB a device"):
        plan(LARGE, 64, device("a100-sxm-40"), 8, laws())


def test_layouts_that_fit_and_were_not_measured_are_refused() -> None:
    with pytest.raises(UsageError, match="none was measured"):
        plan(Transformer(layers=24, width=2048, heads=16, sequence=64), 64, device("h100-sxm"), 8, laws())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"on": "h100"}, "did you mean"),
        ({"on": []}, "on is empty"),
        ({"count": 0}, "whole numbers of 1 or more"),
        ({"count": []}, "whole numbers of 1 or more"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": None}, "batch is missing"),
        ({"precision": "f8"}, "precision is 'f8'; allowed are f32"),
        ({"prices": {"t4": 1.0}}, "prices has t4"),
        ({"prices": {"h100-sxm": -1.0}}, "0 or more"),
        ({"measured": {"h100-sxm": (0, 1.0)}}, "count of 1 or more"),
        ({"runs": [(1, 2)]}, "three or more"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, object], said: str) -> None:
    asked = {"on": "h100-sxm", "batch": 64} | change
    with pytest.raises(UsageError, match=said):
        vv.predict(GPT, **asked)


def test_what_is_no_job_is_refused() -> None:
    with pytest.raises(UsageError, match=r"work is a str; allowed are a vivace\.Workload"):
        vv.predict("model", on="h100-sxm")  # type: ignore[arg-type]


def test_a_batch_for_a_workload_is_refused(work: vv.Workload) -> None:
    with pytest.raises(UsageError, match="its example call is the batch"):
        vv.predict(work, on="h100-sxm", batch=8)


@pytest.mark.parametrize("change", [{"layers": 0}, {"heads": 3}, {"width": 2.5}, {"sequence": True}])
def test_impossible_transformers_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"allowed is a whole number|does not divide"):
        dataclasses.replace(GPT, **change)


@pytest.mark.parametrize("change", [{"data": 0}, {"sharding": 4}, {"micro_batch": True}])
def test_impossible_layouts_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="allowed are"):
        Layout(**change)  # type: ignore[arg-type]


def test_a_transformer_on_tpus_is_predicted_between_the_counts_that_were_measured() -> None:
    large = Transformer(layers=64, width=8192, heads=64, sequence=2048)
    found = vv.predict(large, on="tpu-v5e", count=[64, 256, 512], batch=2048)
    few, slice_, two = (found.line("tpu-v5e", count) for count in (64, 256, 512))
    assert few.refusal == "no measurement of 64 x tpu-v5e; measured are 256 to 8192 chips"
    assert slice_.seconds is not None and two.seconds is not None
    assert slice_.seconds.value / 2 < two.seconds.value < slice_.seconds.value
    assert slice_.memory is not None and slice_.memory.fits


def test_a_generation_of_tpus_that_was_not_measured_has_a_wider_interval() -> None:
    large = Transformer(layers=64, width=8192, heads=64, sequence=2048)
    found = vv.predict(large, on=["tpu-v5e", "tpu-v6e"], count=256, batch=512)
    own, other = found.line("tpu-v5e", 256), found.line("tpu-v6e", 256)
    assert own.seconds is not None and other.seconds is not None
    assert other.seconds.high / other.seconds.value > own.seconds.high / own.seconds.value
    assert "none of them tpu-v6e" in other.basis


def test_what_lies_beyond_the_trainings_on_tpus_is_refused() -> None:
    assert "billion weights 1.3" in vv.predict(GPT, on="tpu-v5e", count=256, batch=256).lines[0].refusal
    large = Transformer(layers=64, width=8192, heads=64, sequence=4096)
    assert "sequence 4096" in vv.predict(large, on="tpu-v5e", count=256, batch=256).lines[0].refusal


def test_a_precision_that_the_catalogue_lacks_is_refused_with_those_it_has(work: vv.Workload) -> None:
    line = vv.predict(work, on="tpu-v5e").lines[0]
    assert line.refusal == "the catalogue does not know a dense rate in f32 of tpu-v5e; it does in bf16, int8"
    assert line.memory is not None and line.memory.fits


def test_a_batch_of_a_billion_is_counted_at_once() -> None:
    found = vv.predict(GPT, on=["h100-sxm", "tpu-v1", "xeon-6980p"], count=[1, 7], batch=10**9)
    assert found.work.flops == pytest.approx(3 * 10**9 * GPT.flops, rel=1e-6)
    assert all(line.refusal for line in found.lines)


@pytest.mark.parametrize("price", [float("inf"), float("nan"), -1.0])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        vv.predict(GPT, on="h100-sxm", batch=8, prices={"h100-sxm": price})


def test_layouts_of_a_billion_devices_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no measurement beyond 512 x h100-sxm"):
        vv.predict(GPT, on="h100-sxm", count=10**9, batch=8, layouts=True)


def test_an_exported_file_is_counted_with_the_shapes_that_it_declares(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.zeros(64, 784),)), tmp_path / "mnist.pt2")
    step = counted_workload(vv.Workload(tmp_path / "mnist.pt2"))
    assert step.batch == 64
    assert sum(one.flops for one in step.operators(64)) == 2 * 64 * (784 * 128 + 128 * 10)


def test_the_floor_of_a_call_reads_of_a_table_the_rows_that_are_looked_up_and_no_more() -> None:
    class Ranker(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.score = torch.nn.Embedding(1_000_000, 64), torch.nn.Linear(64, 8)

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            return self.score(self.items(numbers))

    work = vv.Workload(Ranker(), inputs=(torch.arange(32),), name="ranker")
    line = vv.predict(work, on="h100-sxm").line("h100-sxm")

    read = 4 * (32 * 64 + 64 * 8 + 8)
    assert line.floor_seconds == pytest.approx(read / 3.35e12)
    assert line.seconds is not None and line.seconds.value < 4 * 64 * 1_000_000 / 3.35e12  # what all of the table takes
    assert line.memory is not None and line.memory.weight_bytes > 4 * 64 * 1_000_000
