"""A rig's step as compiled code: gradients and update in one call, and many steps of an epoch in one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.training.rig import Rig
from vivace.training.fused_update import has_hooks, steps_as_its_class
from vivace.training.native.as_drawn import AsDrawn
from vivace.training.native.compiled import Compiled
from vivace.training.native.leaves import leaf_of
from vivace.training.native.source import StepPlan, source_of
from vivace.training.native.tables import RoundedTables
from vivace.training.native.taken_apart import decomposed
from vivace.training.native.unwritten import without_writes
from vivace.training.native.update import Rule, begin, numbers_of, rule_of
from vivace.training.recording import LOOKS, RecordedGradients, Recording, check_same, places_of, record
from vivace.training.standing import Standing, State

Build = Callable[[str], Compiled]
"""Makes a source callable."""
MOST_AT_ONCE = 1024
"""Steps of one call: somebody may want to stop, or to know."""


@dataclasses.dataclass
class _Built:
    """A compiled step, and what it was made for."""

    compiled: Compiled
    recording: Recording
    rules: dict[int, Rule]
    standing: State
    shapes: list[Any]
    dtypes: list[torch.dtype]
    gradients: list[Tensor]
    narrow: tuple[int, ...]
    draws: int
    addresses: list[int] = dataclasses.field(default_factory=list)


class NativeTraining:
    """Takes whole steps, the update included, in code that was generated for the job's usual batch. Returns losses,
    detached; gradients are in the parameters afterwards.

    Weights, gradients and the optimizer's state stay where they are: the code is given their addresses at every call.
    Batches of another size, such as the last one of an epoch, and steps after parameters were frozen or freed, are
    played back operator by operator, with the optimizer's own update. What a step draws (dropout) comes of a key for
    each step, which PyTorch's generator gives: other masks than PyTorch's, and the same in a run that is resumed.

    Raises NotApplicable, at the first batch, where the step cannot be recorded, or has an operator that there is no C
    for. Raises StepChanged where the step becomes another one later on, which is looked at now and then, and whenever
    `look` is called.
    """

    def __init__(self, rig: Rig, usual: int | None, vector: Vector, cores: int, build: Build) -> None:
        self._rig = rig
        self._usual = usual
        self._vector = vector
        self._cores = cores
        self._build = build
        self._plain = RecordedGradients(rig, usual)
        self._parameters = list(rig.model.parameters())
        self._places = places_of(rig.model)
        self._built: _Built | None = None
        self._standing = Standing(rig.model)
        self._others: set[State] = set()
        self._steps = 0
        self._last: tuple[_Built, Callable[[], Any]] | None = None
        self._rows: tuple[int, Tensor] | None = None
        self._rounded = RoundedTables()
        self._drawn_by_code = 0

    def __call__(self, batch: Any) -> Tensor:
        """One step on a batch; its loss."""
        leaves = pytree.tree_leaves(batch)
        found = self._ready(_told(leaves), lambda: batch)
        if found is None:
            self._drawn_by_code = 0
            loss = self._plain(batch)
            self._rig.update()
            return loss
        given = [leaf.contiguous() for leaf in leaves if torch.is_tensor(leaf)]
        with torch.profiler.record_function("native::step"):
            return self._run(found, given, None, 1)[0]

    def updated(self) -> None:
        """Nothing: the update was a part of the step."""

    def several(self, epoch: int, first: int, most: int) -> Tensor | None:
        """Up to `most` steps on whole batches of an epoch, from number `first` on; their losses. None where the next
        batch has to be given as it is: no table holds all samples, or it is the smaller last one."""
        table = tabled(self._rig.feed)
        if table is None or self._usual is None:
            return None
        rows = self._rows_of(epoch, table)
        count = min(most, MOST_AT_ONCE, len(rows) // self._usual - first)
        if count <= 0:
            return None
        ahead = rows[first * self._usual :]
        shapes = [(torch.Size((self._usual, *column.shape[1:])), column.dtype) for column in table.columns]
        found = self._ready(shapes, lambda: table.batch(ahead[: self._usual]), count)
        return None if found is None else self._run(found, table.columns, ahead, count)

    def look(self) -> None:
        """Raise StepChanged where the last step would be another one by now."""
        if self._last is not None and self._last[0].standing == self._standing.now():
            found, batch = self._last
            check_same(found.recording, record(self._rig, batch(), decomposed()))
        self._plain.look()

    def masks(self) -> tuple[Callable[[], AsDrawn], ...]:
        """What the original takes its forward pass in, to draw from the same generator what the last step drew."""
        return (functools.partial(AsDrawn, self._drawn_by_code),) if self._drawn_by_code else ()

    def _rows_of(self, epoch: int, table: Any) -> Tensor:
        if self._rows is None or self._rows[0] != epoch:
            order: Any = self._rig.feed.order  # type: ignore[attr-defined]
            self._rows = epoch, table.rows_of(order.whole(epoch)).contiguous()
        return self._rows[1]

    def _ready(self, shapes: list[Any], batch: Callable[[], Any], count: int = 1) -> _Built | None:
        """What takes these steps, on batches of these `shapes` and like the one that `batch` makes; None where another
        one, or another state of the model, was compiled for."""
        if self._built is None:
            size = next((one[0][0] for one in shapes if isinstance(one, tuple) and one[0]), None)
            if self._usual is not None and size != self._usual:
                return None
            self._built = self._made(batch(), shapes)
        found = self._built
        standing = self._standing.now()
        if standing != found.standing and shapes == found.shapes and standing not in self._others:
            if self._is_the_same(found.recording, batch()):
                found.standing = standing
            else:
                self._others.add(standing)
        if standing != found.standing or shapes != found.shapes or self._rules(tuple(found.rules)) != found.rules:
            return None
        if any(self._steps < look <= self._steps + count for look in LOOKS):
            check_same(found.recording, record(self._rig, batch(), decomposed()))
        self._last = found, batch
        return found

    def _made(self, batch: Any, shapes: list[Any]) -> _Built:
        optimizer, leaves = self._rig.optimizer, pytree.tree_leaves(batch)
        if has_hooks(optimizer) or not steps_as_its_class(optimizer):
            raise NotApplicable("the optimizer's step has hooks, or was put in the place of its own")
        table, before = decomposed(), self._standing.now()
        recording = record(self._rig, batch, table)
        if not recording.computes_as(record(self._rig, batch, table)):
            raise NotApplicable("recorded twice, the step is not the same: it depends on what changes beside the model")
        self._standing.settle(before)
        tensors = self._tensors()
        _check(tensors, [one.dtype for one in tensors])
        rules = self._rules(recording.learning)
        plan = StepPlan(
            graph=without_writes(recording.graph),
            state=tuple(leaf_of("model", one.shape, one.dtype) for one in tensors),
            leaves=tuple(leaf_of("batch", leaf.shape, leaf.dtype) for leaf in leaves if torch.is_tensor(leaf)),
            rules=rules,
            rows=self._usual,
            vector=self._vector,
            threads=min(self._cores, torch.get_num_threads()),
        )
        source = source_of(plan)
        compiled = self._build(source.text)
        gradients = [torch.zeros_like(self._parameters[number]) for number in recording.learning]
        return _Built(
            compiled, recording, rules, self._standing.now(), shapes, [one.dtype for one in tensors], gradients,
            source.narrow, source.draws,
        )  # fmt: skip

    def _run(self, built: _Built, columns: Sequence[Tensor], rows: Tensor | None, count: int) -> Tensor:
        """Take steps, and leave everything as the optimizer would."""
        state, groups = self._rig.optimizer.state, self._groups()
        tensors = self._tensors()
        numbers: list[float] = []
        learning = [self._parameters[number] for number in built.rules]
        for parameter, gradient, rule in zip(learning, built.gradients, built.rules.values(), strict=True):
            begin(self._rig.optimizer, rule, parameter)
            own = state[parameter]
            numbers += numbers_of(rule, groups[id(parameter)], own)
            tensors += [gradient, *(own[name] for name in rule.state)]
        _check(tensors, built.dtypes + [torch.float32] * (len(tensors) - len(built.dtypes)))
        losses = torch.empty(count)
        places = [one.data_ptr() for one in tensors]
        if places != built.addresses:
            _check_apart(tensors)
            built.addresses = places
        addresses = torch.tensor(places, dtype=torch.int64)
        narrow = [None for _ in built.narrow] if rows is None else self._rounded.of(columns, built.narrow)
        sources = torch.tensor([0 if one is None else one.data_ptr() for one in (*columns, *narrow)], dtype=torch.int64)
        given = torch.tensor(numbers, dtype=torch.float64)
        order = None if rows is None else rows.data_ptr()
        keys = torch.empty(count, dtype=torch.int64).random_() if built.draws else None
        by = None if keys is None else keys.data_ptr()
        lists = (addresses.data_ptr(), given.data_ptr(), order, sources.data_ptr(), by, count, losses.data_ptr())
        if not built.compiled.run(*lists):
            raise UsageError(
                f"in one of the steps {self._steps + 1} to {self._steps + count} a batch holds a class or an index "
                "that the model does not have; allowed are whole numbers from 0 to the count of classes or rows less 1"
            )
        self._steps += count
        self._drawn_by_code = built.draws
        steps = [state[parameter]["step"] for parameter in learning if "step" in state[parameter]]
        if steps:
            torch._foreach_add_(steps, count)
        if self._rig.schedule is not None:
            self._rig.optimizer._opt_called = True  # type: ignore[attr-defined]  # a schedule warns by it
        for parameter in self._parameters:
            parameter.grad = None
        for parameter, gradient in zip(learning, built.gradients, strict=True):
            parameter.grad = gradient
        return losses

    def _groups(self) -> dict[int, Mapping[str, Any]]:
        """The optimizer's settings of each parameter, looked up anew: loading a checkpoint puts others there."""
        return {id(one): group for group in self._rig.optimizer.param_groups for one in group["params"]}

    def _rules(self, learning: Sequence[int]) -> dict[int, Rule]:
        groups = self._groups()
        return {number: rule_of(self._rig.optimizer, groups[id(self._parameters[number])]) for number in learning}

    def _tensors(self) -> list[Tensor]:
        return [holder[name] for holder, name in self._places]

    def _is_the_same(self, recording: Recording, batch: Any) -> bool:
        """Whether a step of the model as it stands now is the recorded one."""
        try:
            return recording.computes_as(record(self._rig, batch, decomposed()))
        except NotApplicable:
            return False


