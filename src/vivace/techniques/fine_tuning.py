"""Trains a captured graph's weights for a short while: towards the original's answers, and by the user's own loss."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.program import Form, Model
from vivace.core.work import Loss, Work
from vivace.data import samples
from vivace.data.reading import Batch, batch_size
from vivace.data.splits import cut
from vivace.measure.clock import Clock, SystemClock
from vivace.runtimes import eager, store
from vivace.techniques import fake_quantization
from vivace.techniques.graph import GraphEdit, torch_program

MOST_SECONDS = 60.0
"""For training, where nobody says how long building may take."""
SHARE = 0.5
"""Of the time that building may take, for training: conversions and compilers come after it."""
MOST_SAMPLES = 32
"""In one step; fewer where the calibration data hold few, so that there are at least FEWEST_BATCHES."""
FEWEST_BATCHES = 8
HELD_OUT = 5
"""One batch in so many is never trained on, and says which weights are best."""
RATE, INT8_RATE = 2e-3, 1e-4
"""AdamW's first learning rate, which falls to nothing by a cosine: where weights are gone, and where all of them only
have to move by less than a step of their grid."""
SETBACKS = 3
"""How often training goes back to the best weights with a tenth of the rate, before it is given up."""
FUSED = ("matmul", "bmm")
"""Products of two activations, which attention that is fused no longer has."""
ROUND = (10, 50)
"""The fewest and the most steps between two looks at what is held out."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """New weights by the names of their placeholders, and the loss on what was held out before and after."""

    weights: dict[str, Tensor]
    before: float
    after: float
    steps: int


def check_steps(name: str, steps: object) -> None:
    """Raise UsageError unless `steps` is a whole number from 1 up; `name` is the technique's."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageError(f"{name} received steps={steps!r}; allowed is a whole number of steps, 1 or more")


def retrained(model: Model, work: Work, name: str, steps: int, levels: int = 0) -> Model:
    """The model with the weights that `fine_tune` found, in half of the time that building may take."""
    edit = GraphEdit(torch_program(model))
    seconds = MOST_SECONDS if work.build_seconds is None else SHARE * work.build_seconds
    tuned = fine_tune(model, work, steps, seconds, levels=levels)
    for node in edit.graph.find_nodes(op="placeholder"):
        if node.name in tuned.weights:
            edit.set_weight(node, tuned.weights[node.name])
    told = f"{name}: held-out loss {tuned.before:.4g} to {tuned.after:.4g} in {tuned.steps} steps"
    return model.replace(program=edit.close(), lineage=(*model.lineage, told))


def fine_tune(
    model: Model, work: Work, steps: int, seconds: float, clock: Clock | None = None, levels: int = 0
) -> Tuned:
    """Train a model's weights in float32 on the calibration calls, at most so many steps and seconds.

    The loss is the noise of the answers: the mean over the outputs of sum((y - t)^2) / sum(t^2), where t is what the
    original answers; in half of the steps to mixtures of samples, which it can answer too. With a lesson the other
    half takes the user's loss and labels. Weights that are zero in matrices stay zero, running statistics stay. Every
    fifth batch is held out: the weights with the least loss there, the user's if there is one, are given back. When
    it becomes larger than it was at first, or NaN, training goes back to the best weights with a tenth of the rate.
    With `levels` every product takes operands rounded to 8 bits, weights to so many levels on either side of zero, also
    in what is held out, but those layers that the user keeps in float (`work.keep`). Raises NotApplicable when nothing
    can be trained or nothing was won, with the losses, and for a kept layer that the graph no longer holds.

    Source: Hinton et al. 2015 (arXiv:1503.02531) for learning from the original; Beyer et al., Knowledge distillation:
    A good teacher is patient and consistent, CVPR 2022 (arXiv:2106.05237), section 3, for the mixtures; Loshchilov and
    Hutter, ICLR 2019 (arXiv:1711.05101) for AdamW, ICLR 2017 (arXiv:1608.03983) for the cosine.
    """
    with torch.enable_grad():
        return _Course(model, work, clock or SystemClock(), levels).run(steps, seconds)


def check_loss(work: Work) -> None:
    """Raise NotApplicable when the user's loss cannot score the original's answers to the first calibration call."""
    batch = _calls(work)[0]
    teacher = _original(work)
    if work.lesson is not None:
        answers = [leaf.detach().requires_grad_(leaf.is_floating_point()) for leaf in teacher(*batch.leaves)]
        with torch.enable_grad():
            _user_loss(work.lesson.loss, work.signature.answer.build(answers), batch.target)


