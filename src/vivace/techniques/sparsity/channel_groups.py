"""Which channels of a graph's layers must go together: found by following each layer's output through the graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Node

from vivace.techniques.graph import GraphEdit

aten = torch.ops.aten
CONVOLUTIONS = (
    *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
    *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
)
EACH_ELEMENT = frozenset(
    {
        *(
            "relu",
            "relu6",
            "gelu",
            "silu",
            "mish",
            "elu",
            "leaky_relu",
            "hardtanh",
            "hardswish",
            "hardsigmoid",
            "sigmoid",
        ),
        *(
            "tanh",
            "softplus",
            "neg",
            "abs",
            "clamp",
            "exp",
            "sqrt",
            "dropout",
            "feature_dropout",
            "clone",
            "contiguous",
        ),
        *("add", "sub", "mul", "div", "alias", "detach", "to"),
    }
)
POOLS = frozenset(
    f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for rank in (1, 2, 3)
)


@dataclasses.dataclass
class Group:
    """Channels that are pruned together. `slices` are (weight, its dimension, values a channel has there in a row).

    `shapes` are views that tell a size of the channels, with the values a channel has in it; `depthwise` are
    convolutions with one group a channel. A frozen group reaches something that its channels
    cannot be followed through.
    """

    channels: int
    frozen: bool = False
    producers: list[Node] = dataclasses.field(default_factory=list)
    slices: list[tuple[Node, int, int]] = dataclasses.field(default_factory=list)
    shapes: list[tuple[Node, int]] = dataclasses.field(default_factory=list)
    depthwise: list[Node] = dataclasses.field(default_factory=list)
    consumers: int = 0

    @property
    def is_free(self) -> bool:
        """Whether its channels can be taken away: made by a layer, used by another, and seen by nothing else."""
        return not self.frozen and bool(self.producers) and self.consumers > 0


@dataclasses.dataclass(frozen=True)
class _Channels:
    """Where a value has a group's channels: along `axis`, each as `repeat` values in a row."""

    group: Group
    axis: int
    repeat: int = 1


def groups_of(edit: GraphEdit) -> list[Group]:
    """The groups of channels of every convolution and linear layer, each once."""
    walk = _Walk(edit)
    for node in edit.graph.nodes:
        walk.visit(node)
    return walk.groups


