"""The world as a rank sees it: the mesh of processes, its place on it, and what it does together with the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vivace.core.errors import NotApplicable
from vivace.core.training.rig import Rig
from vivace.distributed import copies
from vivace.distributed.layout import AXES, Layout
from vivace.distributed.parts import Part, Share, cut
from vivace.distributed.split_tensors import here, is_split
from vivace.distributed.watch import Watch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class World:
    """This rank among `layout.processes`. Implements `core.training.rig.Ranks`.

    The mesh has the axes pipeline, data, shard and tensor, each at least one process long. A batch is divided along
    data and shard; ranks that differ in tensor or pipeline alone compute the same samples.
    """

    def __init__(self, layout: Layout, watch: Watch, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self.layout = layout
        self.watch = watch
        self.device = device
        self.rank = dist.get_rank()
        sizes = tuple(getattr(layout, axis) for axis in AXES)
        self.mesh: DeviceMesh = init_device_mesh(device.type, sizes, mesh_dim_names=AXES)
        self.place = dict(zip(AXES, self.mesh.get_coordinate() or (), strict=True))
        self.batch_mesh = self.mesh["data", "shard"]._flatten("batch")
        self.owned: frozenset[str] | None = None
        """Names of the model's tensors that this rank trains; None where it trains all of them."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is kept."""
        return self.rank == 0

    @property
    def copy_number(self) -> int:
        """Which part of a batch is this rank's."""
        return self.place["data"] * self.layout.shard + self.place["shard"]

    def part(self, rows: int) -> Part:
        """This rank's part of a batch of so many rows."""
        return Part.of(rows, self.copy_number, self.layout.copies)

    def cut(self, batch: Any) -> Share:
        """What of a whole batch this rank computes."""
        return cut(batch, self.copy_number, self.layout.copies)

    def rows_of(self, share: Share) -> int:
        """How many samples the whole batch has of which this is a rank's share."""
        return share.part.whole

    def trains(self, name: str) -> bool:
        """Whether a parameter is in this rank's stage."""
        return self.owned is None or name in self.owned

    def joined(self, share: Share) -> Any:
        """The whole batch, from every rank's share of it."""
        return copies.joined(share, self.told_by_all)

    def strayed(self, model: nn.Module) -> list[tuple[str, int, float]]:
        """Tensors that several ranks hold the same of, and that differ by now."""
        return copies.strayed(model, self.owned, self.told_by_all)

    def sum_over_batch(self, value: Tensor, name: str) -> Tensor:
        """The sum of a tensor over the ranks that divide a batch; in place."""
        if self.layout.copies > 1:
            with self.watch.during(f"the all-reduce of {name}", together=True):
                dist.all_reduce(value, group=self.batch_mesh.get_group())
        follow(self.watch, value, f"the all-reduce of {name}" if self.layout.copies > 1 else "what ranks exchange")
        return value

    def sum_over_stages(self, value: Tensor, name: str) -> Tensor:
        """The sum of a tensor over the stages of a pipeline; in place."""
        with self.watch.during(f"the all-reduce of {name} over stages", together=True):
            dist.all_reduce(value, group=self.mesh.get_group("pipeline"))
        return value

    def from_last_stage(self, value: Tensor, name: str) -> Tensor:
        """What the last stage of a pipeline has, for all stages; in place."""
        if self.layout.pipeline > 1:
            group = self.mesh.get_group("pipeline")
            source = dist.get_global_rank(group, self.layout.pipeline - 1)
            with self.watch.during(f"the broadcast of {name}", together=True):
                dist.broadcast(value, source, group=group)
        return value

    def meet(self, purpose: str) -> None:
        """Wait until all ranks are here."""
        with self.watch.during(f"the barrier after {purpose}", together=True):
            dist.barrier()

    def where(self) -> dict[str, int]:
        """This rank's place along the axes that have more than one process."""
        return {axis: self.place[axis] for axis in self.layout.sizes()}

    def told_by_all(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        """What every rank tells, in the order of their numbers."""
        found: list[Any] = [None] * dist.get_world_size()
        with self.watch.during("the gathering of what ranks tell", together=True):
            dist.all_gather_object(found, told)
        return found

    def whole(self, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Tensors by their names as one process would have them, from the parts that the ranks hold."""
        with self.watch.during("the gathering of tensors", together=True):
            mine = {name: value.full_tensor() if is_split(value) else value
                    for name, value in tensors.items() if self._owns(name)}  # fmt: skip
            return mine if self.layout.pipeline == 1 else self._from_stages(mine)

    def _owns(self, name: str) -> bool:
        """Whether a tensor is this rank's to tell; of an optimizer's state it is given its own."""
        return name.startswith("optimizer/") or self.trains(name.removeprefix("model/"))

    def _from_stages(self, mine: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """What any stage has, from it, for all."""
        group = self.mesh.get_group("pipeline")
        told: list[Any] = [None] * self.layout.pipeline
        shapes = {name: None if one is None else (tuple(one.shape), str(one.dtype)) for name, one in mine.items()}
        dist.all_gather_object(told, shapes, group=group)
        found: dict[str, Tensor | None] = {}
        for stage, names in enumerate(told):
            for name, form in names.items():
                if name in found:  # such as a generator's state, which every stage has
                    continue
                if form is None:
                    found[name] = None
                    continue
                kept = mine.get(name) if stage == self.place["pipeline"] else None
                value = kept.detach().contiguous().to(self.device) if kept is not None else torch.empty(
                    form[0], dtype=getattr(torch, form[1].removeprefix("torch.")), device=self.device
                )  # fmt: skip
                dist.broadcast(value, dist.get_global_rank(group, stage), group=group)
                found[name] = value
        return found

    def part_of(self, whole: Tensor, like: Tensor) -> Tensor:
        """What of a whole tensor this rank holds where `like` is."""
        if not is_split(like) or whole.shape != like.shape:
            return whole
        from torch.distributed.tensor import distribute_tensor

        given = whole.to(device=self.device, dtype=like.dtype)
        return distribute_tensor(given, like.device_mesh, like.placements, src_data_rank=None)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put whole tensors into a model, each rank its part. Raises RuntimeError where their names differ."""
        own = model.state_dict(keep_vars=True)
        if own.keys() != state.keys():
            raise RuntimeError(f"the model's tensors are {sorted(own)}, and {sorted(state)} were given")
        with torch.no_grad():
            for name, value in own.items():
                if tuple(value.shape) != tuple(state[name].shape):
                    raise RuntimeError(f"{name} has shape {list(value.shape)}, given was {list(state[name].shape)}")
                value.copy_(self.part_of(state[name], value))

    def refresh(self, model: nn.Module) -> None:
        """Bring what other stages have learned into a model whose layers are all here, of which some are trained."""
        if self.owned is not None:
            found = self.whole(model.state_dict())
            self.load(model, {name: value for name, value in found.items() if value is not None})


def follow(watch: Watch, value: Tensor, name: str) -> None:
    """Let a watch know of what a device does by itself until now, where a tensor is on one: NCCL's exchanges begin when
    they are asked for, and who waits for them is whoever reads a number later."""
    if value.is_cuda:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        watch.follow(name, event.query)


def bytes_here(tensors: Iterable[Tensor]) -> int:
    """What tensors take on this rank, of those that are split its part."""
    local = [here(one) for one in tensors]
    return sum(one.numel() * one.element_size() for one in local)


def world_of(rig: Rig) -> World:
    """The world of a rig's ranks. Raises NotApplicable where one process trains alone."""
    if not isinstance(rig.ranks, World):
        raise NotApplicable("one process trains; start several with --processes (processes=)")
    return rig.ranks


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of the mesh, and how many processes a technique wants along it."""

    name: str
    ways: int

    def check(self, world: World) -> None:
        """Raise NotApplicable where the mesh has another number of processes along the axis."""
        found = getattr(world.layout, self.name)
        if found != self.ways:
            raise NotApplicable(f"it is for {self.ways} processes along {self.name}, and the layout has {found}")
