"""Records what a step computes, forward and backward, as a flat list of operators that runs again without autograd."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree

from vivace.core.errors import NotApplicable, StepChanged
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.training.checkpoint import Generators
from vivace.training.standing import Standing, State
from vivace.training.step import accumulate, around

Compiler = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]
"""(graph, example inputs) -> the same function, faster."""

PLAIN = (Tensor, str, bytes, int, float, complex, np.generic, type(None), torch.dtype, torch.device)
"""What batches may consist of: tensors, which are given to a recording, and what cannot change."""
MOST_SHAPES = 8
"""Batches of further shapes are computed as before: recording one costs as much as some dozen steps."""
LOOKS = frozenset({10**power for power in range(1, 7)})
"""After so many steps the step is recorded anew, to see whether it still computes the same."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A step on batches of one shape: (tensors of the model, leaves of the batch) -> (loss, gradients).

    `learning` numbers the parameters that get a gradient, in the order of those that the graph returns.
    """

    graph: torch.fx.GraphModule
    learning: tuple[int, ...]

    def computes_as(self, other: Recording) -> bool:
        """Whether both run the same operators with the same numbers."""
        return (
            self.graph.code == other.graph.code
            and self.learning == other.learning
            and all(_equal(mine, theirs) for mine, theirs in zip(_constants(self), _constants(other), strict=True))
        )


class RecordedGradients:
    """Sets the gradients of whole batches by recordings, one for each shape. Returns the loss, detached.

    Buffers that the forward pass writes are written as before, random numbers drawn as before. Tensors are taken from
    the model at every step, so their values may be put in place by others; a step after parameters were frozen or
    freed, modules switched between training and evaluation, or a plain attribute of one set, is recorded anew
    (`Standing`). With `compiler`, batches
    of the job's usual shape (`usual` samples; the first one's where that is None) run what it makes of the recording;
    the others, such as the last and smaller one of an epoch, are played back operator by operator, because a
    compilation costs more than they ever save.

    Raises NotApplicable at the first batch where a step cannot be recorded: control flow that depends on values, hooks
    on parameters, what draws in the backward pass (as checkpoints with dropout do), tensors beside the model's that the
    step writes, or a step that is another one each time. Raises StepChanged where it becomes another one later on,
    which is looked at now and then, and whenever `look` is called.
    """

    def __init__(self, rig: Rig, usual: int | None = None, compiler: Compiler | None = None) -> None:
        self._rig = rig
        self._usual = usual
        self._compiler = compiler
        self._played: dict[Any, tuple[Callable[..., Any], Recording]] = {}
        self._parameters = [parameter for _, parameter in rig.model.named_parameters()]
        self._standing = Standing(rig.model)
        self._places: list[tuple[dict[str, Any], str]] = []
        self._steps = 0
        self._last: tuple[Recording, Any, State] | None = None

    def __call__(self, batch: Any) -> Tensor:
        """The loss of a batch; its gradients are in the parameters afterwards."""
        leaves, spec = pytree.tree_flatten(batch)
        _refuse_strangers(leaves)
        like = (spec, *map(_shape_of, leaves))
        found = self._played.get((self._standing.now(), *like))
        if found is None:
            if len(self._played) >= MOST_SHAPES:
                return self._eagerly(batch)
            before = self._standing.now()
            found = self._prepared(batch, leaves, like)
            self._standing.settle(before)
            self._played[self._standing.now(), *like] = found
        self._steps += 1
        if self._steps in LOOKS:
            check_same(found[1], record(self._rig, batch))
        self._last = found[1], batch, self._standing.now()
        return self._play(*found, [leaf for leaf in leaves if torch.is_tensor(leaf)])

    def look(self) -> None:
        """Raise StepChanged where the last step would be another one by now. Where the model stands otherwise than in
        it, the next step is recorded anew in any case."""
        if self._last is not None and self._last[2] == self._standing.now():
            check_same(self._last[0], record(self._rig, self._last[1]))

    def _play(self, run: Callable[..., Any], recording: Recording, given: list[Tensor]) -> Tensor:
        with torch.no_grad():
            loss, *gradients = run(*[holder[name] for holder, name in self._places], *given)
        if len(recording.learning) < len(self._parameters):
            for parameter in self._parameters:
                parameter.grad = None
        for number, gradient in zip(recording.learning, gradients, strict=True):
            self._parameters[number].grad = gradient
        answer: Tensor = loss
        return answer

    def _eagerly(self, batch: Any) -> Tensor:
        self._rig.optimizer.zero_grad(set_to_none=True)
        return accumulate(self._rig, batch)

    def _prepared(self, batch: Any, leaves: Sequence[Any], like: Any) -> tuple[Callable[..., Any], Recording]:
        self._places = self._places or places_of(self._rig.model)
        recording = record(self._rig, batch)
        if not recording.computes_as(record(self._rig, batch)):
            raise NotApplicable("recorded twice, the step is not the same: it depends on what changes beside the model")
        for key, known in self._played.items():
            if key[1:] == like and recording.computes_as(known[1]):  # what was set makes no other step: compiled once
                del self._played[key]
                return known
        size = next((leaf.shape[0] for leaf in leaves if torch.is_tensor(leaf) and leaf.ndim), None)
        is_usual = size == self._usual if self._usual is not None else not self._played
        if self._compiler is None or not is_usual:
            return recording.graph.forward, recording
        state = [value.detach() for value in _state(self._rig.model).values()]
        inputs = [*state, *(leaf for leaf in leaves if torch.is_tensor(leaf))]
        return self._compiler(recording.graph, inputs), recording


def check_same(recording: Recording, again: Recording) -> None:
    """Raise StepChanged where a step that was recorded again is another one."""
    if not recording.computes_as(again):
        raise StepChanged(
            "the model computes something else by now than when its step was recorded: train without recorded-step, "
            "compiled-training and native-step (--without)"
        )


def computed_by(passes: Callable[[Any], Tensor], rig: Rig, look: Callable[[], None] | None = None) -> Rig:
    """A rig whose gradients are set by these passes; of several processes each computes its share by them. `look` is
    the rig's.

    Raises NotApplicable where processes hold parts of the model, and where a step of theirs cannot be taken apart.
    """
    rig = rig.replace(look=look)
    if rig.ranks is None:
        return rig.replace(gradients=passes)
    if rig.spread is None:
        raise NotApplicable("other processes hold parts of the model, which are exchanged in the midst of a step")
    return rig.replace(gradients=rig.spread(passes))


def whole_passes(rig: Rig) -> Callable[[Any], Tensor]:
    """Forward and backward pass by autograd, as one process takes them; returns the loss."""
    alone = rig.replace(gradients=None)

    def passes(batch: Any) -> Tensor:
        alone.optimizer.zero_grad(set_to_none=True)
        return accumulate(alone, batch)

    return passes


def usual_of(rig: Rig, job: Training) -> int | None:
    """How many samples this process computes in a step; None, the first step's, where it computes a share."""
    return job.batch_size if rig.ranks is None else None


