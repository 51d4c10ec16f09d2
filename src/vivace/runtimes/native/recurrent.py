"""LSTMs: the inputs of all steps by one product, then step by step what depends on the step before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Read, Value, stored
from vivace.codegen.panels import BFLOAT16, INT8, Ending, bounds, bytes_of, free_registers, packed, words_of
from vivace.codegen.statements import loop
from vivace.codegen.tiles import ALL_LEVELS
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.images import KINDS
from vivace.runtimes.native.lowering import Program, is_narrow, narrowest
from vivace.runtimes.native.operands import SIGNED, lines_of

GATES = 4
"""Of a cell: input, forget, candidate, output, in PyTorch's order."""


def lstm(
    program: Program, node: Node, value: Value, states: Sequence[Value], weights: Sequence[Any], has_biases: bool,
    layers: int, dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> list[Value]:  # fmt: skip
    """aten.lstm.input in one direction."""
    known = [program.known(one) for one in weights]
    each = 4 if has_biases else 2
    if bidirectional or (train and dropout) or len(known) != each * layers or any(one is None for one in known):
        raise NotApplicable(f"there is no C for {node.target} of this kind")
    whole = [one.float() for one in known if one is not None]
    if len(value.shape) != 3:
        raise NotApplicable(f"there is no C for {node.target} without samples")
    hidden, cells = (program.stored(one) for one in states)
    precision = narrowest(program.precision(node.name), program.vector, is_narrow(node))
    lines = _by_time(program.stored(value)) if batch_first else program.stored(value)
    lasts: list[tuple[Value, Value]] = []
    for layer in range(layers):
        own = whole[each * layer : each * (layer + 1)]
        first = [stored(_of_layer(one, layer)) for one in (hidden, cells)]
        lines, cell = _layer(program, lines, own, first[0], first[1], precision)
        last = Array(lines.name, lines.shape[1:], lines.strides[1:], FLOAT, (lines.shape[0] - 1) * lines.strides[0])
        lasts.append((stored(last), cell))
    answer = _by_time(lines) if batch_first else lines
    return [stored(answer), *(_stacked(program, [pair[place] for pair in lasts]) for place in (0, 1))]


def _by_time(array: Array) -> Array:
    """The first two axes exchanged."""
    one, two, *others = range(len(array.shape))
    order = (two, one, *others)
    shape, steps = (tuple(sizes[axis] for axis in order) for sizes in (array.shape, array.strides))
    return Array(array.name, shape, steps, array.kind, array.offset)


def _of_layer(array: Array, layer: int) -> Array:
    return Array(array.name, array.shape[1:], array.strides[1:], array.kind, array.offset + layer * array.strides[0])


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


def _layer(
    program: Program, lines: Array, weights: Sequence[Tensor], hidden: Value, cell: Value, precision: str
) -> tuple[Array, Value]:
    """The hidden states of all steps (time, samples, units), and the cells after the last one."""
    lanes = program.vector.lanes
    steps, samples, _ = lines.shape
    units = weights[1].shape[1]
    blocks = -(-units // lanes)
    width = blocks * GATES * lanes
    bias = weights[2] + weights[3] if len(weights) == 4 else None
    before = program.room((steps, samples, width))
    into = _interleaved(weights[0], units, lanes)[:, None]
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
    program.statements += [loop(states, held, program.threads), loop(kept, cell, program.threads)]
    gates, out = program.room((samples, width)), program.room((steps, samples, blocks * lanes))
    layer = _Layer(
        steps, samples, units, blocks, width, line, precision, before.name, states, gates.name, cells.name, out.name
    )
    reads = [Read(one, None) for one in (before.name, states.name, cells.name)]
    writes = [Read(one, None) for one in (out.name, states.name, cells.name, gates.name)]
    program.add(_walk(program, layer, weights[1]), reads, writes)
    return Array(out.name, (steps, samples, units), out.strides), stored(kept)


def _narrowed(text: str, precision: str) -> str:
    """A hidden state, which lies between -1 and 1, as products read it."""
    if precision == INT8:
        return f"low_byte({text} * {ALL_LEVELS}.0f + ({SIGNED}.0f + TO_WHOLE))"
    return f"narrow({text})" if precision == BFLOAT16 else text


def _walk(program: Program, layer: _Layer, weight: Tensor) -> str:
    """C that takes step after step, a thread its own vectors of units."""
    lanes, threads, samples = program.vector.lanes, program.threads, layer.samples
    each, wide = -(-layer.blocks // threads), layer.blocks * lanes
    one = samples * layer.states.strides[0]
    return (
        f"  {{ const long begin = MIN(t*{each}, {layer.blocks}), end = MIN(begin + {each}, {layer.blocks});\n"
        f"    for (long s = 0; s < {layer.steps}; s++) {{\n"
        f"      const long now = (s & 1)*{one}, next = ((s + 1) & 1)*{one}; (void)now;\n"
        f"      for (long u = begin; u < end; u++) {{\n{_products(program, layer, weight)}\n"
        f"        const long least = MIN({lanes}, {layer.units} - u*{lanes});\n"
        f"        for (long b = 0; b < {samples}; b++) {{\n"
        f"          const float *g = {layer.gates} + b*{layer.width} + u*{GATES * lanes};\n"
        f"          float *c = {layer.cells} + b*{wide} + u*{lanes};\n"
        f"          float *o = {layer.out} + (s*{samples} + b)*{wide} + u*{lanes};\n"
        f'          _Pragma("omp simd") for (long e = 0; e < {lanes}; e++) {{\n'
        f"            const float kept = fast_sigmoid(g[{lanes} + e])*c[e];\n"
        f"            const float x = kept + fast_sigmoid(g[e])*fast_tanh(g[{2 * lanes} + e]);\n"
        f"            c[e] = x; o[e] = fast_sigmoid(g[{3 * lanes} + e])*fast_tanh(x); }}\n"
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
        program.kernels.add((precision, count, GATES))
        lines.append(
            f"        panel_{precision}_{count}_{GATES}((const char *)({layer.states.name} + now), {places} + {m}, "
            f"{program.table([0])}, 1, {depth}, (const char *){words} + u*{block * depth * 4}L, "
            f"{columns} + u*{block}, {layer.width}, {told}"
            f"{layer.before} + (s*{layer.samples} + {m})*{layer.width} + u*{block}, "
            f"{layer.gates} + {m * layer.width} + u*{block}, {layer.width}, {bounds(Ending())});"
        )
    return "\n".join(lines)


RECURRENT: Mapping[str, Callable[..., Any]] = {"lstm": lstm}
"""By the operator's name."""
