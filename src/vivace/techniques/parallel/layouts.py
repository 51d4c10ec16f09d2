"""The techniques of a layout: which ways of training on several processes it asks for, and which layout a plan has."""

from __future__ import annotations

from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.distributed.layout import Layout
from vivace.techniques.parallel.data_parallel import DataParallel
from vivace.techniques.parallel.fully_sharded import FullySharded
from vivace.techniques.parallel.pipeline_parallel import PipelineParallel
from vivace.techniques.parallel.tensor_parallel import TensorParallel
from vivace.training.rig import assemble

KINDS = (PipelineParallel, TensorParallel, FullySharded, DataParallel)


def techniques_of(layout: Layout) -> list[Technique]:
    """What a plan holds for a layout; `Plan.illegal` says whether they can stand together.

    >>> [str(one) for one in techniques_of(Layout(data=2, shard=2))]
    ['fully-sharded(copies=2)']
    """
    found: list[Technique] = []
    if layout.pipeline > 1:
        found.append(PipelineParallel(layout.pipeline, layout.micro, layout.schedule))
    if layout.tensor > 1:
        found.append(TensorParallel(layout.tensor))
    if layout.shard > 1:
        found.append(FullySharded(layout.shard, layout.data))
    elif layout.data > 1:
        found.append(DataParallel(layout.data))
    return found


def layout_of(plan: Plan) -> Layout:
    """The layout whose techniques a plan holds; that of one process where it holds none.

    >>> str(layout_of(Plan.of(techniques_of(Layout(data=2, tensor=2)))))
    'data=2,tensor=2'
    """
    sizes: dict[str, int | str] = {}
    for one in plan:
        if isinstance(one, PipelineParallel):
            sizes |= {"pipeline": one.ways, "micro": one.micro, "schedule": one.schedule}
        elif isinstance(one, TensorParallel):
            sizes |= {"tensor": one.ways}
        elif isinstance(one, FullySharded):
            sizes |= {"shard": one.ways, "data": one.copies}
        elif isinstance(one, DataParallel):
            sizes |= {"data": one.ways}
    return Layout(**sizes)  # type: ignore[arg-type]


def with_layout(plan: Plan, layout: Layout) -> Plan:
    """A plan with the techniques of a layout in place of those that it has of another one."""
    return Plan.of([*(one for one in plan if not isinstance(one, KINDS)), *techniques_of(layout)])


def why_not(layout: Layout, job: Training) -> str:
    """Why a job's model cannot be divided so, seen without any other process; empty where nothing speaks against it."""
    rig = assemble(job)
    for technique in techniques_of(layout):
        try:
            if isinstance(technique, TensorParallel):
                technique.pairs(rig, job)
            if isinstance(technique, PipelineParallel):
                technique.chain(rig, job)
        except NotApplicable as error:
            return f"{technique.name()}: {error.reason}"
        except Exception as error:  # noqa: BLE001  the user's loss may raise anything when it is given a few samples
            return f"{technique.name()}: {error}"
    return ""
