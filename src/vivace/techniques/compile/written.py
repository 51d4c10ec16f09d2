"""What programs that are written out as C++ have in common."""

from __future__ import annotations

from collections.abc import Mapping

from vivace.core.cost import Cost
from vivace.core.facts import Fact

NEEDS = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.CXX_COMPILER, Fact.ON_CPU})
SOURCE = "Goto and van de Geijn, ACM TOMS 34(3), 2008; Dukhan, 2019, arXiv:1907.02129"
IDLE: Mapping[str, str] = {
    "inference-mode": "the program written out as C++ has no autograd to switch off",
    "channels-last": "the program written out as C++ chooses how tensors lie",
    "fold-conv-batchnorm": "the program written out as C++ folds normalizations by itself",
    "fold-linear-batchnorm": "the program written out as C++ folds normalizations by itself",
    "torchao-dynamic-int8": "its operators are what native-int8 writes as products of its own",
    "torchao-weight-only-int8": "its operators are what native-int8 writes as products of its own",
}
"""By name, techniques with nothing to do beside it."""


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
