"""The techniques of a layout: which ways of training on several processes it asks for."""

from __future__ import annotations

from vivace.core.technique import Technique
from vivace.distributed.layout import Layout
from vivace.techniques.parallel.data_parallel import DataParallel
from vivace.techniques.parallel.fully_sharded import FullySharded
from vivace.techniques.parallel.pipeline_parallel import PipelineParallel
from vivace.techniques.parallel.tensor_parallel import TensorParallel


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
