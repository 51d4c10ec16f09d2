"""Lets a C++ compiler make one program of a whole training step, and takes many steps of an epoch in one call of it."""

from __future__ import annotations

import dataclasses
import functools

from vivace.codegen.build import flags_for
from vivace.codegen.tiles import vector_of
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.devices import machine
from vivace.training.native.compiled import compiled
from vivace.training.native.step import NativeTraining, tabled
from vivace.training.rig import repeats_step


@dataclasses.dataclass(frozen=True)
class NativeStep(Technique):
    """The recorded operators of forward pass, backward pass and update, written out as one C++ program of this very
    step: its shapes are constants, products are blocks that stay in registers, each weight is updated while its
    gradient is in the cache, and threads wait for each other by spinning. With a cache of all samples (sample-cache)
    the program cuts its batches itself, and takes the steps of an epoch in one call: no Python in between.

    It is for steps of some milliseconds or less, in which calling kernels costs as much as they do. Adam, AdamW, SGD,
    RMSprop and Adagrad have an update here. Dropout draws other masks than PyTorch's from the same seed, and the same
    in a run that is resumed. Convolutions whose windows overlap, and what else it has no C for, are refused with their
    name. Raises NotApplicable for these, at the first batch, and where something else takes the update's place.

    Source: the blocks follow Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3),
    2008; one program for a whole step follows Frostig et al., Compiling machine learning programs via high-level
    tracing, SysML 2018.

    >>> NativeStep.name()
    'native-step'
    """

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset(
        {
            Fact.TRAINING, Fact.UNCOMPILED, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_PROCESS, Fact.CXX_COMPILER,
            Fact.ON_CPU,
        }
    )  # fmt: skip
    breaks = frozenset({Fact.UNCOMPILED, Fact.AUTOGRAD})
    source = "Goto and van de Geijn, ACM TOMS 34(3), 2008; Frostig et al., SysML 2018"
    build_seconds = 1.0

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose steps are taken by compiled code."""
        if not repeats_step(rig):
            raise NotApplicable("something else takes the place of the optimizer's own update")
        here = machine.detect()
        if not here.cxx_compiler:
            raise NotApplicable(f"it needs {Fact.CXX_COMPILER.value}")
        vector = vector_of(here.instructions)
        build = functools.partial(
            compiled, compiler=here.cxx_compiler, flags=tuple(flags_for(here.architecture, vector.lanes))
        )
        step = NativeTraining(rig, job.batch_size, vector, here.cores_allowed, build)
        several = step.several if tabled(rig.feed) is not None else None
        return rig.replace(gradients=step, update=step.updated, several=several, look=step.look)
