"""Calls that are made from an example, where a user's data hold too few or none."""

from __future__ import annotations

import torch

from vivace.search.calls.inputs import perturbed


def test_made_integers_stay_within_what_their_column_holds() -> None:
    kinds = torch.tensor([[39, 1, 6], [7, 0, 2], [20, 1, 0], [3, 0, 5]])

    made = torch.stack([call[0] for call in perturbed([kinds], 200)])

    assert (made >= 0).all() and (made.amax((0, 1)) <= kinds.amax(0)).all()
    assert (made != kinds).any((0, 1)).all()


def test_made_integers_of_a_single_sample_differ_and_are_its_own() -> None:
    words = torch.tensor([[101, 2023, 2003, 1037, 6251, 102]])

    made = [call[0] for call in perturbed([words], 8)]

    assert torch.equal(made[0], words)
    assert len({tuple(call[0].tolist()) for call in made}) == 8
    assert all(torch.isin(call, words).all() for call in made)


def test_made_integers_of_one_dimension_are_drawn_from_all_of_them() -> None:
    made = torch.cat([call[0] for call in perturbed([torch.tensor([5, -1, 9])], 60)])

    assert set(made.tolist()) == {5, -1, 9}
