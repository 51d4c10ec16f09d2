"""How far rounding alone takes the original's step: the same step from weights that are moved by no more than that.

A ReLU, a maximum or a sort jumps where two values are equal up to rounding, and gradients jump with it: by a hundredth
here, from one rounding of 6e-8. A step whose sums run in another order is then not wrong; the original's own would be.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.training.rig import Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, FLOOR
from vivace.training.trace import Trace, stilled, trace

DRAWS = 4
FEWEST, MOST = 256, 1 << 20
"""What the longest sum of a step is taken to run over, at the least and at the most."""


class Moved:
    """Steps of the original from moved weights, where they are asked for, with a rig of its own and the optimizer's
    state as it is there. `still` switches dropout off.

    Every weight is multiplied with 1 + r z, z normal: a sum over n values may come out r = sqrt(n) u apart in another
    order, with u the unit roundoff of float32. Source: Higham and Mary, A new approach to probabilistic rounding error
    analysis, SIAM Journal on Scientific Computing 41(5), 2019. The longest sum of a step is that of a layer's gradient
    over all places and samples that use the same weight.
    """

    def __init__(self, rig: Rig, still: bool, seed: int) -> None:
        self.longest_sum = FEWEST
        self.reason = ""
        self._rig = rig
        if still:
            stilled(self._rig.model)
        self._optimizer = copy.deepcopy(self._rig.optimizer.state_dict())
        self._chance = torch.Generator().manual_seed(seed)

    @property
    def relative(self) -> float:
        """By what share of itself a weight is moved, in the middle."""
        return math.sqrt(self.longest_sum) * FLOAT32_ROUNDOFF

    def note(self) -> str:
        """What a reader of the comparison should know."""
        if self.reason:
            return f"steps from moved weights could not be compared: {self.reason}"
        return (
            "a tensor may also be as far off as the original's own where its weights are moved by what rounding may "
            f"add to its longest sum (over {self.longest_sum:,} values: {self.relative:.1g} of themselves), for "
            "gradients jump where maxima or ReLUs are tied"
        )

    def traces(self, state: Mapping[str, Tensor], batch: Any, seed: int, own: Trace) -> list[Trace]:
        """The step from these weights, each time moved anew; none where a step that was not moved is not `own`, the
        original's, or where the steps fail: their differences would not be rounding's."""
        try:
            first = self._counted(state, batch, seed)
            found = [self._step(self._elsewhere(state), batch, seed) for _ in range(DRAWS)]
            last = self._step(state, batch, seed)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.reason = f"{type(error).__name__}: {error}"
            return []
        if not (_same(first, own) and _same(first, last, with_updates=True)):
            self.reason = "the original's own step is another one when it is taken again"
            return []
        return found

    def _step(self, state: Mapping[str, Tensor], batch: Any, seed: int) -> Trace:
        self._rig.model.load_state_dict(state)
        self._rig.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        return trace(self._rig, batch, seed)

    def _elsewhere(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state with its weights moved; one that has several names is the same under each."""
        learned = dict(self._rig.model.named_parameters(remove_duplicate=False))
        factors = {
            id(weight): 1 + self.relative * torch.randn(weight.shape, generator=self._chance).to(weight)
            for weight in self._rig.model.parameters()
        }
        return {name: value * factors[id(learned[name])] if name in learned else value for name, value in state.items()}

    def _counted(self, state: Mapping[str, Tensor], batch: Any, seed: int) -> Trace:
        """The step, while it is seen over how many values its longest sum runs."""

        def seen(module: nn.Module, _: Any, answer: Any) -> None:
            for weight in _own(module) if torch.is_tensor(answer) else ():
                if weight.numel() > 1:  # one number for a whole activation moves nothing else by as much
                    self.longest_sum = min(MOST, max(self.longest_sum, answer.numel() // max(weight.shape)))

        hooks = [module.register_forward_hook(seen) for module in self._rig.model.modules()]
        try:
            return self._step(state, batch, seed)
        finally:
            for hook in hooks:
                hook.remove()


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    """A layer's weights; Keras keeps them in a list."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if isinstance(child, nn.ParameterList):
            yield from child.parameters(recurse=False)


def _same(one: Trace, other: Trace, with_updates: bool = False) -> bool:
    """Whether two steps made the same gradients and buffers, but for what their least rounding makes; with updates too
    where both are an optimizer's first step."""
    kinds = [(one.gradients, other.gradients), (one.buffers, other.buffers)]
    kinds += [(one.updates, other.updates)] if with_updates else []
    return all(_near(mine, theirs[name]) for here, theirs in kinds for name, mine in here.items())


def _near(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return float((one - other).norm()) <= FLOOR * float(other.norm())