class _Walk:
    def __init__(self, edit: GraphEdit) -> None:
        self.edit = edit
        self.groups: list[Group] = []
        self.known: dict[Node, _Channels] = {}

    def visit(self, node: Node) -> None:
        """Learn where one node's value has which channels; freeze what it does not let through."""
        if node.op == "call_function" and self._layer(node):
            return
        name = _name(node)
        inputs = [source for source in node.all_input_nodes if source in self.known]
        if not inputs:
            return
        found = None
        if name == "batch_norm":
            found = self._batch_norm(node)
        elif name in EACH_ELEMENT:
            found = self._each_element(node)
        elif name in POOLS:
            found = self._pool(node)
        elif name == "mean":
            found = self._mean(node)
        elif name in ("flatten", "view", "reshape"):
            found = self._flatten(node)
        elif name == "sym_size" and self.known[inputs[0]].axis != node.args[1]:
            return
        if found is None:
            self._freeze(node)
        else:
            self.known[node] = found

    def _freeze(self, node: Node) -> None:
        for source in node.all_input_nodes:
            if source in self.known:
                self.known[source].group.frozen = True

    def _layer(self, node: Node) -> bool:
        """A convolution or linear layer with weights of its own: uses one group and makes another."""
        if node.target not in (*CONVOLUTIONS, aten.linear.default):
            return False
        source, weight = node.args[0], self.edit.weight(node.args[1])
        if weight is None or node.kwargs or not all(self._is_own(part) for part in node.args[1:3] if part is not None):
            return False
        is_linear = node.target is aten.linear.default
        groups = 1 if is_linear else _argument(node, 6, 1)
        shape = node.meta["val"].shape
        axis = len(shape) - 1 if is_linear else 1
        assert isinstance(source, Node)
        if groups != 1:
            return self._depthwise(node, source, int(groups)) if len(shape) == weight.dim() else False
        if not is_linear and len(shape) != weight.dim():
            return False
        self._use(source, node.args[1], axis)
        self._make(node, weight.shape[0], axis)
        return True

    def _use(self, source: Node, weight: Any, axis: int) -> None:
        used = self.known.get(source)
        if used is None:
            return
        if used.axis != axis:
            used.group.frozen = True
            return
        used.group.slices.append((weight, 1, used.repeat))
        used.group.consumers += 1

    def _make(self, node: Node, channels: int, axis: int) -> None:
        group = Group(channels, producers=[node])
        group.slices += [(part, 0, 1) for part in node.args[1:3] if isinstance(part, Node)]
        self.groups.append(group)
        self.known[node] = _Channels(group, axis)

    def _depthwise(self, node: Node, source: Node, groups: int) -> bool:
        """One filter a channel: the channels pass. Any other grouping freezes what it touches."""
        used = self.known.get(source)
        weight = self.edit.weight(node.args[1])
        if used is None or weight is None or used.repeat != 1 or not groups == used.group.channels == weight.shape[0]:
            return False
        used.group.slices += [(part, 0, 1) for part in node.args[1:3] if isinstance(part, Node)]
        used.group.depthwise.append(node)
        self.known[node] = used
        return True

    def _batch_norm(self, node: Node) -> _Channels | None:
        used = self.known.get(node.args[0])  # type: ignore[arg-type]
        parts = [part for part in node.args[1:5] if part is not None]
        if used is None or used.axis != 1 or used.repeat != 1 or node.args[5] is not False:
            return None
        if not all(self._is_own(part) for part in parts):
            return None
        used.group.slices += [(part, 0, 1) for part in parts if isinstance(part, Node)]
        return used

    def _each_element(self, node: Node) -> _Channels | None:
        """Element by element: all tensors must have their channels in the same place, and then share them."""
        sources = node.all_input_nodes
        found = [self.known.get(source) for source in sources]
        first = found[0]
        if first is None or any(
            other is None
            or (other.axis, other.repeat, other.group.channels) != (first.axis, first.repeat, first.group.channels)
            or source.meta["val"].dim() != sources[0].meta["val"].dim()
            for source, other in zip(sources, found, strict=True)
        ):
            return None
        for other in found[1:]:
            assert other is not None
            self._join(first.group, other.group)
        return first

    def _join(self, group: Group, other: Group) -> None:
        if group is other:
            return
        group.frozen |= other.frozen
        group.consumers += other.consumers
        for name in ("producers", "slices", "shapes", "depthwise"):
            getattr(group, name).extend(getattr(other, name))
        self.groups = [kept for kept in self.groups if kept is not other]
        self.known = {
            node: dataclasses.replace(value, group=group) if value.group is other else value
            for node, value in self.known.items()
        }

    def _pool(self, node: Node) -> _Channels | None:
        used = self.known.get(node.args[0])  # type: ignore[arg-type]
        rank = int(_name(node)[-2])
        dimensions = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
        is_image = isinstance(node.meta["val"], torch.Tensor) and dimensions == rank + 2
        return used if used is not None and used.axis == 1 and is_image else None

    def _mean(self, node: Node) -> _Channels | None:
        used = self.known.get(node.args[0])  # type: ignore[arg-type]
        count = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
        over = node.args[1] if len(node.args) > 1 else None
        if used is None or not isinstance(over, list | tuple) or not over:
            return None
        axes = [int(axis) % count for axis in over]
        if used.axis in axes:
            return None
        kept = bool(_argument(node, 2, False))
        return used if kept else dataclasses.replace(used, axis=used.axis - sum(axis < used.axis for axis in axes))

    def _flatten(self, node: Node) -> _Channels | None:
        """[N, C, ...] to [N, C * ...], which gives each channel several values in a row."""
        source = node.args[0]
        used = self.known.get(source)  # type: ignore[arg-type]
        old, new = source.meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
        if used is None or used.axis != 1 or len(new) != 2 or str(old[0]) != str(new[0]):
            return None
        if not all(isinstance(size, int) for size in (*old[1:], new[1])):
            return None
        repeat = used.repeat * int(torch.Size(old[2:]).numel())
        if new[1] != used.group.channels * repeat:
            return None
        if _name(node) != "flatten":
            used.group.shapes.append((node, repeat))
        return _Channels(used.group, 1, repeat)

    def _is_own(self, part: Any) -> bool:
        """Whether a weight is the program's and has no other user."""
        return self.edit.weight(part) is not None and len(part.users) == 1


def _argument(node: Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _name(node: Node) -> str:
    """The operator's plain name, without the mark of writing into its input."""
    if node.op != "call_function":
        return ""
    name = str(getattr(node.target, "_opname", getattr(node.target, "__name__", "")))
    return name.rstrip("_") or name
