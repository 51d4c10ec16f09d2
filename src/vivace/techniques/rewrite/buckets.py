"""Pads calls that come in many shapes to few, for which compilers can make code of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import MOST_BUCKETS, MOST_PADDED, Model, Padding
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import eager
from vivace.runtimes.settings.padding import Shapes, bucket_of, holds, padded, size_of
from vivace.techniques.graph import torch_program
from vivace.techniques.rewrite.indifference import Call, Place, counterexample, groups

COUNTS = (4, 1)
"""As many buckets as OpenVINO compiles for themselves, and one."""
MOST_GROWTH = 1.5
"""More padding than this, of the numbers that all shapes hold together, is not offered."""
GUESSED_GROWTH, EXACT_GAIN = 1.2, 1.15
"""What padding adds; what code for exact shapes gains (1.0 to 1.3 of MiniLM's, `benchmarks/results/shapes.json`)."""


@dataclasses.dataclass(frozen=True)
class Buckets(Technique):
    """Calls padded with zeros to the nearest of `count` of the shapes that they come in, their answers cut back.

    For a workload with a `mix` of more shapes than buckets, before a compiler whose code for exact shapes is faster
    than that for any. Zeros (False in a mask) are put behind the last row or token. Rows do not see each other; tokens
    do, unless a mask hides what is padded: a program whose answers to padded calls are not those to the calls, in the
    mix's shapes and in shorter ones, with its values and with others made to tell (a mask that shows nothing, where
    that has an answer), is refused with the shape and what told. Every plan is judged in every shape of the mix
    besides. A call that fits in no bucket runs as it is, and so does one in which dimensions differ that are equally
    long in all shapes of the mix. Raises NotApplicable with the reason, UsageError unless count is a whole number from
    1 to 32.

    Source: https://docs.pytorch.org/docs/stable/torch.compiler_dynamic_shapes.html, on code for exact shapes.

    >>> str(Buckets(count=2))
    'buckets(count=2)'
    """

    count: int = 4

    stage = Stage.REWRITE
    """Before what compiles, and what converts to calibrate."""
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED})
    source = "https://docs.pytorch.org/docs/stable/torch.compiler_dynamic_shapes.html"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MOST_BUCKETS:
            raise UsageError(
                f"buckets received count={self.count!r}; allowed is a whole number from 1 to {MOST_BUCKETS}"
            )

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Four and one, where there are more shapes and these few hold all of them without much padding."""
        shapes = [_shapes(leaves) for leaves in _examples(work)]
        for count in COUNTS:
            chosen = best_buckets(shapes, count) if count < len(shapes) else None
            if chosen is not None and growth(shapes, chosen) <= MOST_GROWTH:
                yield cls(count)

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Padding is work that only a compiler can repay."""
        if not any(other.stage is Stage.COMPILE for other in others):
            return f"{self} gains nothing without a compiler (add openvino, inductor or another)"
        return None

    def rewrite(self, cost: Cost) -> Cost:
        """More work, in code for exact shapes."""
        return cost.replace(
            flops=cost.flops * GUESSED_GROWTH,
            activation_bytes=cost.activation_bytes * GUESSED_GROWTH,
            efficiency=min(1.0, cost.efficiency * EXACT_GAIN),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with buckets in its settings; its example becomes the bucket of the most frequent shape."""
        program, examples = torch_program(model), _examples(work)
        shapes = [_shapes(leaves) for leaves in examples]
        if len(shapes) <= self.count:
            raise NotApplicable(
                f"calls come in {len(shapes)} shapes, which {self.count} buckets would not make fewer (give a mix of "
                "more)"
            )
        chosen = best_buckets(shapes, self.count)
        if chosen is None:
            raise NotApplicable(f"no {self.count} of the shapes that calls come in hold all others")
        if size_of(max(chosen, key=size_of)) > MOST_PADDED:
            raise NotApplicable(f"a call holds more than the {MOST_PADDED:,} numbers that one may be padded to")
        with torch.no_grad():
            padding = _proved(model, examples, chosen)
        main = bucket_of(shapes[0], chosen) or shapes[0]
        program.example_inputs = (tuple(padded(examples[0], main)), {})
        return model.replace(settings=model.settings.replace(padding=padding), lineage=(*model.lineage, str(self)))


def best_buckets(shapes: Sequence[Shapes], count: int) -> tuple[Shapes, ...] | None:
    """So many of the shapes that hold all of them, with little padding, each counted once; None where none do.

    The shape that is missed least is given up, until so many are left.

    >>> best_buckets([((1, 4),), ((1, 7),), ((1, 8),)], 2)
    (((1, 4),), ((1, 8),))
    """
    chosen = tuple(sorted(shapes, key=size_of))
    while len(chosen) > count:
        fewer = (tuple(other for other in chosen if other is not one) for one in chosen)
        fitting = [some for some in fewer if all(any(holds(one, shape) for one in some) for shape in shapes)]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda some: growth(shapes, some))
    return chosen


def growth(shapes: Sequence[Shapes], chosen: Sequence[Shapes]) -> float:
    """How many times as many numbers the padded calls hold as the calls.

    >>> growth([((1, 4),), ((1, 8),)], [((1, 8),)])
    1.3333333333333333
    """
    return sum(size_of(bucket_of(shape, chosen) or shape) for shape in shapes) / sum(map(size_of, shapes))


def _proved(model: Model, examples: Sequence[Call], chosen: tuple[Shapes, ...]) -> Padding:
    """The padding, after the program answered padded calls as it does without. Raises NotApplicable."""
    wanted = [eager.run_flat(model.program, leaves) for leaves in examples]
    varying = _varying(examples)
    padding = Padding(chosen, tuple(varying), tuple(_cuts(varying, wanted)), tuple(_alike(varying)))
    told = counterexample(model, examples, varying, padding)
    if told is not None:
        trial, target = told
        values = f" ({trial.told})" if trial.told else ""
        raise NotApplicable(
            f"it is not indifferent to padding: calls of {_told(trial.shapes)}{values} padded with zeros to "
            f"{_told(target)} get other answers (a mean over tokens without a mask does that)"
        )
    return padding


def _varying(examples: Sequence[Call]) -> dict[Place, list[int]]:
    """The lengths that each dimension of an input has over the shapes, where they differ."""
    lengths = {
        (number, axis): [leaves[number].shape[axis] for leaves in examples]
        for number, leaf in enumerate(examples[0])
        for axis in range(leaf.dim())
    }
    return {place: found for place, found in lengths.items() if len(set(found)) > 1}


def _cuts(varying: Mapping[Place, list[int]], answers: Sequence[Call]) -> Iterator[tuple[int, int, int, int]]:
    """Which dimension of an output is as long as which varying one of an input, in every shape."""
    for number, leaf in enumerate(answers[0]):
        for axis in range(leaf.dim()):
            found = [answer[number].shape[axis] for answer in answers]
            source = next((place for place, lengths in varying.items() if lengths == found), None)
            if source is not None:
                yield number, axis, *source


def _alike(varying: Mapping[Place, list[int]]) -> Iterator[tuple[int, int, int, int]]:
    """Pairs of varying dimensions that are as long as each other in every shape."""
    for places in groups(varying).values():
        yield from ((*places[0], *other) for other in places[1:])


def _examples(work: Work) -> list[Call]:
    """One call of each shape, the most frequent first."""
    return [] if work.example is None else list(samples.read(work.example))


def _shapes(leaves: Call) -> Shapes:
    return tuple(tuple(leaf.shape) for leaf in leaves)


def _told(shapes: Shapes) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
