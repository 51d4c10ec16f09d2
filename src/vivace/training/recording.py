"""Records what a step computes, forward and backward, as a flat list of operators that runs again without autograd."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.training.rig import Rig
from vivace.training.checkpoint import Generators
from vivace.training.rig import seed_everything
from vivace.training.step import accumulate, around

Compiler = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]
"""(graph, example inputs) -> the same function, faster."""

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

    Buffers that the forward pass writes are written as before, random numbers drawn as before. With `compiler`, batches
    of the job's usual shape (`usual` samples; the first one's where that is None) run what it makes of the recording;
    the others, such as the last and smaller one of an epoch, are played back operator by operator, because a
    compilation costs more than they ever save.

    Raises NotApplicable at the first batch where a step cannot be recorded: control flow that depends on values, hooks
    on parameters, or a step that is another one each time. Raises UsageError where it becomes another one later on.
    """

    def __init__(self, rig: Rig, usual: int | None = None, compiler: Compiler | None = None) -> None:
        self._rig = rig
        self._usual = usual
        self._compiler = compiler
        self._played: dict[Any, tuple[Callable[..., Any], Recording]] = {}
        self._parameters = [parameter for _, parameter in rig.model.named_parameters()]
        self._tensors: list[Tensor] = []
        self._steps = 0

    def __call__(self, batch: Any) -> Tensor:
        """The loss of a batch; its gradients are in the parameters afterwards."""
        leaves, spec = pytree.tree_flatten(batch)
        key = (spec, *map(_shape_of, leaves))
        found = self._played.get(key)
        if found is None:
            if len(self._played) >= MOST_SHAPES:
                return self._eagerly(batch)
            found = self._played[key] = self._prepared(batch, leaves)
        self._steps += 1
        if self._steps in LOOKS:
            self._look_again(found[1], batch)
        return self._play(*found, [leaf for leaf in leaves if torch.is_tensor(leaf)])

    def _play(self, run: Callable[..., Any], recording: Recording, given: list[Tensor]) -> Tensor:
        with torch.no_grad():
            loss, *gradients = run(*self._tensors, *given)
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

    def _prepared(self, batch: Any, leaves: Sequence[Any]) -> tuple[Callable[..., Any], Recording]:
        if not self._tensors:
            self._tensors = [value.detach() for value in _state(self._rig.model).values()]
        recording = record(self._rig, batch)
        if not recording.computes_as(record(self._rig, batch, other_chance=True)):
            raise NotApplicable("a step draws by Python's or NumPy's random numbers what it computes")
        size = next((leaf.shape[0] for leaf in leaves if torch.is_tensor(leaf) and leaf.ndim), None)
        is_usual = size == self._usual if self._usual is not None else not self._played
        if self._compiler is None or not is_usual:
            return recording.graph.forward, recording
        inputs = [*self._tensors, *(leaf for leaf in leaves if torch.is_tensor(leaf))]
        return self._compiler(recording.graph, inputs), recording

    def _look_again(self, recording: Recording, batch: Any) -> None:
        if not recording.computes_as(record(self._rig, batch)):
            raise UsageError(
                f"after {self._steps} steps the model computes something else than in its first step, which was "
                "recorded; train without recorded-step and compiled-training (--without)"
            )


def record(rig: Rig, batch: Any, other_chance: bool = False) -> Recording:
    """The operators of one step on a batch. Nothing is computed, and generators stay as they are.

    With `other_chance` Python's and NumPy's generators are set to something else meanwhile. Raises NotApplicable where
    it cannot be recorded.
    """
    _refuse_hooks(rig.model)
    state = _state(rig.model)
    parameters = dict(rig.model.named_parameters())
    leaves, spec = pytree.tree_flatten(batch)
    places = [number for number, leaf in enumerate(leaves) if torch.is_tensor(leaf)]
    learning: list[int] = []

    def step(*given: Tensor) -> list[Tensor]:
        own = dict(zip(state, given[: len(state)], strict=True))
        for name, parameter in parameters.items():
            own[name] = own[name].detach().requires_grad_(parameter.requires_grad)
        filled = list(leaves)
        for place, value in zip(places, given[len(state) :], strict=True):
            filled[place] = value
        with _reparametrize_module(rig.model, own, tie_weights=True), around(rig.around):
            loss = rig.forward(pytree.tree_unflatten(filled, spec))
        wanted = [name for name, parameter in parameters.items() if parameter.requires_grad]
        found = torch.autograd.grad(loss, [own[name] for name in wanted], allow_unused=True)
        pairs = [(name, one) for name, one in zip(wanted, found, strict=True) if one is not None]
        learning[:] = [list(parameters).index(name) for name, _ in pairs]
        return [loss.detach(), *_own_memory([one for _, one in pairs], [own[name] for name, _ in pairs])]

    inputs = [*(value.detach() for value in state.values()), *(leaves[place] for place in places)]
    now = Generators.now()
    try:
        if other_chance:
            seed_everything(random.getrandbits(32))
        graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:  # the user's model may do anything that cannot be recorded
        raise NotApplicable(f"the step cannot be recorded: {str(error).strip().splitlines()[0][:200]}") from error
    finally:
        now.restore()
    return Recording(_cleaned(graph), tuple(learning))


def _state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))


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
