"""How far rounding alone takes the original's step: the same step from weights that are moved by no more than that.

A ReLU, a maximum or a sort jumps where two values are equal up to rounding, and gradients jump with it: by a hundredth
here, from one rounding of 6e-8. A step whose sums run in another order is then not wrong; the original's own would be.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.training.job import Training
from vivace.training.rig import assemble
from vivace.training.trace import Trace, stilled, trace

DRAWS = 4
FEWEST = 256
"""What the longest sum of a step runs over at the least."""


class Moved:
    """Steps of the original from moved weights, where they are asked for. `still` switches dropout off.

    Every weight is multiplied with 1 + r z, z normal: a sum over n values may come out r = sqrt(n) u apart in another
    order, with u the unit roundoff. Source: Higham and Mary, A new approach to probabilistic rounding error analysis,
    SIAM Journal on Scientific Computing 41(5), 2019. The longest sum of a step is that of a layer's gradient over all
    places and samples that use the same weight.
    """

    def __init__(self, job: Training, still: bool, unit_roundoff: float) -> None:
        self.unit_roundoff = unit_roundoff
        self.longest_sum = FEWEST
        self._rig = assemble(job)
        if still:
            stilled(self._rig.model)
        self._optimizer = copy.deepcopy(self._rig.optimizer.state_dict())
        self._chance = torch.Generator().manual_seed(job.seed)

    @property
    def relative(self) -> float:
        """By what share of itself a weight is moved, in the middle."""
        return math.sqrt(self.longest_sum) * self.unit_roundoff

    def traces(self, state: Mapping[str, Tensor], batch: Any, seed: int) -> list[Trace]:
        """The step from these weights, each time moved anew."""
        self._count(state, batch, seed)
        return [self._step(self._elsewhere(state), batch, seed) for _ in range(DRAWS)]

    def _step(self, state: Mapping[str, Tensor], batch: Any, seed: int) -> Trace:
        self._rig.model.load_state_dict(state)
        self._rig.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        return trace(self._rig, batch, seed)

    def _elsewhere(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        learned = {name for name, _ in self._rig.model.named_parameters()}
        return {name: self._by_chance(value) if name in learned else value for name, value in state.items()}

    def _by_chance(self, weight: Tensor) -> Tensor:
        normal = torch.randn(weight.shape, generator=self._chance).to(weight)
        return weight * (1 + self.relative * normal)

    def _count(self, state: Mapping[str, Tensor], batch: Any, seed: int) -> None:
        """Take one step and see over how many values its longest sum runs."""

        def seen(module: nn.Module, _: Any, answer: Any) -> None:
            for weight in module.parameters(recurse=False) if torch.is_tensor(answer) else ():
                self.longest_sum = max(self.longest_sum, answer.numel() // max(weight.shape, default=1))

        hooks = [module.register_forward_hook(seen) for module in self._rig.model.modules()]
        try:
            self._step(state, batch, seed)
        finally:
            for hook in hooks:
                hook.remove()
