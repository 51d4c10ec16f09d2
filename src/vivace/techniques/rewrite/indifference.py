"""Whether a program answers padded calls as it does without padding: tried on calls that are made to tell."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vivace.core.program import Model, Padding
from vivace.runtimes import batches, eager
from vivace.runtimes.settings.padding import Shapes, cut, padded, target_of

Call = Sequence[Tensor]
Place = tuple[int, int]
"""A flat input and one of its dimensions."""
MOST_TRIED = 40
"""Calls beside the examples, each answered with padding and without."""
SHORTEST = (1, 2, 3, 4, 5, 7, 9, 12)
"""Lengths that are tried until the program takes one."""
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, ArithmeticError)
"""What a program raises for a call that it does not take."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A call to try, and what is unlike the examples in its values; empty where nothing is."""

    leaves: Call
    told: str = ""

    @property
    def shapes(self) -> Shapes:
        """Of its flat inputs."""
        return tuple(tuple(leaf.shape) for leaf in self.leaves)


def counterexample(
    model: Model, examples: Sequence[Call], varying: Mapping[Place, list[int]], padding: Padding
) -> tuple[Trial, Shapes] | None:
    """A call that is answered otherwise when it is padded, and the shapes that it is padded to; None where none was
    found among some dozens.

    Tried are the examples; calls as short as the program takes, half as long as the longest, of some lengths between,
    and one shorter than the examples; in the first two of these lengths also other values of the same kind: numbers
    negated, smaller, drawn anew and the same in every row, other whole numbers that occur, masks that show all, one or
    nothing. What the program refuses without padding, or answers with NaN, tells nothing.
    """
    made = itertools.islice(_trials(model, examples, varying, padding), MOST_TRIED)
    for trial in itertools.chain(map(Trial, examples), made):
        target = target_of(trial.shapes, padding)
        if target is not None and target != trial.shapes and not _is_indifferent(model, trial.leaves, target, padding):
            return trial, target
    return None


def groups(varying: Mapping[Place, list[int]]) -> dict[tuple[int, ...], list[Place]]:
    """The varying dimensions by their lengths over the examples: those of the same lengths change together."""
    found: dict[tuple[int, ...], list[Place]] = {}
    for place, lengths in varying.items():
        found.setdefault(tuple(lengths), []).append(place)
    return found


def _is_indifferent(model: Model, leaves: Call, target: Shapes, padding: Padding) -> bool:
    """Whether the answer to a padded call, cut back, is that to the call; a call that is not taken has none."""
    wanted = _answer(model, leaves)
    if wanted is None:
        return True
    found = _answer(model, padded(leaves, target))
    if found is None:
        return False
    coarse = eager.is_coarse(model.program)
    return all(_agree(*pair, coarse) for pair in zip(wanted, cut(found, leaves, padding), strict=True))


def _answer(model: Model, leaves: Call) -> list[Tensor] | None:
    try:
        return eager.run_flat(model.program, leaves)
    except REFUSALS:
        return None


def _agree(wanted: Tensor, found: Tensor, coarse: bool) -> bool:
    if wanted.shape == found.shape and wanted.is_floating_point():
        found = torch.where(wanted.isnan(), wanted, found)
    return batches.close(wanted, found, coarse)


