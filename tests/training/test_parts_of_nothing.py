"""A batch in parts of which one holds nothing that counts, such as padding alone: it adds nothing, and no NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from vivace.testing.tiny_training import job
from vivace.training.rig import assemble
from vivace.training.step import accumulate

IGNORED = -100
BATCH = torch.randn(8, 12), torch.tensor([0, 1, IGNORED, 3] + 4 * [IGNORED])


def ignoring(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1], ignore_index=IGNORED)


def masked(model: nn.Module, batch: Any) -> torch.Tensor:
    counts = (batch[1] != IGNORED).float()
    each = functional.cross_entropy(model(batch[0]), batch[1].clamp(min=0), reduction="none")
    return (each * counts).sum() / counts.sum()


def counted(batch: Any) -> float:
    return float((batch[1] != IGNORED).sum())


@pytest.mark.parametrize("loss", [ignoring, masked])
def test_a_part_in_which_nothing_counts_adds_nothing(loss: Callable[..., torch.Tensor]) -> None:
    rig = assemble(job(model=lambda: nn.Linear(12, 4), loss=loss, weight=counted))
    whole = accumulate(rig, BATCH)
    wanted = [parameter.grad.clone() for parameter in rig.model.parameters()]
    rig.optimizer.zero_grad(set_to_none=True)

    found = accumulate(rig.replace(parts=2), BATCH)

    torch.testing.assert_close(found, whole)
    for parameter, gradient in zip(rig.model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert not rig.model._forward_hooks
