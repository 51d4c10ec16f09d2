"""LSTMs: the inputs of all steps by one product, then step by step what depends on the step before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Read, Value, stored
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8, LEVELS, Ending, packed, words_of
from vivace.codegen.statements import loop
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.images import KINDS
from vivace.runtimes.native.lowering import Program, narrowest
from vivace.runtimes.native.operands import SIGNED, lines_of
from vivace.runtimes.native.products import is_narrow

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


def _layer(
    program: Program, lines: Array, weights: Sequence[Tensor], hidden: Value, cell: Value, precision: str
) -> tuple[Array, Value]:
    """The hidden states of all steps (time, samples, units), and the cells after the last one."""
    lanes, threads = program.vector.lanes, program.threads
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
    line = words_of(units, precision) * 4 // size
    states = program.room((2, samples, line), kind)
    if precision == INT8:
        program.filled[states.name] = SIGNED
    gates, cells = program.room((samples, width)), program.room((samples, blocks * lanes))
    out = program.room((steps, samples, blocks * lanes))
    begun = Array(states.name, (samples, units), (line, 1), kind)
    kept = Array(cells.name, (samples, units), (blocks * lanes, 1))
    narrowed = {FLOAT32: "{}", BFLOAT16: "narrow({})", INT8: f"byte_of({{}} * {LEVELS}.0f + {SIGNED}.0f)"}[precision]
    held = Value(hidden.shape, kind, lambda i: narrowed.format(hidden.at(i)), hidden.reads)
    program.statements += [loop(begun, held, threads), loop(kept, cell, threads)]
    around = _interleaved(weights[1], units, lanes)[:, None]
    ready = packed(around, None, precision, program.vector, (GATES,) * blocks)
    words, columns = program.kept(ready.words), program.kept(ready.columns)
    each = -(-blocks // threads)
    calls = _calls(
        program, precision, samples, width, words, columns, states.name, line * size, gates.name, before.name, units
    )
    text = (
        f"  {{ const long begin = MIN(t*{each}, {blocks}), end = MIN(begin + {each}, {blocks});\n"
        f"    for (long s = 0; s < {steps}; s++) {{\n"
        f"      const long now = (s & 1)*{samples * line}, next = ((s + 1) & 1)*{samples * line}; (void)now;\n"
        f"      for (long u = begin; u < end; u++) {{\n{calls}\n"
        f"        for (long b = 0; b < {samples}; b++) {{ const float *g = {gates.name} + b*{width} + u*{GATES * lanes};\n"
        f"          const long least = MIN({lanes}, {units} - u*{lanes}); "
        f"float *c = {cells.name} + b*{blocks * lanes} + u*{lanes}, *o = {out.name} + (s*{samples} + b)*{blocks * lanes} + u*{lanes};\n"
        f'          _Pragma("omp simd") for (long e = 0; e < {lanes}; e++) {{\n'
        f"            const float x = fast_sigmoid(g[{lanes} + e])*c[e] + fast_sigmoid(g[e])*fast_tanh(g[{2 * lanes} + e]);\n"
        f"            c[e] = x; o[e] = fast_sigmoid(g[{3 * lanes} + e])*fast_tanh(x); }}\n"
        f"          for (long e = 0; e < least; e++) {states.name}[next + b*{line} + u*{lanes} + e] = "
        f"{narrowed.format('o[e]')}; }} }}\n" + ("      barrier();\n" if threads > 1 else "") + "    } }"
    )
    names = (before.name, states.name, cells.name)
    written = (out.name, states.name, cells.name, gates.name)
    program.add(text, [Read(one, None) for one in names], [Read(one, None) for one in written])
    answer = Array(out.name, (steps, samples, units), out.strides)
    return answer, stored(kept)


def _calls(
    program: Program, precision: str, samples: int, width: int, words: str, columns: str, states: str, line: int,
    gates: str, before: str, units: int,
) -> str:  # fmt: skip
    """C of the product of one step, for the vector u of units."""
    lanes = program.vector.lanes
    most = max(1, (program.vector.registers - 1 - GATES) // GATES)
    depth = words_of(units, precision)
    table, first = program.table([line * sample for sample in range(samples)]), program.table([0])
    fixed = ""
    if precision == INT8:
        scale = program.constant(torch.full((samples,), 1.0 / LEVELS)).name
        fixed = "{scale} + {m}, 0, {zero}.0f, ".replace("{scale}", scale).replace("{zero}", str(SIGNED))
    lines, m = [], 0
    while m < samples:
        count = min(most, samples - m)
        program.kernels.add((precision, count, GATES))
        lines.append(
            f"        panel_{precision}_{count}_{GATES}((const char *)({states} + now), {table} + {m}, {first}, 1, {depth}, "
            f"(const char *){words} + u*{GATES * lanes * depth * 4}L, {columns} + u*{GATES * lanes}, {width}, "
            f"{fixed.format(m=m)}{before} + (s*{samples} + {m})*{width} + u*{GATES * lanes}, "
            f"{gates} + {m * width} + u*{GATES * lanes}, {width}, 0);"
        )
        m += count
    return "\n".join(lines)


RECURRENT: Mapping[str, Callable[..., Any]] = {"lstm": lstm}
"""By the operator's name."""
