"""A worker's service that times products: every product in every precision, and casts between them."""

from __future__ import annotations

import torch

from vivace.measure.services.products import Products


def test_larger_products_take_longer_and_every_precision_is_timed() -> None:
    small, large = (
        ("aten.linear.default", (torch.randn(4, size), torch.randn(size, size), torch.randn(size)))
        for size in (16, 512)
    )

    found = Products([small, large]).seconds(1, ["f32", "bf16"])

    assert [len(row) for row in found["seconds"]] == [2, 2]
    assert found["seconds"][0][0] < found["seconds"][1][0]
    assert found["calls"] >= 4 * 9


def test_other_arguments_than_floats_are_left_as_they_are() -> None:
    convolution = (torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3), None, [2, 2], [1, 1], [1, 1], 1)
    lookup = (torch.randn(5, 4), torch.tensor([0, 3]))

    found = Products([("aten.conv2d.default", convolution), ("aten.embedding.default", lookup)])

    assert min(min(row) for row in found.seconds(1, ["f32", "bf16"])["seconds"]) > 0


def test_a_cast_to_the_same_precision_takes_nothing() -> None:
    found = Products([]).casts([10_000, 100_000], ["f32", "bf16"], 1)

    assert [place[0][0] for place in found["seconds"]] == [0.0, 0.0]
    assert all(place[0][1] > 0 and place[1][0] > 0 for place in found["seconds"])
