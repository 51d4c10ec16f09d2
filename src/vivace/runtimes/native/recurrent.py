"""LSTMs and GRUs: the inputs of all steps by one product, then step by step what depends on the step before."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Read, Value, stored
from vivace.codegen.panels import (
    BFLOAT16,
    FLOAT32,
    INT8,
    Ending,
    bounds,
    bytes_of,
    free_registers,
    name_of,
    packed,
    words_of,
)
from vivace.codegen.statements import loop
from vivace.codegen.tiles import ALL_LEVELS
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.images import KINDS
from vivace.runtimes.native.lowering import Program, is_narrow, narrowest
from vivace.runtimes.native.operands import SIGNED, lines_of

GATES = 4
"""Of a cell, a vector of each beside the others'."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a kind of cell does of its gates, `$0` to `$3`: C that sets its hidden state `o` and keeps `c` for the next
    step. `gates` puts PyTorch's weights of a layer in that order: for the input, for the state before, the bias. Of
    `states` a layer begins with so many, and leaves them."""

    gates: Callable[[Sequence[Tensor]], tuple[Tensor, Tensor, Tensor | None]]
    text: str
    states: int


def _long_gates(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, forget, candidate, output."""
    return weights[0], weights[1], weights[2] + weights[3] if len(weights) == 4 else None


