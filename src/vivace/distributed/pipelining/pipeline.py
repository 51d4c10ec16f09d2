"""Steps of a model that is cut into stages: micro-batches pass through them by GPipe's or the 1F1B schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.distributed.parts import Part
from vivace.distributed.pipelining.draws_of_stages import StageDraws
from vivace.distributed.pipelining.stages import Answered, Captured, Probe
from vivace.distributed.world import World

Loss = Callable[[Any, Any], Tensor]
Form = tuple[int, tuple[torch.Size, ...]]
"""Of a batch: how many rows it has on all ranks, and the shapes of its tensors' rows."""
MOST_FORMS = 32
"""Of batches, whose buffers are kept: texts of many lengths come in more."""


class Pipeline:
    """One stage, and what it does with a batch. `loss` is the job's, of (model, batch).

    Sources: Huang et al., GPipe, NeurIPS 2019 (arXiv:1811.06965); Narayanan et al., PipeDream, SOSP 2019
    (arXiv:1806.03377).
    """

    def __init__(
        self, world: World, model: nn.Module, stage: nn.Module, draws: StageDraws, loss: Loss, micro: int, schedule: str
    ) -> None:
        self.world = world
        self.stage = stage
        self._model = model
        self._draws = draws
        self._loss = loss
        self._micro = micro
        self._schedule = schedule
        self._known: dict[Form, Any] = {}
        self._batch: Any = None
        self._weigh: Callable[[Any], float] = lambda _: 1.0

    def step(self, batch: Any, part: Part, weigh: Callable[[Any], float]) -> Tensor:
        """Set the gradients of this stage; the weighted loss of the batch, the same for all stages. `part` says which
        rows of the whole batch these are, `weigh` which share of its mean a micro-batch holds."""
        rows = _rows(batch)
        count = max(number for number in range(1, self._micro + 1) if rows % number == 0)
        place, last = self.world.place["pipeline"], self.world.layout.pipeline - 1
        self._batch, self._weigh = batch, weigh
        schedule = self._for((part.whole, _widths(batch)), count)
        losses: list[Tensor] = []
        with self.world.watch.during("the pipeline's micro-batches"), self._draws.of(part, count):
            given = (inputs_of(self._model, self._loss, batch),) if place == 0 else ()
            wanted: dict[str, Any] = {"target": torch.arange(rows), "losses": losses} if place == last else {}
            schedule.step(*given, **wanted, return_outputs=False)
        self._batch = None
        total = torch.zeros((), dtype=torch.float64)  # other stages do not know of which type losses are
        if losses:
            total = torch.stack([loss.detach() for loss in losses]).sum(dtype=torch.float64)
        return self.world.from_last_stage(total.to(self.world.device), "losses")

    @torch.no_grad()
    def sum_tied(self, tied: Mapping[str, nn.Parameter]) -> None:
        """Sum the gradients of parameters that several stages hold; each of these then learns the same."""
        mine = {id(one) for one in self.stage.parameters()}
        for name, parameter in tied.items():
            own = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            whole = self.world.sum_over_stages(own.contiguous().clone(), f"the gradient of {name}")
            parameter.grad = whole if id(parameter) in mine else None

    def _for(self, form: Form, count: int) -> Any:
        """A schedule for batches of so many rows in all, each so large: stages know their micro-batches' size. PyTorch
        learns it from a pass of its own, in which split layers are gathered, so that all ranks must come to one at the
        same step. They keep buffers for each form: those used last are kept, the same on all ranks."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        if form in self._known:
            self._known[form] = self._known.pop(form)  # the last one used
        else:
            if len(self._known) == MOST_FORMS:
                del self._known[next(iter(self._known))]
            with torch.random.fork_rng():
                self._draws.check(inputs_of(self._model, self._loss, self._batch))
            place, stages = self.world.place["pipeline"], self.world.layout.pipeline
            group = self.world.mesh.get_group("pipeline")
            draws = self._draws

            class Stage(PipelineStage):
                def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
                    draws.begin(fwd_chunk_id)
                    return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

            stage = Stage(self.stage, place, stages, self.world.device, group=group)
            name = self._schedule if count >= stages else "gpipe"  # 1F1B needs a micro-batch for each stage
            kind: Any = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[name]
            self._known[form] = kind(stage, count, loss_fn=self._weighted, scale_grads=False)
        return self._known[form]

    def _weighted(self, output: Tensor, rows: Tensor) -> Tensor:
        part = rows_of(self._batch, int(rows[0]), len(rows))
        weight = self._weigh(part)
        if not weight:  # the mean over nothing is NaN, and times 0 it still is
            return output.sum() * 0.0
        return self._loss(Answered(self._model, output), part) * weight


def inputs_of(model: nn.Module, loss: Loss, batch: Any) -> Tensor:
    """The one tensor that a loss calls its model with. Raises UsageError where it is something else."""
    try:
        loss(Probe(model), batch)
    except Captured as captured:
        given = captured.args_given
        if len(given) == 1 and not captured.kwargs_given and torch.is_tensor(given[0]):
            return given[0]
        raise UsageError("a pipeline needs a loss that calls its model with one tensor, as in model(x)") from None
    raise UsageError("a pipeline needs a loss that calls its model once, as in model(x); it did not")


def rows_of(batch: Any, start: int, count: int) -> Any:
    """Some rows of every tensor of a batch."""
    return pytree.tree_map(
        lambda leaf: leaf[start : start + count] if torch.is_tensor(leaf) and leaf.ndim else leaf, batch
    )


def _widths(batch: Any) -> tuple[torch.Size, ...]:
    return tuple(leaf.shape[1:] for leaf in pytree.tree_leaves(batch) if torch.is_tensor(leaf))


def _rows(batch: Any) -> int:
    return next(leaf.shape[0] for leaf in pytree.tree_leaves(batch) if torch.is_tensor(leaf) and leaf.ndim)