def _told(leaves: Sequence[Any]) -> list[Any]:
    """What code is compiled for of a batch's leaves: shapes and types of tensors, and all else as it is."""
    return [(leaf.shape, leaf.dtype) if torch.is_tensor(leaf) else leaf for leaf in leaves]


def tabled(feed: Any) -> Any | None:
    """The table that holds all samples of a feed which cuts its batches from one; None for other feeds."""
    table = getattr(feed, "table", None)
    if table is None or not table.is_whole or feed.augment is not None:
        return None
    return table if all(column.is_contiguous() for column in table.columns) else None


def _check(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> None:
    """Raise NotApplicable for tensors that code cannot be given, or that are not what it was made for."""
    pairs = zip(tensors, dtypes, strict=True)
    wrong = next((one for one, dtype in pairs if one.dtype is not dtype or not one.is_contiguous()), None)
    if wrong is not None or any(one.device.type != "cpu" for one in tensors):
        what = "another device" if wrong is None else f"{wrong.dtype} with strides {list(wrong.stride())}"
        raise NotApplicable(f"the model or its optimizer holds a tensor of {what}; compiled steps take dense ones")


def _check_apart(tensors: Sequence[Tensor]) -> None:
    """Raise NotApplicable where two tensors share memory: what writes one would change the other unseen."""
    ranges = sorted((one.data_ptr(), one.data_ptr() + one.nbytes) for one in tensors if one.numel())
    if any(later < end for (_, end), (later, _) in itertools.pairwise(ranges)):
        raise NotApplicable("two of the model's or its optimizer's tensors lie in the same memory")
