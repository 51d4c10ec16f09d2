"""Which tensors several ranks hold the same of: not the parts of one that is split along two axes of the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from vivace.distributed.copies import strayed


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Four ranks on two axes, of which this process is the first and the others are not there."""
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("placements", "held"),
    [
        ((_StridedShard(0, split_factor=2), Shard(0)), (("shard", 0), ("tensor", 0))),
        ((Shard(0), Shard(1)), (("shard", 0), ("tensor", 0))),
        ((Shard(0), Replicate()), (("shard", 0),)),
    ],
    ids=["split twice along one axis", "split along two axes", "split once"],
)
def test_a_part_is_known_by_every_axis_that_its_tensor_is_split_along(
    mesh: DeviceMesh, placements: Any, held: tuple[tuple[str, int], ...]
) -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight = nn.Parameter(DTensor.from_local(torch.ones(2, 3), mesh, placements, run_check=False))
    told: list[dict[str, Any]] = []

    def tell(mine: dict[str, Any]) -> list[dict[str, Any]]:
        told.append(mine)
        return [mine]

    assert strayed(model, None, tell) == []
    ((name, part),) = told[0]["digests"]
    assert (name, part) == ("weight", held)
