"""What programs that are written out as C++ have in common."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.core.technique import Technique
from vivace.techniques.graph import torch_program

NEEDS = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.UNQUANTIZED, Fact.CXX_COMPILER, Fact.ON_CPU})
SOURCE = "Goto and van de Geijn, ACM TOMS 34(3), 2008; Dukhan, 2019, arXiv:1907.02129"
NORMALIZED = frozenset({Fact.HAS_CONV_BATCHNORM, Fact.HAS_LINEAR_BATCHNORM})


def nothing_to_do(others: Sequence[Technique]) -> str | None:
    """Why a technique beside it would change nothing; None where each of them does something."""
    for other in others:
        if Fact.CHANNELS_LAST in other.gives:
            return f"{other} has nothing to do: a program written out as C++ chooses how tensors lie"
        if other.needs & NORMALIZED:
            return f"{other} has nothing to do: a program written out as C++ folds normalizations by itself"
    return None


def to_be_written(model: Model, step: str, **options: str) -> Model:
    """The model, to be written out and compiled when it is loaded. Raises NotApplicable for another graph."""
    torch_program(model)
    if model.settings.inference_mode:
        raise NotApplicable("no autograd is left to switch off, so this plan repeats one without inference mode")
    settings = model.settings.with_options(**options)
    return model.replace(form=Form.NATIVE, settings=settings, lineage=(*model.lineage, step))


def rewritten(cost: Cost) -> Cost:
    """The work that is left: one call of one operator, with little between products.

    On two cores with AVX-512, float32 products reached 95% of the measured ceiling in convolutions and a linear layer
    (measured for this project in 2026); smaller ones less.
    """
    return cost.replace(
        operators=1,
        operator_seconds=1e-6,
        call_seconds=4e-6,
        activation_bytes=cost.activation_bytes * 0.4,
        efficiency=min(1.0, cost.efficiency * 1.6),
    )