def record(rig: Rig, batch: Any, table: Mapping[Any, Callable[..., Any]] | None = None) -> Recording:
    """The operators of one step on a batch. The model's tensors and the generators stay as they are. Operators in
    `table` are taken apart into what it says.

    Raises NotApplicable where it cannot be recorded.
    """
    _refuse_hooks(rig.model)
    state = _state(rig.model)
    parameters = dict(rig.model.named_parameters())
    leaves, spec = pytree.tree_flatten(batch)
    _refuse_strangers(leaves)
    places = [number for number, leaf in enumerate(leaves) if torch.is_tensor(leaf)]
    learning: list[int] = []

    def step(*given: Tensor) -> list[Tensor]:
        own = dict(zip(state, given[: len(state)], strict=True))
        for name, parameter in parameters.items():
            own[name] = own[name].detach().requires_grad_(parameter.requires_grad)
        before = dict(own)
        filled = list(leaves)
        for place, value in zip(places, given[len(state) :], strict=True):
            filled[place] = value
        with _standing_in(rig.model, own), around(rig.around):
            loss = rig.forward(pytree.tree_unflatten(filled, spec))
        replaced = next((name for name in before if own[name] is not before[name]), None)
        if replaced is not None:
            raise NotApplicable(f"it puts another tensor in the place of {replaced}; write into it, as copy_ does")
        drawn = _draws()
        wanted = [name for name, parameter in parameters.items() if parameter.requires_grad]
        found = torch.autograd.grad(loss, [own[name] for name in wanted], allow_unused=True)
        if _draws() > drawn:
            raise NotApplicable("its backward pass draws random numbers again, as checkpoints with dropout do")
        pairs = [(name, one) for name, one in zip(wanted, found, strict=True) if one is not None]
        sparse = next((name for name, one in pairs if one.layout is not torch.strided), None)
        if sparse is not None:
            raise NotApplicable(f"the gradient of {sparse} is sparse")
        learning[:] = [list(parameters).index(name) for name, _ in pairs]
        return [loss.detach(), *_own_memory([one for _, one in pairs], [own[name] for name, _ in pairs])]

    inputs = [*(value.detach() for value in state.values()), *(leaves[place] for place in places)]
    now = Generators.now()
    try:
        graph = make_fx(step, decomposition_table=dict(table or {}), tracing_mode="fake", _allow_non_fake_inputs=True)(
            *inputs
        )
        if random.getstate() != now.python or not _same_numpy(np.random.get_state(), now.numpy):
            raise NotApplicable("it draws Python's or NumPy's random numbers")
        _refuse_writes(graph)
    except NotApplicable as error:
        raise NotApplicable(f"the step cannot be recorded: {error.reason}") from error
    except Exception as error:  # the user's model may do anything that cannot be recorded
        reads = "it asks for values, by item() or an if on a tensor" if "DataDependent" in type(error).__name__ else ""
        told = reads or next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotApplicable(f"the step cannot be recorded: {told[:200]}") from error
    finally:
        now.restore()
    if not learning and any(parameter.requires_grad for parameter in parameters.values()):
        raise NotApplicable("the step cannot be recorded: its layers compute with other tensors than the parameters")
    return Recording(_cleaned(graph), tuple(learning))


