"""Runs the program on a TPU that this machine has, compiled by XLA."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Technique
from vivace.core.work import Work
from vivace.techniques.compile.xla import Xla


@dataclasses.dataclass(frozen=True)
class Tpu(Xla):
    """The graph as StableHLO, compiled for the first TPU that JAX finds, for a few numbers of samples.

    Inputs go to the chip at each call and answers come back; weights stay there. Products of float32 stay float32,
    which a TPU computes in six passes; together with `bfloat16` they take one. The artifact holds no machine code, so
    that it loads where there is no TPU too. Raises what `xla` raises.

    Source: https://docs.jax.dev/en/latest/export/export.html and https://openxla.org/stablehlo, read in November 2026.

    >>> Tpu.name()
    'tpu'
    """

    needs = Xla.needs | {Fact.TPU_DEVICE}

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """One, where there is a TPU."""
        if machine.tpus:
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """The device's ceilings, and a copy to it and back at each call."""
        return super().rewrite(cost).replace(device="tpu")
