"""Watches the operators of steps one by one: their seconds, their operations, and what each of them moves."""

from __future__ import annotations

import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vivace.core.training.bound import Bandwidth
from vivace.devices.bandwidths import seconds_to_move
from vivace.runtimes.graphs.flops import formula_of

MOST_LOOKED_AT = 4096
"""Tensors that are looked through for when one was used last."""
LAUNCHES = 200
TABLES = frozenset({"embedding", "_embedding_bag"})
"""Of whose first tensor as many rows are read as the second has numbers."""
LOOKED_UP = frozenset({"index_select", "gather", "index", "take"})
"""Of whose first tensor as much is read as the answer has."""
PUT_INTO = frozenset({"index_put_", "_index_put_impl_", "index_add_", "index_copy_", "scatter_", "scatter_add_"})
"""Of whose first tensor as much is read and written as the others have."""
WRITTEN_ONLY = frozenset(
    {"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "exponential_", "random_", "_foreach_zero_",
     "_foreach_copy_"}
)  # fmt: skip
"""Whose own tensor is written and not read."""
MADE_ONLY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"})
"""That give memory and touch none of it."""


@dataclasses.dataclass
class Call:
    """One call of an operator. `memory_seconds` is the least that its bytes take, at the rates measured here."""

    phase: str
    operator: str
    seconds: float
    flops: float
    moved_bytes: float
    memory_seconds: float


class Recency:
    """Memory in the order in which it was used: how much else was used since."""

    def __init__(self, most_bytes: float) -> None:
        self._most = most_bytes
        self._used: OrderedDict[int, int] = OrderedDict()

    def distance(self, place: int) -> float:
        """Bytes that were used since this place was; `most_bytes` where that is more, or it was never used.

        >>> seen = Recency(100.0)
        >>> seen.use(1, 30), seen.use(2, 20), seen.distance(1), seen.distance(2), seen.distance(3)
        (None, None, 20.0, 0.0, 100.0)
        """
        since = 0.0
        for other in itertools.islice(reversed(self._used), MOST_LOOKED_AT):
            if other == place:
                return since
            since += self._used[other]
            if since >= self._most:
                break
        return self._most

    def use(self, place: int, size: int) -> None:
        """So many bytes there are used now."""
        self._used[place] = size
        self._used.move_to_end(place)


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, every operator below autograd is timed and weighed, and noted under `phase`.

    `now` is a clock that has waited for the device. An operator inside another one, and what a compiler made of
    several, is not seen by itself.
    """

    def __init__(self, now: Callable[[], float], known: Sequence[Bandwidth], device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "backward"
        self.calls: list[Call] = []
        self._now = now
        self._device = device
        self._known = known
        self._recency = Recency(float(known[-1].working_set_bytes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        started = self._now()
        answer = func(*args, **kwargs)
        seconds = self._now() - started
        formula = formula_of(func.overloadpacket)
        flops = 0.0 if formula is None else float(formula(*args, **kwargs, out_val=answer))
        moved = list(_moved(func, args, kwargs, answer))
        whole = sum(size for _, size, _ in moved)
        least = 0.0
        for place, size, is_new in moved:
            least += self._least(place, size, whole, is_new)
            self._recency.use(place, size)
        self.calls.append(Call(self.phase, _name(func), seconds, flops, float(whole), least))
        return answer

    def _least(self, place: int, size: int, whole: int, is_new: bool) -> float:
        since = self._recency.distance(place)
        if is_new:
            return max(
                seconds_to_move(size, 2 * size, self._known, is_new=True),
                seconds_to_move(size, whole, self._known),
            )
        return seconds_to_move(size, max(since + size, whole), self._known)

    def noting(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, whose operators are noted under a phase."""

        def noted(*arguments: Any) -> Any:
            before, self.phase = self.phase, phase
            try:
                return call(*arguments)
            finally:
                self.phase = before

        return noted

    def taken(self) -> list[Call]:
        """The calls since the last time."""
        found, self.calls = self.calls, []
        return found

    def launch_seconds(self) -> float:
        """What an operator on a single number takes, seen in the same way."""
        one, kept = torch.ones(1, device=self._device), self.taken()
        with self:
            for _ in range(LAUNCHES):
                torch.add(one, one)
        found = min(call.seconds for call in self.taken())
        self.calls = kept
        return found


def fastest(steps: Sequence[Sequence[Call]]) -> list[Call]:
    """The calls of one step, each with the fewest seconds of all steps where these called the same; else of the
    shortest step; none of no step."""
    names = [[(call.phase, call.operator) for call in step] for step in steps]
    if not steps:
        return []
    shortest = min(steps, key=lambda step: sum(call.seconds for call in step))
    if any(one != names[0] for one in names):
        return list(shortest)
    return [dataclasses.replace(row[-1], seconds=min(call.seconds for call in row)) for row in zip(*steps, strict=True)]


def _moved(func: Any, args: Any, kwargs: Mapping[str, Any], answer: Any) -> Iterator[tuple[int, int, bool]]:
    """Where each tensor lies that an operator reads or writes, how many bytes of it, and whether it was made anew. What
    is read and written is there twice."""
    name = func.overloadpacket.__name__
    given = list(_given(func, args, kwargs))
    places = {_place(tensor) for tensor, _ in given}
    new = [tensor for tensor in _tensors(answer) if _place(tensor) not in places]
    if name in MADE_ONLY or (not new and not any(is_written for _, is_written in given)):
        return  # another view of the same memory
    for number, (tensor, is_written) in enumerate(given):
        size = _bytes(tensor) if number else _touched(name, given, new)
        if not (is_written and name in WRITTEN_ONLY):
            yield _place(tensor), size, False
        if is_written:
            yield _place(tensor), size, False
    for tensor in new:
        yield _place(tensor), _bytes(tensor), True


def _touched(name: str, given: Sequence[tuple[Tensor, bool]], new: Sequence[Tensor]) -> int:
    """How many bytes of its first tensor an operator uses."""
    tensors = [tensor for tensor, _ in given]
    size = _bytes(tensors[0])
    if name in TABLES:
        return min(size, tensors[1].numel() * size // max(1, len(tensors[0])))
    if name in LOOKED_UP:
        return min(size, sum(map(_bytes, new)))
    return min(size, sum(map(_bytes, tensors[1:]))) if name in PUT_INTO else size


def _given(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[Tensor, bool]]:
    """The tensors that an operator gets, and whether it writes to them."""
    for number, argument in enumerate(func._schema.arguments):
        value = args[number] if number < len(args) else kwargs.get(argument.name)
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        yield from ((tensor, is_written) for tensor in _tensors(value))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if torch.is_tensor(leaf) and leaf.layout is torch.strided]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    """Of its elements in memory: what is repeated by a stride of 0 lies there once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else min(size, 1)
    return count * tensor.element_size()


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)
