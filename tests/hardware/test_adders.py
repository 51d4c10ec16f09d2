"""Adder graphs: they compute the product, share sums, and pay nothing for zeros."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vivace.hardware.rtl.adders import adder_graph, signed_digits

X = np.random.default_rng(1).integers(-128, 128, (64, 12))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_adder_graph_computes_the_product(bits):
    most = (1 << (bits - 1)) - 1
    weight = np.random.default_rng(bits).integers(-most, most + 1, (10, 12))

    assert (adder_graph(weight).run(X) == X @ weight.T).all()


def test_sums_that_outputs_share_are_made_once():
    one = adder_graph(np.array([[3, 5, 6, 7]]))
    six = adder_graph(np.tile([[3, 5, 6, 7]], (6, 1)))

    assert len(six.adders) <= len(one.adders)
    assert six.plain_adders == 6 * one.plain_adders


def test_zero_weights_cost_nothing():
    weight = np.random.default_rng(0).integers(-7, 8, (8, 12))
    sparse = np.where(np.random.default_rng(1).random(weight.shape) < 0.8, 0, weight)

    assert len(adder_graph(sparse).adders) < len(adder_graph(weight).adders) / 2
    assert (adder_graph(sparse).run(X) == X @ sparse.T).all()


def test_an_output_without_weights_is_always_zero():
    graph = adder_graph(np.zeros((2, 12), np.int64))

    assert graph.outputs == (None, None)
    assert (graph.run(X) == 0).all()


@pytest.mark.parametrize("number", range(-255, 256))
def test_signed_digits_have_no_neighbours_and_add_up(number):
    digits = signed_digits(number)
    shifts = [shift for shift, _ in digits]

    assert sum(sign << shift for shift, sign in digits) == number
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(shifts))
