"""What several ranks hold the same of: batches put together again, and tensors that are not alike any more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vivace.distributed.parts import Share
from vivace.distributed.split_tensors import here, is_split

SMALLEST = 1e-300
Place = tuple[str, tuple[tuple[str, int], ...]]
"""A tensor's name, and which part of it this is, by axes of the mesh."""
Tell = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""Tells all ranks something, and returns what each of them has told."""


def joined(share: Share, tell: Tell) -> Any:
    """The whole batch, from every rank's share of it: the same on all ranks."""
    leaves, spec = pytree.tree_flatten(share.batch)
    rows = [leaf.detach().cpu() if torch.is_tensor(leaf) and leaf.ndim else None for leaf in leaves]
    told = tell({"start": share.part.start, "counts": share.part.counts, "rows": rows})
    parts = {one["start"]: one["rows"] for one in told if one["counts"]}
    columns = zip(*(parts[start] for start in sorted(parts)), strict=True)
    whole = [
        leaf if mine is None else torch.cat(column).to(leaf.device)
        for leaf, mine, column in zip(leaves, rows, columns, strict=True)
    ]
    return pytree.tree_unflatten(whole, spec)


def strayed(model: nn.Module, owned: Collection[str] | None, tell: Tell) -> list[tuple[str, int, float]]:
    """Tensors that several ranks hold the same of, and that differ by now: the name, the rank, and how far its tensor
    is from that of the first rank which holds it, beside the norm of that. The furthest first.

    Digests are exchanged first; numbers only of what these show to differ. `owned` names the tensors that this rank
    trains, where it does not train all.
    """
    mine = dict(_held(model, owned))
    digests = tell({"digests": {place: _digest(here(one)) for place, one in mine.items()}})
    firsts: dict[Place, int] = {}
    differing: dict[Place, list[int]] = {}
    for rank, told in enumerate(digests):
        for place, digest in told["digests"].items():
            first = firsts.setdefault(place, rank)
            if digest != digests[first]["digests"][place]:
                differing.setdefault(place, []).append(rank)
    found = []
    for place, ranks in differing.items():
        own = here(mine[place]).detach().to("cpu", torch.float64) if place in mine else None
        values = tell({"value": own})
        first = values[firsts[place]]["value"]
        size = max(float(first.norm()), SMALLEST)
        found += [(place[0], rank, float((values[rank]["value"] - first).norm()) / size) for rank in ranks]
    return sorted(found, key=lambda one: -one[2])


def _held(model: nn.Module, owned: Collection[str] | None) -> Iterator[tuple[Place, Tensor]]:
    """The tensors that this rank trains, and those that it counts in numbers with a fraction, each with the part that
    it has of it."""
    model.state_dict()  # FSDP2 puts what it had gathered back into parts
    kept = ((name, one) for name, one in model.named_buffers() if one.is_floating_point())
    for name, one in (*model.named_parameters(), *kept):
        if owned is None or name in owned:
            yield (name, _part(one)), one


def _part(tensor: Tensor) -> tuple[tuple[str, int], ...]:
    if not is_split(tensor):
        return ()
    mesh = tensor.device_mesh
    names, places = mesh.mesh_dim_names or (), mesh.get_coordinate() or ()
    return tuple(
        (name, place)
        for name, place, how in zip(names, places, tensor.placements, strict=True)
        if not how.is_replicate()
    )


def _digest(tensor: Tensor) -> str:
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(flat, digest_size=16).hexdigest()