@dataclasses.dataclass(frozen=True)
class _Way:
    """Dimensions that change together, the longest example in them, and the least length that the program takes."""

    longest: Call
    places: tuple[Place, ...]
    most: int
    least: int

    def cut(self, length: int) -> list[Tensor]:
        """The longest example without what is behind a length."""
        return _shortened(self.longest, self.places, length)

    @property
    def middle(self) -> int:
        """A length that is neither the least nor the most, where there is one."""
        return max(self.least, self.most // 2)

    def between(self, padding: Padding) -> list[int]:
        """Further lengths: the second least, a quarter of the most, one more than each bucket's."""
        number, axis = self.places[0]
        lengths = {self.least + 1, self.most // 4, *(shapes[number][axis] + 1 for shapes in padding.buckets)}
        return sorted(n for n in lengths if self.least < n < self.most and n != self.middle)


def _trials(
    model: Model, examples: Sequence[Call], varying: Mapping[Place, list[int]], padding: Padding
) -> Iterator[Trial]:
    """Made calls, those that tell the most first."""
    ways = list(_ways(model, examples, varying))
    guises = list(_guises(examples, varying))
    middles = [way.cut(way.middle) for way in ways if way.middle > way.least]
    for leaves in (*(way.cut(way.least) for way in ways), *middles):
        yield Trial(leaves)
        yield from (Trial(change(leaves), told) for told, change in guises)
    for way in ways:
        yield from (Trial(way.cut(n)) for n in way.between(padding))
    for lengths, places in groups(varying).items():
        pairs = zip(examples, lengths, strict=True)
        yield from (Trial(_shortened(leaves, places, n - 1)) for leaves, n in pairs if n > 1)


def _ways(model: Model, examples: Sequence[Call], varying: Mapping[Place, list[int]]) -> Iterator[_Way]:
    for lengths, places in groups(varying).items():
        longest, most = examples[lengths.index(max(lengths))], max(lengths)
        for least in SHORTEST:
            if least < most and _answer(model, _shortened(longest, places, least)) is not None:
                yield _Way(longest, tuple(places), most, least)
                break


def _shortened(leaves: Call, places: Sequence[Place], length: int) -> list[Tensor]:
    """A call without what is behind a length, in dimensions that change together."""
    found = list(leaves)
    for number, axis in places:
        found[number] = found[number].narrow(axis, 0, length).contiguous()  # programs may look at it anew
    return found


Change = Callable[[Call], list[Tensor]]


def _guises(examples: Sequence[Call], varying: Mapping[Place, list[int]]) -> Iterator[tuple[str, Change]]:
    """Ways to change a call's values to others of the same kind, and each in words."""
    count = len(examples[0])
    masks = [number for number in range(count) if _is_mask(examples, number)]
    numbers = [n for n in range(count) if n not in masks and examples[0][n].is_floating_point()]
    tokens = [n for n in range(count) if n not in masks and n not in numbers and not examples[0][n].is_complex()]
    alike = {n: max((axis for number, axis in varying if number == n), default=None) for n in range(count)}
    occurring = {n: torch.cat([leaves[n].flatten() for leaves in examples]) for n in tokens}
    if numbers:
        yield "its numbers negated", _changing(numbers, lambda _, leaf: -leaf)
        yield "a quarter of its numbers", _changing(numbers, lambda _, leaf: leaf / 4)
        yield "its numbers drawn anew", _changing(numbers, lambda _, leaf: _drawn(leaf))
    if tokens:
        yield "other whole numbers that occur", _changing(tokens, lambda n, leaf: _chosen(leaf, occurring[n]))
    if numbers or tokens:
        changed = [n for n in (*numbers, *tokens) if alike[n] is not None]
        yield "the first of its rows repeated", _changing(changed, lambda n, leaf: _repeated(leaf, alike[n]))
    if masks:
        yield "a mask that shows all", _changing(masks, lambda _, leaf: torch.ones_like(leaf))
        yield "a mask that shows one", _changing(masks, lambda n, leaf: _first(leaf, alike[n]))
        yield "a mask that shows nothing", _changing(masks, lambda _, leaf: torch.zeros_like(leaf))


def _is_mask(examples: Sequence[Call], number: int) -> bool:
    """Whether an input holds true and false, or nothing but ones and zeros."""
    leaves = [call[number] for call in examples]
    if leaves[0].dtype is torch.bool or leaves[0].is_complex():
        return leaves[0].dtype is torch.bool
    return all(bool(((leaf == 0) | (leaf == 1)).all()) for leaf in leaves) and any(bool(leaf.any()) for leaf in leaves)


def _changing(numbers: Sequence[int], change: Callable[[int, Tensor], Tensor]) -> Change:
    return lambda leaves: [change(n, leaf) if n in numbers else leaf for n, leaf in enumerate(leaves)]


def _generator(leaf: Tensor) -> torch.Generator:
    return torch.Generator(leaf.device).manual_seed(leaf.numel())


def _drawn(leaf: Tensor) -> Tensor:
    """Of the mean and spread that it has."""
    spread, mean = torch.std_mean(leaf.double(), correction=0)
    noise = torch.randn(leaf.shape, generator=_generator(leaf), device=leaf.device, dtype=torch.float64)
    return (mean + spread * noise).to(leaf.dtype)


def _chosen(leaf: Tensor, occurring: Tensor) -> Tensor:
    places = torch.randint(occurring.numel(), leaf.shape, generator=_generator(leaf), device=leaf.device)
    return occurring[places]


def _repeated(leaf: Tensor, axis: int | None) -> Tensor:
    return leaf if axis is None else leaf.narrow(axis, 0, 1).expand(leaf.shape).contiguous()


def _first(leaf: Tensor, axis: int | None) -> Tensor:
    found = torch.zeros_like(leaf)
    found.narrow(-1 if axis is None else axis, 0, 1).fill_(1)
    return found