def _standing_in(model: torch.nn.Module, tensors: dict[str, Tensor]) -> contextlib.AbstractContextManager[Any]:
    """The model with other tensors in the places of its own; one whose layers do not look there knows how itself."""
    own_way = getattr(model, "standing_in", None)
    if own_way is not None:
        found: contextlib.AbstractContextManager[Any] = own_way(tensors)
        return found
    return _reparametrize_module(model, tensors, tie_weights=True)


def _state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


def places_of(model: torch.nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where the tensors of `_state` are found again, also after something else was put there."""
    found: list[tuple[dict[str, Any], str]] = []
    for path in _state(model):
        owner, _, name = path.rpartition(".")
        module = model.get_submodule(owner)
        found.append((module._parameters if name in module._parameters else module._buffers, name))
    return found


def _draws() -> int:
    """How many operators that draw random numbers have been recorded so far."""
    mode = get_proxy_mode()
    nodes = () if mode is None else mode.tracer.graph.nodes
    return sum(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in nodes)


def _own_memory(gradients: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """Gradients laid out as their parameters, as autograd leaves them, and none in the memory of another."""
    found: list[Tensor] = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        is_shared = any(gradient is other for other in found)
        if is_shared or gradient.stride() != parameter.stride() or gradient.dtype != parameter.dtype:
            gradient = torch.empty_like(parameter).copy_(gradient)
        found.append(gradient)
    return found


def _cleaned(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Without detaching, which does nothing where no gradient is followed. What is not used was needed by none."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _refuse_hooks(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise NotApplicable(f"{name} has a hook on its gradient, which a recording would not call")


def _refuse_strangers(leaves: Sequence[Any]) -> None:
    strange = next((leaf for leaf in leaves if not isinstance(leaf, PLAIN)), None)
    if strange is not None:
        raise NotApplicable(f"a batch holds a {type(strange).__name__}, in which nothing tells what has changed")


def _refuse_writes(graph: torch.fx.GraphModule) -> None:
    """What a recording writes must be given to it, and not be a tensor that it happened to find."""
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for place, argument in enumerate(schema.arguments if schema is not None and schema.is_mutable else ()):
            value = node.args[place] if place < len(node.args) else None
            is_found = isinstance(value, torch.fx.Node) and value.op == "get_attr"
            if is_found and argument.alias_info is not None and argument.alias_info.is_write:
                raise NotApplicable("it writes into a tensor that is not the model's; make it a buffer of the model")


def _same_numpy(one: Any, other: Any) -> bool:
    return one[0] == other[0] and one[2:] == other[2:] and bool((one[1] == other[1]).all())


def _constants(recording: Recording) -> list[Any]:
    graph = recording.graph
    names = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    return [getattr(graph, name) for name in names]


def _equal(mine: Any, theirs: Any) -> bool:
    if torch.is_tensor(mine) and torch.is_tensor(theirs):
        return mine.shape == theirs.shape and bool(torch.equal(mine, theirs))
    return type(mine) is type(theirs)


def _shape_of(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device, leaf.stride()) if torch.is_tensor(leaf) else leaf