def _gated_gates(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Reset, update, and the two parts of the candidate: of the state before, which is reset, and of the input."""
    into, across, *biases = weights
    units = across.shape[1]
    into = torch.cat([into[: 2 * units], torch.zeros(units, into.shape[1]), into[2 * units :]])
    across = torch.cat([across, torch.zeros(units, units)])
    if not biases:
        return into, across, None
    own, other = biases
    return into, across, torch.cat([(own + other)[: 2 * units], other[2 * units :], own[2 * units :]])


LSTM = Cell(
    _long_gates,
    "const float x = fast_sigmoid($1)*c[e] + fast_sigmoid($0)*fast_tanh($2); "
    "c[e] = x; o[e] = fast_sigmoid($3)*fast_tanh(x);", 2
)  # fmt: skip
GRU = Cell(
    _gated_gates,
    "const float x = fast_tanh($3 + fast_sigmoid($0)*$2); c[e] = o[e] = x + fast_sigmoid($1)*(c[e] - x);", 1
)  # fmt: skip


def lstm(program: Program, node: Node, value: Value, states: Sequence[Value], *others: Any) -> list[Value]:
    """aten.lstm.input."""
    return _recurrent(program, node, LSTM, value, states, *others)


def gru(program: Program, node: Node, value: Value, state: Value, *others: Any) -> list[Value]:
    """aten.gru.input."""
    return _recurrent(program, node, GRU, value, [state], *others)


def _recurrent(
    program: Program, node: Node, cell: Cell, value: Value, states: Sequence[Value], weights: Sequence[Any],
    has_biases: bool, layers: int, dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> list[Value]:  # fmt: skip
    """The hidden states of all steps, and each of the cell's states after the last one."""
    known, ways = [program.known(one) for one in weights], 2 if bidirectional else 1
    each = 4 if has_biases else 2
    if (train and dropout) or len(known) != each * layers * ways or any(one is None for one in known):
        raise NotApplicable(f"there is no C for {node.target} of this kind")
    whole = [one.float() for one in known if one is not None]
    if len(value.shape) != 3:
        raise NotApplicable(f"there is no C for {node.target} without samples")
    begin = [program.stored(one) for one in states]
    precision = narrowest(program.precision(node.name), program.vector, is_narrow(node))
    if precision == INT8 and not _is_within_one(program.known(states[0])):
        precision = FLOAT32  # bytes hold a hidden state between -1 and 1, where all are that follow such a one
    lines = _by_time(program.stored(value)) if batch_first else program.stored(value)
    lasts: list[tuple[Value, Value]] = []
    for layer in range(layers):
        made = []
        for way in range(ways):
            place = layer * ways + way
            first = [stored(_of_layer(one, place)) for one in begin]
            own = whole[each * place : each * (place + 1)]
            with program.on(way) if ways == 2 and program.is_apart else contextlib.nullcontext():
                out, kept = _layer(program, lines, cell, own, first[0], first[-1], precision, way == 1)
            made.append(out)
            at = 0 if way else (out.shape[0] - 1) * out.strides[0]
            lasts.append((stored(Array(out.name, out.shape[1:], out.strides[1:], FLOAT, at)), kept))
        lines = made[0] if ways == 1 else _side_by_side(program, made)
    answer = _by_time(lines) if batch_first else lines
    ends = (_stacked(program, [pair[place] for pair in lasts]) for place in range(cell.states))
    return [stored(answer), *ends]


def _is_within_one(known: Tensor | None) -> bool:
    return known is not None and (not known.numel() or float(known.abs().max()) <= 1.0)


def _by_time(array: Array) -> Array:
    """The first two axes exchanged."""
    one, two, *others = range(len(array.shape))
    order = (two, one, *others)
    shape, steps = (tuple(sizes[axis] for axis in order) for sizes in (array.shape, array.strides))
    return Array(array.name, shape, steps, array.kind, array.offset)


def _of_layer(array: Array, layer: int) -> Array:
    return Array(array.name, array.shape[1:], array.strides[1:], array.kind, array.offset + layer * array.strides[0])


def _side_by_side(program: Program, ways: Sequence[Array]) -> Array:
    """What both directions make of the steps, one behind the other in each line."""
    steps, samples, units = ways[0].shape
    to = program.room((steps, samples, units * len(ways)))
    for place, way in enumerate(ways):
        half = Array(to.name, way.shape, to.strides, FLOAT, place * units)
        made = loop(half, stored(way), program.threads)
        program.add(made.text, made.reads, (Read(to.name, None),))
    return to


def _stacked(program: Program, values: Sequence[Value]) -> Value:
    to = program.room((len(values), *values[0].shape))
    for place, value in enumerate(values):
        made = loop(_of_layer(to, place), value, program.threads)
        program.add(made.text, made.reads, (Read(to.name, None),))
    return stored(to)


def _interleaved(weight: Tensor, units: int, lanes: int) -> Tensor:
    """Rows (4 x units, ...) so that a vector of each gate lies beside the others', for every vector of units."""
    blocks = -(-units // lanes)
    wide = torch.zeros(GATES, blocks * lanes, *weight.shape[1:])
    wide[:, :units] = weight.reshape(GATES, units, *weight.shape[1:])
    shaped = wide.reshape(GATES, blocks, lanes, *weight.shape[1:]).transpose(0, 1)
    return shaped.reshape(GATES * blocks * lanes, *weight.shape[1:]).contiguous()


@dataclasses.dataclass(frozen=True)
class _Layer:
    """The memory of a layer. `width` floats hold the gates of a sample, `line` bytes its hidden state as products read
    it, twice: of the step before, and of this one."""

    steps: int
    samples: int
    units: int
    blocks: int
    width: int
    line: int
    precision: str
    before: str
    states: Array
    gates: str
    cells: str
    out: str
    is_backward: bool


def _layer(
    program: Program, lines: Array, cell: Cell, weights: Sequence[Tensor], hidden: Value, kept_before: Value,
    precision: str, is_backward: bool,
) -> tuple[Array, Value]:  # fmt: skip
    """The hidden states of all steps (time, samples, units), and what the cells keep after the last one."""
    lanes = program.vector.lanes
    steps, samples, _ = lines.shape
    units = weights[1].shape[1]
    blocks = -(-units // lanes)
    width = blocks * GATES * lanes
    for_input, for_state, bias = cell.gates(weights)
    before = program.room((steps, samples, width))
    into = _interleaved(for_input, units, lanes)[:, None]
    told = None if bias is None else _interleaved(bias, units, lanes)
    rows = lines_of(program, stored(lines), precision)
    program.panel_product(into, told, rows, before, width, Ending(), precision)
    kind, size = KINDS[precision]
    line = bytes_of(units, precision)
    program.flops += 2 * steps * samples * weights[1].numel()
    room = program.room((2, samples, line // size), kind)
    if precision == INT8:
        program.filled[room.name] = SIGNED
    states = Array(room.name, (samples, units), (line // size, 1), kind)
    cells = program.room((samples, blocks * lanes))
    kept = Array(cells.name, (samples, units), cells.strides)
    held = Value(hidden.shape, kind, lambda i: _narrowed(hidden.at(i), precision), hidden.reads)
    program.statements += [loop(states, held, program.threads), loop(kept, kept_before, program.threads)]
    gates, out = program.room((samples, width)), program.room((steps, samples, blocks * lanes))
    layer = _Layer(
        steps, samples, units, blocks, width, line, precision, before.name, states, gates.name, cells.name, out.name,
        is_backward,
    )  # fmt: skip
    reads = [Read(one, None) for one in (before.name, states.name, cells.name)]
    writes = [Read(one, None) for one in (out.name, states.name, cells.name, gates.name)]
    program.add(_walk(program, layer, cell, for_state), reads, writes)
    return Array(out.name, (steps, samples, units), out.strides), stored(kept)


def _narrowed(text: str, precision: str) -> str:
    """A hidden state, which lies between -1 and 1, as products read it."""
    if precision == INT8:
        return f"low_byte({text} * {ALL_LEVELS}.0f + ({SIGNED}.0f + TO_WHOLE))"
    return f"narrow({text})" if precision == BFLOAT16 else text


def _walk(program: Program, layer: _Layer, cell: Cell, weight: Tensor) -> str:
    """C that takes step after step, a thread its own vectors of units."""
    lanes, threads, samples = program.vector.lanes, program.threads, layer.samples
    each, wide = -(-layer.blocks // threads), layer.blocks * lanes
    one, update = samples * layer.states.strides[0], cell.text
    for gate in range(GATES):
        update = update.replace(f"${gate}", f"g[{gate * lanes} + e]")
    return (
        f"  {{ const long begin = MIN(t*{each}, {layer.blocks}), end = MIN(begin + {each}, {layer.blocks});\n"
        f"    for (long s = 0; s < {layer.steps}; s++) {{\n"
        f"      const long now = (s & 1)*{one}, next = ((s + 1) & 1)*{one}; (void)now;\n"
        f"      const long at = {f'{layer.steps - 1} - s' if layer.is_backward else 's'};\n"
        f"      for (long u = begin; u < end; u++) {{\n{_products(program, layer, weight)}\n"
        f"        const long least = MIN({lanes}, {layer.units} - u*{lanes});\n"
        f"        for (long b = 0; b < {samples}; b++) {{\n"
        f"          const float *g = {layer.gates} + b*{layer.width} + u*{GATES * lanes};\n"
        f"          float *c = {layer.cells} + b*{wide} + u*{lanes};\n"
        f"          float *o = {layer.out} + (at*{samples} + b)*{wide} + u*{lanes};\n"
        f'          _Pragma("omp simd") for (long e = 0; e < {lanes}; e++) {{ {update} }}\n'
        f"          for (long e = 0; e < least; e++)\n"
        f"            {layer.states.name}[next + b*{layer.states.strides[0]} + u*{lanes} + e] = "
        f"{_narrowed('o[e]', layer.precision)}; }} }}\n" + ("      barrier();\n" if threads > 1 else "") + "    } }"
    )


def _products(program: Program, layer: _Layer, weight: Tensor) -> str:
    """C of the products of one step, for the vector u of units."""
    lanes, precision = program.vector.lanes, layer.precision
    ready = packed(
        _interleaved(weight, layer.units, lanes)[:, None], None, precision, program.vector, (GATES,) * layer.blocks
    )
    words, columns = program.kept(ready.words), program.kept(ready.columns)
    depth = words_of(layer.units, precision)
    places = program.table([layer.line * sample for sample in range(layer.samples)])
    told, block = "", GATES * lanes
    if precision == INT8:
        told = f"{program.constant(torch.full((layer.samples,), 1.0 / ALL_LEVELS)).name}, 0, {SIGNED}.0f, "
    most, lines = max(1, (free_registers(program.vector, precision) - GATES) // GATES), []
    for m in range(0, layer.samples, most):
        count = min(most, layer.samples - m)
        kernel = (precision, count, GATES, False)
        program.kernels.add(kernel)
        lines.append(
            f"        {name_of(kernel)}((const char *)({layer.states.name} + now), {places} + {m}, "
            f"{program.table([0])}, 1, {depth}, (const char *){words} + u*{block * depth * 4}L, "
            f"{columns} + u*{block}, {layer.width}, {told}"
            f"{layer.before} + (at*{layer.samples} + {m})*{layer.width} + u*{block}, "
            f"{layer.gates} + {m * layer.width} + u*{block}, {layer.width}, {bounds(Ending())});"
        )
    return "\n".join(lines)


RECURRENT: Mapping[str, Callable[..., Any]] = {"lstm": lstm, "gru": gru}
"""By the operator's name."""