class _Course:
    """One training: the graph, its trainable weights, what is trained on and what is held out."""

    def __init__(self, model: Model, work: Work, clock: Clock, levels: int) -> None:
        self.work = work
        self.clock = clock
        self.rate = INT8_RATE if levels else RATE
        self.loss = work.lesson.loss if work.lesson is not None else None
        program: ExportedProgram = model.program
        rounding = None
        if levels:
            kept = _kept_in_float(program, work)
            rounding = functools.partial(fake_quantization.insert, levels=levels, kept=kept)
        self.function = eager.open_function(program, rounding)
        self.values = eager.lifted_values(program)
        self.weights: dict[str, Tensor] = {}
        for place, name in _trainable(program):
            self.values[place] = self.weights[name] = self.values[place].detach().clone().requires_grad_()
        if not self.weights:
            raise NotApplicable("the graph holds no float32 weight that could be trained")
        self.masks = {name: weight != 0 for name, weight in self.weights.items() if _has_zeros(weight)}
        self.teacher = _original(work)
        self.trained, self.held_out = _divided(_batches(work))
        self.chance = torch.Generator().manual_seed(0)

    def run(self, steps: int, seconds: float) -> Tuned:
        """Train while steps and seconds last."""
        until = self.clock.now() + seconds
        before = best = loss = self._held_out_loss()
        if not math.isfinite(before):
            raise NotApplicable(f"the loss is {before} on held-out calibration samples before any training")
        kept = self._copied()
        rate, setbacks, done = self.rate, 0, 0
        optimizer = torch.optim.AdamW(self.weights.values(), lr=rate, weight_decay=0.0)
        batches = self._endless()
        size = min(max(len(self.trained), ROUND[0]), ROUND[1])
        while setbacks <= SETBACKS and (progress := self._progress(done, steps, until, seconds)) < 1:
            for _ in range(size):
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2
                self._step(optimizer, next(batches))
                done += 1
                if (progress := self._progress(done, steps, until, seconds)) >= 1:
                    break
            loss = self._held_out_loss()
            if loss < best:
                best, kept = loss, self._copied()
            elif not loss <= before:
                self._restore(kept)
                rate, setbacks = rate / 10, setbacks + 1
                optimizer = torch.optim.AdamW(self.weights.values(), lr=rate, weight_decay=0.0)
        if not best < before:
            raise NotApplicable(_nothing_won(before, loss, done))
        return Tuned(kept, before, best, done)

    def _progress(self, done: int, steps: int, until: float, seconds: float) -> float:
        """The share of the steps or of the time that is used, whichever is more."""
        return max(done / steps, 1 - (until - self.clock.now()) / seconds)

    def _step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        if torch.rand(1, generator=self.chance).item() < 0.5:
            leaves = self._mixed(batch).leaves
            loss = noise(self.function(*self.values, *leaves), self.teacher(*leaves))
        else:
            loss = self._loss_of(batch)
        if not loss.requires_grad:
            raise NotApplicable("no weight that can be trained reaches the loss")
        optimizer.zero_grad()
        try:
            torch.autograd.backward(loss)
        except RuntimeError as error:  # an operator without a gradient, or without one outside of training
            raise NotApplicable(f"the graph cannot be trained: {error}") from error
        for name, mask in self.masks.items():
            gradient = self.weights[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        optimizer.step()

    def _loss_of(self, batch: Batch) -> Tensor:
        """The user's loss, or the noise of the answers where there is none."""
        outputs = self.function(*self.values, *batch.leaves)
        if self.loss is None:
            return noise(outputs, self.teacher(*batch.leaves))
        return _user_loss(self.loss, self.work.signature.answer.build(list(outputs)), batch.target)

    def _held_out_loss(self) -> float:
        """The mean over the batches that are held out."""
        with torch.no_grad():
            losses = [self._loss_of(batch) for batch in self.held_out]
        return sum(float(loss) for loss in losses) / len(losses)

    def _mixed(self, batch: Batch) -> Batch:
        """w x + (1 - w) x', with x' the same samples in another order, if all inputs are floats."""
        axes = [spec.batch_axis for spec in self.work.signature.inputs]
        count = batch_size(batch.leaves, axes) or 1
        if count < 2 or not all(leaf.is_floating_point() for leaf in batch.leaves):
            return batch
        weight = torch.rand(1, generator=self.chance).item()
        order = torch.randperm(count, generator=self.chance)
        pairs = zip(batch.leaves, axes, strict=True)
        mixed = (x if axis is None else torch.lerp(x.index_select(axis, order), x, weight) for x, axis in pairs)
        return Batch(tuple(mixed), batch.target)

    def _endless(self) -> Iterator[Batch]:
        """The batches to train on, in a new order each time round."""
        while True:
            for index in torch.randperm(len(self.trained), generator=self.chance).tolist():
                yield self.trained[index]

    def _copied(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def _restore(self, kept: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(kept[name])


def noise(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean over the outputs of floats of their error's power, as a share of the power of what is wanted.

    Raises NotApplicable when no output is of floats, so that nothing can be learned from the answers.

    >>> round(float(noise([torch.tensor([1.0, 2.2])], [torch.tensor([1.0, 2.0])])), 4)
    0.008
    """
    shares = [
        (got - want).square().sum() / want.square().sum().clamp_min(1e-12)
        for got, want in zip(outputs, wanted, strict=True)
        if want.is_floating_point()
    ]
    if not shares:
        raise NotApplicable("no output is of floats, so that its answers cannot be learned")
    return torch.stack(shares).mean()


def _original(work: Work) -> eager.FlatFunction:
    """The original's flat function, without gradients."""
    model = store.read_model(work.original) if work.original is not None else None
    if model is None or model.form is not Form.TORCH:
        raise NotApplicable("there is no captured original to learn from")
    function = eager.flat_function(model.program)

    def answer(*leaves: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return function(*leaves)

    return answer


def _calls(work: Work) -> list[Batch]:
    """The calibration calls with their targets."""
    if work.calibration is None:
        raise NotApplicable("training needs calibration data")
    stored = samples.read(work.calibration)
    targets = work.lesson.targets if work.lesson is not None else [None] * len(stored)
    return [Batch(tuple(leaves), target) for leaves, target in zip(stored, targets, strict=True)]


def _batches(work: Work) -> list[Batch]:
    """The same, cut into batches of a few samples where their number is free."""
    calls = _calls(work)
    if not work.signature.has_batch:
        return calls
    axes = [spec.batch_axis for spec in work.signature.inputs]
    total = sum(batch_size(call.leaves, axes) or 1 for call in calls)
    size = min(MOST_SAMPLES, max(1, total // FEWEST_BATCHES))
    return [part for call in calls for part in cut(call, axes, size)]


def _divided(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """What is trained on, and what is held out."""
    if len(batches) < 2:
        raise NotApplicable("there is one calibration call only, and training needs another to see what it won")
    if len(batches) < HELD_OUT:
        return batches[:-1], batches[-1:]
    held_out = batches[HELD_OUT - 1 :: HELD_OUT]
    return [batch for number, batch in enumerate(batches) if number % HELD_OUT != HELD_OUT - 1], held_out


def _trainable(program: ExportedProgram) -> Iterator[tuple[int, str]]:
    """Places among the lifted values and placeholders' names of the float32 parameters and weights of layers."""
    layers = {
        value.name
        for node in program.graph.nodes
        if node.op == "call_function" and node.target in fake_quantization.LAYERS
        for value in node.args[1:3]
        if isinstance(value, torch.fx.Node)
    }
    lifted = [spec for spec in program.graph_signature.input_specs if spec.target is not None]
    for place, (spec, value) in enumerate(zip(lifted, eager.lifted_values(program), strict=True)):
        name = str(spec.arg.name)
        is_float = isinstance(value, Tensor) and value.dtype is torch.float32
        if is_float and (spec.kind is InputKind.PARAMETER or name in layers):
            yield place, name


def _kept_in_float(program: ExportedProgram, work: Work) -> frozenset[str]:
    """The nodes that the user keeps in float. One with weights that is not there is refused: it has another name now,
    by which it would be rounded. Products of activations may have been fused into one operator, which nothing rounds.
    """
    fused = {layer.name for layer in work.layers if layer.operator in FUSED}
    lost = sorted({*work.keep} - {node.name for node in program.graph.nodes} - fused)
    if lost:
        raise NotApplicable(f"the layers {', '.join(lost)} cannot be told apart in the changed graph")
    return frozenset(work.keep)


def _has_zeros(weight: Tensor) -> bool:
    return weight.dim() > 1 and weight.count_nonzero().item() < weight.numel()


def _user_loss(loss: Loss, output: Any, target: Any) -> Tensor:
    try:
        value = loss(output, target)
    except Exception as error:  # the user's code may raise anything
        raise NotApplicable(
            f"the loss {_name(loss)} failed: {type(error).__name__}: {error}; it is called as loss(output, target) "
            "with what the model returned and what the data gave"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        told = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise NotApplicable(f"the loss {_name(loss)} returned {told}; allowed is a tensor of one value")
    return value.reshape(())


def _name(loss: Loss) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _nothing_won(before: float, after: float, steps: int) -> str:
    seen = f"the loss on held-out calibration samples was {before:.4g} before"
    if not math.isfinite(after):
        return f"training diverged: {seen} and {after} after {steps} steps"
    return f"training won nothing back: {seen} and never less in {steps} steps, {after:.4g} at last"
