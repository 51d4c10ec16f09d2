"""Gives each branch of a network that is written out as C++ to one thread, whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes.graphs.counts import work_of
from vivace.runtimes.lanes.branches import told
from vivace.runtimes.native.session import BRANCHES


@dataclasses.dataclass(frozen=True)
class WrittenBranches(Technique):
    """Branches that need nothing of each other, each by one thread of the written program from beginning to end:
    threads wait for each other where branches meet, not in every operator, nor in every step of a recurrence. The
    directions of a bidirectional LSTM or GRU are branches too. What lies between is shared by all threads as before.

    It is for programs whose threads spend much of a call waiting for each other: recurrent networks of few units, small
    images. Raises NotApplicable for one thread, without an example call, and where branches are so uneven that one
    thread would have more than 1.25 times its share of their products.

    Source: Wang et al., ACM TACO 2020 (arXiv:1908.04705), section 4 (inter-operator parallelism).

    >>> WrittenBranches.name()
    'written-branches'
    """

    stage = Stage.TARGET  # after what writes the program
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.WRITTEN, Fact.HAS_BRANCHES})
    source = "Wang et al., ACM TACO 2020, arXiv:1908.04705; Graham, SIAM J. Appl. Math. 17, 1969"

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Why a plan with these repeats one without: one thread has nobody to share with."""
        if any(str(other) == "threads(count=1)" for other in others):
            return f"{self} has nothing to do beside threads(count=1): one thread takes every branch"
        return None

    def rewrite(self, cost: Cost) -> Cost:
        """The same work with fewer waits; how many, only timing tells."""
        return cost.replace(call_seconds=cost.call_seconds * 0.9)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with a thread for each operator of its branches."""
        if model.form is not Form.NATIVE:
            raise NotApplicable(f"a program of form {model.form.value} is not written out as C++")
        if work.example is None:
            raise NotApplicable("there is no example call to count the work of its branches with")
        count = model.settings.threads or work.cost.threads
        if count < 2:
            raise NotApplicable("the program has one thread, which takes every branch")
        counted = work_of(model, samples.read(work.example)[0])
        lanes = told(model.program, {name: one.flops for name, one in counted.items()}, count)
        if not lanes:
            raise NotApplicable(f"its branches cannot be given to {count} threads evenly: it is a chain to them")
        settings = model.settings.with_options(**{BRANCHES: lanes})
        return model.replace(settings=settings, lineage=(*model.lineage, str(self)))
