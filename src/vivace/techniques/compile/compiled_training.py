"""Lets TorchInductor compile a training step: the model, the forward pass with the loss, or the whole step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.training.recording import RecordedGradients, computed_by, usual_of, whole_passes

SCOPES = ("step", "loss", "model")


@dataclasses.dataclass(frozen=True)
class CompiledTraining(Technique):
    """TorchInductor's code for `scope`, made when the first batch comes.

    "step" is one graph from the batch to every gradient, recorded (see recorded-step) and called without autograd; the
    update follows it, as one kernel with fused-optimizer. An update inside of that graph was measured to be slower than
    that kernel on CPUs: 0.51 against 0.41 ms for a step of a 784-128-10 network. Only the job's usual size of batch is
    compiled; the smaller last one of an epoch is played back, which costs less than a second compilation.
    "loss" is torch.compile over forward and loss, whose autograd compiles the backward pass, and "model" that over the
    module alone, for losses that cannot be compiled; a shape that changes is compiled once more for any size.

    Compilers have shipped wrong gradients (pytorch issue 193061), which is what parity is for. Raises NotApplicable,
    at the first batch, where the compiler fails.

    Source: Ansel et al., PyTorch 2, ASPLOS 2024, https://docs.pytorch.org/assets/pytorch2-2.pdf.

    >>> str(CompiledTraining("loss"))
    'compiled-training(scope=loss)'
    """

    scope: str = "step"

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.UNCOMPILED, Fact.CXX_COMPILER, Fact.WHOLE_LAYERS, Fact.WHOLE_CHAIN})
    breaks = frozenset({Fact.UNCOMPILED})
    source = "Ansel et al., PyTorch 2, ASPLOS 2024, https://docs.pytorch.org/assets/pytorch2-2.pdf"
    build_seconds = 30.0

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UsageError(f"compiled-training received scope={self.scope!r}; allowed are {', '.join(SCOPES)}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """The whole step, and for what cannot be recorded the forward pass, then the module alone."""
        yield from map(cls, SCOPES)

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """A whole step beside what acts on the passes that it takes the place of."""
        passes = next((one for one in others if Fact.AUTOGRAD in one.needs), None)
        if self.scope != "step" or passes is None:
            return None
        return f"{passes} needs {Fact.AUTOGRAD.value}, and {self} has no such pass; use scope=loss"

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with compiled parts."""
        if self.scope == "step":
            if rig.parts > 1 or rig.scaling is not None:
                raise NotApplicable("a step in parts, or with a scaled loss, is no single graph; use scope=loss")
            if rig.recomputes:
                raise NotApplicable("in a single graph, what was to be computed again would be kept; use scope=loss")
            recorded = RecordedGradients(rig, usual_of(rig, job), by_inductor)
            return computed_by(recorded, rig, recorded.look)
        if self.scope == "loss":
            forward = _guarded(torch.compile(rig.forward))
        else:
            rig.model.compile()
            forward = _guarded(rig.forward)
        rig = rig.replace(forward=forward)
        return rig if rig.ranks is None else computed_by(whole_passes(rig), rig)


def by_inductor(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """What TorchInductor makes of a graph. Raises NotApplicable with its reason where it fails."""
    import torch._inductor as inductor

    # its own names for the arguments: a call with a flat list needs no structure
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    graph.recompile()
    try:
        with torch.no_grad():
            compiled: Callable[..., Any] = inductor.compile(graph, [*inputs])
    except Exception as error:  # a compiler may raise anything
        raise NotApplicable(f"TorchInductor fails: {_first_line(error)}") from error
    return compiled


def _guarded(forward: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    """A forward pass whose compiler may fail when it is first called."""
    import torch._dynamo.exc as dynamo
    from torch._inductor.exc import InductorError

    def checked(batch: Any) -> torch.Tensor:
        try:
            return forward(batch)
        except (dynamo.TorchDynamoException, InductorError) as error:
            raise NotApplicable(f"torch.compile fails: {_first_line(error)}") from error

    return checked


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
