"""The plan of a design: which operation becomes which stage, with how many multipliers and how large a line buffer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.hardware.graph.integer import (
    Addition,
    Array,
    Flatten,
    IntegerGraph,
    MaximumPool,
    Operation,
    Product,
    Rescale,
    SumPool,
    Value,
    Window,
)
from vivace.hardware.rtl.adders import AdderGraph

ISSUE_TO_DRAIN = 8
"""Cycles from the issue of a window's last step until its sums can leave: address 2, memory 1, registers 2, product 1,
sum 1, hand-over 1."""
ROUNDING_CYCLES = 5
"""From a sum that leaves to the rounded integer at the output: read, bias, product, sum, clip."""
CLIPPING_CYCLES = 2
"""The same where nothing is multiplied."""
LOGIC_MEMORY_BITS = 2048
"""Weights of more bits than this go to memory blocks; fewer are tables."""
BANK_WORDS = 2048
"""Words of weights in one memory: as many as a block of an ECP5 holds of 9 bits. Each memory's output has a register
before the choice between them."""
LANES_A_COPY = 4
"""Lanes that share a copy of the element which they multiply."""
JOIN_CYCLES = 4
"""From two elements that meet to their sum at the output."""


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """A window that walks over a line buffer, with `lanes` multipliers: convolution, linear layer, or pool.

    The line buffer holds `rows` rows of the map (for a vector: whole vectors). Weights are in the order in which
    the stream brings the inputs.
    """

    operation: Product | MaximumPool | SumPool
    source: Value
    value: Value
    lanes: int
    rows: int
    weight: Array | None = None

    @property
    def window(self) -> Window:
        """How it walks."""
        return self.operation.window

    @property
    def groups(self) -> int:
        """Parts of the channels that do not see each other; a pool's channels are all apart."""
        return self.operation.groups if isinstance(self.operation, Product) else self.source.shape[0]

    @property
    def is_stream(self) -> bool:
        """Whether it may begin with the first element: a linear layer, which needs its inputs in their order."""
        return self.source.shape[1:] == (1, 1) and self.groups == 1 and self.window == Window()

    @property
    def inputs(self) -> int:
        """Channels that one output sees."""
        return self.source.shape[0] // self.groups

    @property
    def steps(self) -> int:
        """Products of one output: the cycles that a group of lanes takes."""
        return self.inputs * math.prod(self.window.kernel)

    @property
    def lane_groups(self) -> tuple[int, ...]:
        """How many outputs each group of lanes gives at one place, in order."""
        part = self.value.shape[0] // self.groups
        whole, rest = divmod(part, self.lanes)
        return tuple([self.lanes] * whole + [rest] * (rest > 0)) * self.groups

    @property
    def banks(self) -> tuple[int, ...]:
        """Words of each memory of weights, in order."""
        whole, rest = divmod(self.steps * len(self.lane_groups), BANK_WORDS)
        return tuple([BANK_WORDS] * whole + [rest] * (rest > 0))

    @property
    def row_elements(self) -> int:
        """Elements of one row of the line buffer."""
        return self.source.shape[0] * self.source.shape[2]

    def last_needed_row(self, row: int) -> int:
        """The last row of the map that a row of outputs needs."""
        return min(
            self.source.shape[1] - 1, row * self.window.stride[0] - self.window.padding[0] + self.kernel_rows - 1
        )

    def first_needed_row(self, row: int) -> int:
        """The first row of the map that a row of outputs needs; after the last row, the first of the next sample."""
        if row == self.value.shape[1]:
            return self.source.shape[1]
        return max(0, row * self.window.stride[0] - self.window.padding[0])

    @property
    def kernel_rows(self) -> int:
        """Rows that a window sees."""
        return self.window.kernel[0]

    @property
    def cycles_to_output(self) -> int:
        """From a sum that leaves to the output."""
        return CLIPPING_CYCLES if isinstance(self.operation, MaximumPool) else ROUNDING_CYCLES

    @property
    def has_multipliers(self) -> bool:
        """Whether products need multipliers; weights of one or two bits only add, subtract or leave out."""
        return isinstance(self.operation, Product) and self.operation.weight_bits > 2


