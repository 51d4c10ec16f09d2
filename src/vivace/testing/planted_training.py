"""Training techniques that are wrong on purpose: a proof of parity must catch each and name what it breaks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig


class Planted(Technique):
    """What techniques that train wrongly share."""

    stage = Stage.REWRITE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING})
    source = "planted"


@dataclasses.dataclass(frozen=True)
class DetachedBranch(Planted):
    """The layer `layer` is cut off from the gradient: what it answers is passed on, and nothing flows back."""

    layer: str = ""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with a hook that cuts."""
        rig.model.get_submodule(self.layer).register_forward_hook(lambda module, given, answer: answer.detach())
        return rig


@dataclasses.dataclass(frozen=True)
class UnweightedAccumulation(Planted):
    """A batch in parts of different sizes that count alike (huggingface/transformers issue 34191)."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with three parts of equal weight."""
        return rig.replace(parts=3, weight=lambda part: 1.0)


@dataclasses.dataclass(frozen=True)
class DroppedScale(Planted):
    """The loss is scaled up before the backward pass, and gradients are never scaled down (pytorch issue 144352)."""

    scale: float = 2.0

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with a scaled loss."""
        forward = rig.forward
        return rig.replace(forward=lambda batch: forward(batch) * self.scale)


@dataclasses.dataclass(frozen=True)
class StaleBuffer(Planted):
    """Buffers, such as the statistics of batch normalization, stay as they were before the step."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update puts the buffers back."""
        update = rig.update
        before = {name: value.clone() for name, value in rig.model.named_buffers()}

        def put_back() -> Any:
            done = update()
            for name, value in rig.model.named_buffers():
                value.copy_(before[name])
            return done

        return rig.replace(update=put_back)


@dataclasses.dataclass(frozen=True)
class SharedBatch(Planted):
    """A feed that writes every batch into the memory of the one before."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with such a feed."""
        return rig.replace(feed=_SharedFeed(rig.feed))


@dataclasses.dataclass(frozen=True)
class ForgottenParameter(Planted):
    """The optimizer forgets one parameter: `name` never moves."""

    name_of_parameter: str = ""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update puts one parameter back."""
        update, kept = rig.update, rig.model.get_parameter(self.name_of_parameter)

        def put_back() -> Any:
            before = kept.detach().clone()
            done = update()
            with torch.no_grad():
                kept.copy_(before)
            return done

        return rig.replace(update=put_back)


@dataclasses.dataclass(frozen=True)
class LostDropout(Planted):
    """Dropout layers let everything through."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose dropout does nothing."""
        for module in rig.model.modules():
            if isinstance(module, torch.nn.Dropout):
                vars(module)["forward"] = lambda x: x
        return rig


@dataclasses.dataclass(frozen=True)
class ShortStep(Planted):
    """Every update goes only `share` of the way, as with a learning rate that was changed silently."""

    share: float = 0.5

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update is shortened."""
        update = rig.update

        def shortened() -> Any:
            before = [parameter.detach().clone() for parameter in rig.model.parameters()]
            done = update()
            with torch.no_grad():
                for parameter, old in zip(rig.model.parameters(), before, strict=True):
                    parameter.lerp_(old, 1 - self.share)
            return done

        return rig.replace(update=shortened)


@dataclasses.dataclass(frozen=True)
class LateDetachment(Planted):
    """The layer `layer` is cut off from the gradient from its call `after` on: no proof at the start can see it."""

    layer: str = ""
    after: int = 20

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with a hook that counts, and then cuts."""
        calls = itertools.count()

        def cut(module: torch.nn.Module, given: Any, answer: torch.Tensor) -> torch.Tensor:
            return answer if next(calls) < self.after else answer.detach()

        rig.model.get_submodule(self.layer).register_forward_hook(cut)
        return rig


@dataclasses.dataclass(frozen=True)
class StaleGradients(Planted):
    """From step `after` on every step takes the gradients of the one before, as a communication that is late does."""

    after: int = 20

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update counts, and then repeats."""
        update, kept, steps = rig.update, dict[torch.nn.Parameter, torch.Tensor](), itertools.count()

        def late() -> Any:
            is_late = next(steps) >= self.after
            for parameter in rig.model.parameters():
                if parameter.grad is not None:
                    fresh = parameter.grad.clone()
                    if is_late and parameter in kept:
                        parameter.grad.copy_(kept[parameter])
                    kept[parameter] = fresh
            return update()

        return rig.replace(update=late)


@dataclasses.dataclass(frozen=True)
class LateStray(Planted):
    """From step `after` on the last of several processes goes its own way: its gradient of the parameter `name` is
    `factor` times that of the others, as one whose sum over processes is left out."""

    name_of_parameter: str = ""
    after: int = 20
    factor: float = 1.5

    stage = Stage.PARALLEL
    order = 9

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose gradients are counted, and then its own."""
        gradients, ranks, steps = rig.gradients, rig.ranks, itertools.count()
        if gradients is None or ranks is None:
            return rig
        kept = rig.model.get_parameter(self.name_of_parameter)

        def own(batch: Any) -> torch.Tensor:
            loss = gradients(batch)
            if next(steps) >= self.after and not ranks.is_first and kept.grad is not None:
                kept.grad.mul_(self.factor)
            return loss

        return rig.replace(gradients=own)


