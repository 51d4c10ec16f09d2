"""Parameters of which every process holds a part: FSDP2 over a model, block by block."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from vivace.core.errors import NotApplicable
from vivace.distributed.pipelining.draws_of_stages import called_by
from vivace.distributed.pipelining.stages import Before
from vivace.distributed.tensor_plan import holders
from vivace.distributed.world import World


def shard(model: nn.Module, world: World) -> list[str]:
    """Split every parameter of a model over the axis `shard`, with copies over `data`; the names of the blocks that are
    gathered on their own. Gradients are summed: each rank's loss is weighted by its share of the batch before.

    Source: Zhao et al., PyTorch FSDP, VLDB 2023 (arXiv:2304.11277).
    """
    blocks = blocks_of(model)
    _split(model, [block for _, block in blocks], world)
    return [name for name, _ in blocks]


def shard_stage(stage: nn.Module, world: World) -> int:
    """The same of one stage of a pipeline, a sequence of modules, each gathered by itself wherever it is called from;
    how many have parameters. They are gathered once for all micro-batches of a step, and let go after the last. Raises
    NotApplicable where a model uses parameters of its own before its modules, and where these share one."""
    if any(isinstance(module, Before) and len(module.loose) for module in stage.modules()):
        raise NotApplicable(
            "the model has parameters that are no module's of its own; put them into one, or leave shard out"
        )
    members = [member for member in called_by(stage) if next(member.parameters(), None) is not None]
    if len(apart(members, stage)) < len(members):
        raise NotApplicable("two modules share a parameter; give each its own, or leave shard out")
    _split(stage, members, world, lets_go=False)
    return len(members)


def _split(model: nn.Module, blocks: Iterable[nn.Module], world: World, lets_go: bool | None = None) -> None:
    """Split a model's blocks, then what is left of it. They are let go after the forward pass, as PyTorch does by
    itself, unless `lets_go` is False."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = world.mesh["data", "shard"] if world.layout.data > 1 else world.mesh["shard"]
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=lets_go)
    fully_shard(model, mesh=mesh, reshard_after_forward=lets_go)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no sum that multiplies before


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What is gathered, used and let go by itself: the members of every list of modules that have parameters.

    >>> [name for name, _ in blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))]
    ['0', '2']
    """
    lists = (nn.ModuleList, nn.Sequential)
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if isinstance(module, lists):
            for label, member in module.named_children():
                if not isinstance(member, lists) and next(member.parameters(), None) is not None:
                    found.append((f"{name}.{label}".lstrip("."), member))
    inner = {id(part) for _, block in found for part in block.modules() if part is not block}
    own = set(map(id, apart([block for _, block in found], model)))
    return [(name, block) for name, block in found if id(block) not in inner and id(block) in own]


def apart(blocks: Iterable[nn.Module], whole: nn.Module) -> list[nn.Module]:
    """The blocks of a module that share no parameter with what is not in them, such as a last layer whose weight is the
    embedding's: gathered by itself, each would get a part of its own in the place of what they share.

    >>> tied = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    >>> tied[2].weight = tied[0].weight
    >>> [type(block).__name__ for block in apart(tied, tied)]
    ['Linear']
    """
    everywhere = holders(whole)
    return [block for block in blocks if all(everywhere[one] == count for one, count in holders(block).items())]