@dataclasses.dataclass(frozen=True, eq=False)
class Join:
    """The sum of two streams, each of which waits in a queue of so many elements."""

    operation: Addition
    sources: tuple[Value, Value]
    value: Value
    depths: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Pointwise:
    """Each element by itself."""

    operation: Rescale
    source: Value
    value: Value


@dataclasses.dataclass(frozen=True, eq=False)
class Unrolled:
    """A linear layer as an adder graph: all outputs at once, no multiplier."""

    operation: Product
    source: Value
    value: Value
    weight: Array
    graph: AdderGraph

    @property
    def lanes(self) -> int:
        """Sums that are there at once: all."""
        return self.value.shape[0]

    @property
    def lane_groups(self) -> tuple[int, ...]:
        """One group of all outputs."""
        return (self.lanes,)

    @property
    def cycles_to_output(self) -> int:
        """From a sum that leaves to the output."""
        return ROUNDING_CYCLES


Unit = Engine | Join | Pointwise | Unrolled
Adders = Mapping[int, AdderGraph]
"""Adder graphs of operations, by number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A unit of the design, the streams that it reads, and the stream that it writes (0 is the input)."""

    number: int
    unit: Unit
    sources: tuple[int, ...]

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.unit.operation.name


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Stages in order: stage i writes stream i + 1, the last one the output.

    `orders[s]` says which element of the sample, counted channels first, comes at each place of stream s; `values[s]`
    which value of the graph it is.
    """

    graph: IntegerGraph
    stages: tuple[Stage, ...]
    orders: tuple[Array, ...]
    values: tuple[int, ...]

    def value(self, stream: int) -> Value:
        """The value that a stream carries."""
        return self.graph.values[self.values[stream]]

    @property
    def engines(self) -> list[tuple[int, Engine]]:
        """The stages that are engines, by number."""
        return [(stage.number, stage.unit) for stage in self.stages if isinstance(stage.unit, Engine)]

    def readers(self, stream: int) -> list[tuple[int, int]]:
        """(stage, port) of each reader of a stream."""
        return [
            (stage.number, port)
            for stage in self.stages
            for port, source in enumerate(stage.sources)
            if source == stream
        ]

    def stream(self, q: Array, stream: int) -> Array:
        """Values of the graph as the stream brings them: [samples, elements]."""
        return q.reshape(len(q), -1)[:, self.orders[stream]]


def largest_lanes(operation: Operation) -> int:
    """Multipliers beyond which an operation gains nothing: the outputs that share inputs."""
    return len(operation.weight) // operation.groups if isinstance(operation, Product) else 1


def plan_of(
    graph: IntegerGraph,
    lanes: Mapping[int, int],
    rows: Mapping[int, int] | None = None,
    depths: Mapping[int, tuple[int, int]] | None = None,
    unrolled: Adders | None = None,
) -> Plan:
    """A design of the graph. `lanes` gives the multipliers of each operation by its number, 1 where it says nothing;
    `rows` the rows of line buffers and `depths` those of the two queues before a join, by stage; left out, line buffers
    are as small as they can be, and queues hold a whole map. `unrolled` has the adders of operations that are unrolled.

    Raises UnsupportedModel for a graph that the stream order does not suit, UsageError for lanes that are too many.
    """
    stages: list[Stage] = []
    streams, orders, values = {0: 0}, [_stream_order(graph.input)], [0]
    for number, operation in enumerate(graph.operations):
        sources = tuple(streams[source] for source in operation.sources)
        if isinstance(operation, Flatten):
            streams[number + 1] = sources[0]
            values[sources[0]] = number + 1 if len(graph.users(operation.source)) == 1 else values[sources[0]]
            continue
        order = _checked_order(operation, [orders[source] for source in sources])
        value = graph.values[number + 1]
        given = [graph.values[source] for source in operation.sources]
        held, deep = (rows or {}).get(len(stages)), (depths or {}).get(len(stages))
        adders = (unrolled or {}).get(number)
        if adders is not None:
            assert isinstance(operation, Product)
            unit: Unit = Unrolled(operation, given[0], value, stream_weight(operation, order), adders)
        else:
            unit = _unit(operation, given, value, order, lanes.get(number, 1), held, deep)
        stages.append(Stage(len(stages), unit, sources))
        keeps = isinstance(operation, Addition | Rescale)
        orders.append(order if keeps else _stream_order(value))
        values.append(number + 1)
        streams[number + 1] = len(stages)
    if not stages:
        raise UnsupportedModel("the network computes nothing; give one with at least one layer")
    return Plan(graph, tuple(stages), tuple(orders), tuple(values))


def _unit(
    operation: Operation,
    sources: Sequence[Value],
    value: Value,
    order: Array,
    lanes: int,
    rows: int | None,
    depths: tuple[int, int] | None,
) -> Unit:
    match operation:
        case Addition():
            return Join(operation, (sources[0], sources[1]), value, depths or (value.elements, value.elements))
        case Rescale():
            return Pointwise(operation, sources[0], value)
        case Flatten():
            raise AssertionError("a flatten is no stage")
        case _:
            return _engine(operation, sources[0], value, order, lanes, rows)


def _engine(
    operation: Product | MaximumPool | SumPool,
    source: Value,
    value: Value,
    order: Array,
    lanes: int,
    rows: int | None,
) -> Engine:
    most = largest_lanes(operation)
    if not 1 <= lanes <= most:
        raise UsageError(f"layer {operation.name} was given {lanes} multipliers; allowed are 1 to {most}")
    weight = None
    if isinstance(operation, Product):
        weight = operation.weight
        if source.shape[1:] == (1, 1) and operation.groups == 1:
            weight = weight[:, order]
    least = least_rows(operation.window, source)
    engine = Engine(operation, source, value, lanes, least if rows is None else max(rows, least), weight)
    if engine.steps * len(engine.lane_groups) * value.shape[2] < 2:
        raise UnsupportedModel(
            f"layer {operation.name} has one product for a row of outputs, which is too small for an engine; leave it "
            "to the host"
        )
    return engine


def stream_weight(product: Product, order: Array) -> Array:
    """The weights of a linear layer [outputs, inputs], in the order in which a stream brings its inputs."""
    return product.weight[:, order, 0, 0]


def weights_in_order(plan: Plan, number: int) -> Array:
    """The weights of a linear layer, by the number of its operation, in the order of its stream."""
    product = plan.graph.operations[number]
    stage = next(stage for stage in plan.stages if stage.unit.operation is product)
    assert isinstance(product, Product)
    return stream_weight(product, plan.orders[stage.sources[0]])


def least_rows(window: Window, source: Value) -> int:
    """Rows of a line buffer below which the next window could not be read while this one is used."""
    if source.shape[1:] == (1, 1):
        return 2
    return window.kernel[0] + window.stride[0]


def _stream_order(value: Value) -> Array:
    """Maps stream row by row, place by place, all channels of a place together."""
    channels, height, width = value.shape
    return np.arange(value.elements).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)


def _checked_order(operation: Operation, orders: Sequence[Array]) -> Array:
    """The order of what an operation reads. Raises UnsupportedModel where it cannot read it so."""
    first = orders[0]
    if any(not np.array_equal(first, other) for other in orders[1:]):
        raise UnsupportedModel(
            f"layer {operation.name} adds two vectors of which one was flattened from a map; put a linear layer between"
        )
    plain = np.array_equal(first, np.arange(len(first)))
    is_dense = isinstance(operation, Product) and operation.groups == 1
    if not plain and not is_dense and isinstance(operation, Product | MaximumPool | SumPool) and _is_flat(operation):
        raise UnsupportedModel(
            f"layer {operation.name} reads a flattened map channel by channel; put it before the flatten"
        )
    return first


def _is_flat(operation: Product | MaximumPool | SumPool) -> bool:
    return operation.window.kernel == (1, 1) and isinstance(operation, Product) and operation.groups > 1