@dataclasses.dataclass(frozen=True)
class SkippedUpdate(Planted):
    """Every `every`-th update is left out, from update `after` on."""

    every: int = 7
    after: int = 0

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update counts."""
        update, steps = rig.update, itertools.count(1)

        def now_and_then() -> Any:
            step = next(steps)
            return None if step > self.after and step % self.every == 0 else update()

        return rig.replace(update=now_and_then)


@dataclasses.dataclass(frozen=True)
class LostState(Planted):
    """Each update begins anew: what the optimizer has kept of the steps before is thrown away, `before` the update or
    after it, from update `after` on. The first update shows nothing of the former."""

    before: bool = True
    after: int = 0

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose optimizer forgets."""
        update, optimizer, steps = rig.update, rig.optimizer, itertools.count(1)

        def forgetful() -> Any:
            is_now = next(steps) > self.after
            if is_now and self.before:
                optimizer.state.clear()
            done = update()
            if is_now and not self.before:
                optimizer.state.clear()
            return done

        return rig.replace(update=forgetful)


@dataclasses.dataclass(frozen=True)
class DoubledMomentum(Planted):
    """From the second update on, what the optimizer keeps counts twice."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose optimizer's state grows."""
        update, optimizer = rig.update, rig.optimizer

        def doubled() -> Any:
            with torch.no_grad():
                for state in optimizer.state.values():
                    for value in state.values():
                        if torch.is_tensor(value) and value.ndim:
                            value.mul_(2.0)
            return update()

        return rig.replace(update=doubled)


@dataclasses.dataclass(frozen=True)
class CapturedRate(Planted):
    """Every update is made at the learning rate that the optimizer had when the rig was made, whatever a schedule says
    since; its groups say what the schedule does."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update puts the old rate in."""
        update, groups = rig.update, rig.optimizer.param_groups
        rates = [group["lr"] for group in groups]

        def stale() -> Any:
            now = [group["lr"] for group in rig.optimizer.param_groups]
            _set(rates)
            done = update()
            _set(now)
            return done

        def _set(values: list[float]) -> None:
            for group, rate in zip(rig.optimizer.param_groups, values, strict=True):
                group["lr"] = rate

        return rig.replace(update=stale)


@dataclasses.dataclass(frozen=True)
class TrainedFrozen(Planted):
    """Every update moves the parameter `name_of_parameter`, which does not learn."""

    name_of_parameter: str = ""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update decays one parameter more."""
        update, moved = rig.update, rig.model.get_parameter(self.name_of_parameter)

        def decaying() -> Any:
            done = update()
            with torch.no_grad():
                moved.mul_(1 - 1e-3)
            return done

        return rig.replace(update=decaying)


@dataclasses.dataclass(frozen=True)
class CountedTwice(Planted):
    """Buffers of whole numbers go on by twice as much, as where a layer is computed again."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose update counts once more."""
        update = rig.update

        def counting() -> Any:
            done = update()
            for value in rig.model.buffers():
                if not value.is_floating_point():
                    value.add_(1)
            return done

        return rig.replace(update=counting)


@dataclasses.dataclass(frozen=True)
class RealGradients(Planted):
    """Of complex gradients the imaginary part is lost."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with hooks on its parameters."""
        for parameter in rig.model.parameters():
            if parameter.is_complex():
                parameter.register_hook(lambda gradient: gradient.real.to(gradient.dtype))  # type: ignore[no-untyped-call]
        return rig


@dataclasses.dataclass(frozen=True)
class LeftOutBatch(Planted):
    """A feed that leaves out the batch `number` of every epoch from epoch `after` on; whether it `tells` how many are
    left of it."""

    number: int = 5
    after: int = 0
    tells: bool = False

    stage = Stage.FEED

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with such a feed."""
        return rig.replace(feed=_ShortFeed(rig.feed, self))


class _ShortFeed:
    def __init__(self, feed: Any, fault: LeftOutBatch) -> None:
        self._feed = feed
        self._fault = fault

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        given = enumerate(self._feed.epoch(number))
        is_short = number >= self._fault.after
        kept = (batch for place, batch in given if place != self._fault.number or not is_short)
        return itertools.islice(kept, skip, None)

    def steps(self) -> int | None:
        found: int | None = self._feed.steps()
        return found if found is None or not self._fault.tells else found - 1


class _SharedFeed:
    def __init__(self, feed: Any) -> None:
        self._feed = feed
        self._memory: list[torch.Tensor] = []

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        for batch in self._feed.epoch(number, skip):
            leaves, spec = pytree.tree_flatten(batch)
            if not self._memory:
                self._memory = [leaf.clone() for leaf in leaves]
            fits = all(kept.shape == leaf.shape for kept, leaf in zip(self._memory, leaves, strict=True))
            if fits:
                for kept, leaf in zip(self._memory, leaves, strict=True):
                    kept.copy_(leaf)
            yield pytree.tree_unflatten(self._memory, spec) if fits else batch

    def steps(self) -> int | None:
        found: int | None = self._feed.steps()
        return found
