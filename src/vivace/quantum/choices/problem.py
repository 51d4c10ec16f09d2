"""The two choices of a search as problems: a precision for each layer with the cost of switching, and pipeline
stages."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from vivace.core.errors import UsageError
from vivace.quantum.choices.qubo import Qubo, QuboSum

Form = dict[int | None, float]
"""A linear form of bits: each bit's factor, and under None the constant."""
_Indicator = Callable[[int, int], Form]
"""Of a layer and a precision: the form that is 1 where the layer has it."""
MARGIN = 1.05
"""Over the cost of some choice: what breaking a rule of the bits costs, so that no broken rule is the best."""


class Choice(ABC):
    """Something to be chosen for each layer of a chain: `options` for each of `layers`, by number."""

    name: str
    unit: str
    layers: tuple[str, ...]

    @abstractmethod
    def cost(self, chosen: Sequence[int]) -> float:
        """What a choice costs; the least is wanted."""

    @abstractmethod
    def qubo(self) -> Qubo:
        """The same problem over bits: at bits that are a choice its value is the choice's cost, at others more than the
        cost of the best."""

    @abstractmethod
    def decoded(self, bits: Sequence[int]) -> tuple[int, ...] | None:
        """The choice that bits stand for; None where they stand for none."""

    @abstractmethod
    def described(self, chosen: Sequence[int]) -> str:
        """A choice in words."""


@dataclasses.dataclass(frozen=True)
class PrecisionChoice(Choice):
    """Which layer runs in which precision, to the least time of one call.

    `seconds[layer][precision]` is what a layer takes. `switch_seconds[place][before][after]` is what it takes to hand
    over at a place: place 0 is before the first layer, place i between layers i - 1 and i, the last place after the
    last layer. A call begins and ends in precision 0, the model's own.

    Two precisions take one bit a layer; more take one bit for each of them, of which one must be set.

    Raises UsageError where the shapes do not fit, or a time is negative or not finite.
    """

    layers: tuple[str, ...]
    precisions: tuple[str, ...]
    seconds: tuple[tuple[float, ...], ...]
    switch_seconds: tuple[tuple[tuple[float, ...], ...], ...]
    name = "precision of each layer"
    unit = "s"

    def __post_init__(self) -> None:
        count, kinds = len(self.layers), len(self.precisions)
        fits = len(self.seconds) == count and all(len(row) == kinds for row in self.seconds)
        fits = fits and len(self.switch_seconds) == count + 1
        fits = fits and all(
            len(place) == kinds and all(len(row) == kinds for row in place) for place in self.switch_seconds
        )
        if not count or kinds < 2 or not fits:
            raise UsageError(
                f"{count} layers and {kinds} precisions do not fit the times given; allowed are 1 layer or more, "
                f"2 precisions or more, seconds of {count} x {kinds}, "
                f"switch_seconds of {count + 1} x {kinds} x {kinds}"
            )
        _check_times(value for row in self.seconds for value in row)
        _check_times(value for place in self.switch_seconds for row in place for value in row)

    def cost(self, chosen: Sequence[int]) -> float:
        path = (0, *chosen, 0)
        switches = (self.switch_seconds[place][path[place]][path[place + 1]] for place in range(len(path) - 1))
        return math.fsum([*(row[kind] for row, kind in zip(self.seconds, chosen, strict=True)), *switches])

    def qubo(self) -> Qubo:
        if len(self.precisions) == 2:
            return self._filled(QuboSum(len(self.layers)), self._one_bit)
        total = QuboSum(len(self.layers) * len(self.precisions))
        penalty = MARGIN * self.cost([0] * len(self.layers))
        for layer in range(len(self.layers)):
            one_hot: Form = {self._bit(layer, kind): 1.0 for kind in range(len(self.precisions))}
            one_hot[None] = -1.0
            total.add_product(one_hot, one_hot, penalty)
        return self._filled(total, self._hot_bit)

    def _filled(self, total: QuboSum, indicator: _Indicator) -> Qubo:
        kinds, last = range(len(self.precisions)), len(self.layers) - 1
        nothing: Form = {None: 1.0}
        for layer, row in enumerate(self.seconds):
            for kind in kinds:
                total.add_product(indicator(layer, kind), nothing, row[kind])
        for kind in kinds:
            total.add_product(indicator(0, kind), nothing, self.switch_seconds[0][0][kind])
            total.add_product(indicator(last, kind), nothing, self.switch_seconds[-1][kind][0])
        for place in range(1, len(self.layers)):
            for before in kinds:
                for after in kinds:
                    weight = self.switch_seconds[place][before][after]
                    total.add_product(indicator(place - 1, before), indicator(place, after), weight)
        return total.done()

    def _one_bit(self, layer: int, kind: int) -> Form:
        return {layer: 1.0} if kind else {layer: -1.0, None: 1.0}

    def _hot_bit(self, layer: int, kind: int) -> Form:
        return {self._bit(layer, kind): 1.0}

    def _bit(self, layer: int, kind: int) -> int:
        return layer * len(self.precisions) + kind

    def decoded(self, bits: Sequence[int]) -> tuple[int, ...] | None:
        kinds = len(self.precisions)
        if kinds == 2:
            return tuple(bits)
        rows = [bits[self._bit(layer, 0) : self._bit(layer, 0) + kinds] for layer in range(len(self.layers))]
        if any(sum(row) != 1 for row in rows):
            return None
        return tuple(list(row).index(1) for row in rows)

    def described(self, chosen: Sequence[int]) -> str:
        return ", ".join(f"{layer}: {self.precisions[kind]}" for layer, kind in zip(self.layers, chosen, strict=True))


@dataclasses.dataclass(frozen=True)
class StageChoice(Choice):
    """At which layers to cut a chain into pipeline stages, so that the stages are balanced.

    `seconds[layer]` is what a layer takes, `transfer_seconds[i]` what it takes to hand on what is between layers i and
    i + 1, which the earlier stage does. The cost is the sum of the squares of the stages' times, which is least where
    they are equal; `bottleneck` gives the longest, which is what a pipeline's rate depends on. Stages may stay empty,
    and hand on what passes through them.

    A bit for each layer but the first and each stage but the first says whether the layer is in that stage or a later
    one.

    Raises UsageError where there are fewer layers than stages, fewer than 2 stages, or times that cannot be.
    """

    layers: tuple[str, ...]
    seconds: tuple[float, ...]
    transfer_seconds: tuple[float, ...]
    stages: int = 2
    name = "balanced pipeline stages"
    unit = "s^2"

    def __post_init__(self) -> None:
        count = len(self.layers)
        if not 2 <= self.stages <= count or len(self.seconds) != count or len(self.transfer_seconds) != count - 1:
            raise UsageError(
                f"{count} layers with {len(self.seconds)} times and {len(self.transfer_seconds)} transfers cannot be "
                f"cut into {self.stages} stages; allowed are 2 stages up to the number of layers, a time for each "
                "layer and a transfer between each two"
            )
        _check_times([*self.seconds, *self.transfer_seconds])

    def loads(self, chosen: Sequence[int]) -> tuple[float, ...]:
        """The seconds of each stage."""
        found = [0.0] * self.stages
        for layer, stage in enumerate(chosen):
            found[stage] += self.seconds[layer]
            following = chosen[layer + 1] if layer + 1 < len(chosen) else stage
            for passed in range(stage, following):
                found[passed] += self.transfer_seconds[layer]
        return tuple(found)

    def bottleneck(self, chosen: Sequence[int]) -> float:
        """The seconds of the longest stage."""
        return max(self.loads(chosen))

    def cost(self, chosen: Sequence[int]) -> float:
        return math.fsum(load * load for load in self.loads(chosen))

    def qubo(self) -> Qubo:
        total = QuboSum((len(self.layers) - 1) * (self.stages - 1))
        even = [layer * self.stages // len(self.layers) for layer in range(len(self.layers))]
        penalty = MARGIN * min(self.cost(even), self.cost([0] * len(self.layers)))
        for stage in range(self.stages):
            load = self._load(stage)
            total.add_product(load, load)
        for layer in range(1, len(self.layers)):
            for stage in range(1, self.stages):
                here = self._bit(layer, stage)
                if layer + 1 < len(self.layers):  # a later layer is in no earlier stage
                    total.add(penalty, here)
                    total.add(-penalty, here, self._bit(layer + 1, stage))
                if stage + 1 < self.stages:  # who is in a later stage is past this one
                    beyond = self._bit(layer, stage + 1)
                    total.add(penalty, beyond)
                    total.add(-penalty, here, beyond)
        return total.done()

    def _load(self, stage: int) -> Form:
        """The seconds of one stage as a linear form of the bits."""
        form: Form = {}
        for layer, seconds in enumerate(self.seconds):
            _add(form, self._past(layer, stage), seconds)
            _add(form, self._past(layer, stage + 1), -seconds)
        for layer, seconds in enumerate(self.transfer_seconds):  # cut after this layer, at the end of this stage
            _add(form, self._past(layer + 1, stage + 1), seconds)
            _add(form, self._past(layer, stage + 1), -seconds)
        return form

    def _past(self, layer: int, stage: int) -> Form:
        """Whether a layer is in this stage or a later one."""
        if stage == 0:
            return {None: 1.0}
        if stage == self.stages or layer == 0:
            return {}
        return {self._bit(layer, stage): 1.0}

    def _bit(self, layer: int, stage: int) -> int:
        return (layer - 1) * (self.stages - 1) + stage - 1

    def decoded(self, bits: Sequence[int]) -> tuple[int, ...] | None:
        width = self.stages - 1
        rows = [tuple(bits[start : start + width]) for start in range(0, len(bits), width)]
        chosen = (0, *(sum(row) for row in rows))
        ordered = all(row == tuple(sorted(row, reverse=True)) for row in rows)
        return chosen if ordered and list(chosen) == sorted(chosen) else None

    def described(self, chosen: Sequence[int]) -> str:
        parts = []
        for stage in range(self.stages):
            inside = [layer for layer, at in zip(self.layers, chosen, strict=True) if at == stage]
            parts.append(f"[{', '.join(inside)}]" if inside else "[]")
        return " ".join(parts)


def _add(form: Form, other: Form, weight: float) -> None:
    for bit, factor in other.items():
        form[bit] = form.get(bit, 0.0) + weight * factor


def _check_times(values: Iterable[float]) -> None:
    for value in values:
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(f"a time of {value!r} cannot be used; allowed are finite seconds of 0 or more")
