"""The unrolled engine in Verilog: a linear layer as an adder graph of its constants, without a multiplier or a memory.

The inputs of a vector are shifted in and held; every addition has a register. While the inputs stay, the registers
settle, one level a cycle, so that no operand has to be delayed to meet another.
"""

from __future__ import annotations

import numpy as np

from vivace.hardware.graph.integer import Product, Window
from vivace.hardware.rtl.adders import Term
from vivace.hardware.rtl.plan import Unrolled
from vivace.hardware.rtl.rounding import Module, drain, output, parameters, rounding_file, sum_bits
from vivace.hardware.rtl.words import constant, element, element_bits, signed, width


def unrolled_module(unit: Unrolled, name: str) -> Module:
    """The module of an unrolled linear layer: a stream in, a stream out."""
    parts = [
        _header(unit, name), _inputs(unit), _adders(unit),
        drain(unit, "full & (settling == 0) & ((left_over == 0) | drained)", "1'b0"),
        parameters(unit, name), output(unit), "endmodule\n",
    ]  # fmt: skip
    return Module(name, "\n".join(parts), {f"{name}_rounding.hex": rounding_file(unit)})


def _header(unit: Unrolled, name: str) -> str:
    weight = unit.weight
    zeros = 1 - np.count_nonzero(weight) / weight.size
    size = f"{weight.shape[1]} inputs, {len(weight)} outputs"
    return f"""// Layer {unit.operation.name}: {size}, unrolled; {zeros:.0%} of the weights are 0.
// {len(unit.graph.adders)} additions, {unit.graph.plain_adders} without sharing; {unit.graph.depth} levels.
module {name} (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  output reg  in_ready,
  input  wire [{unit.source.format.bits - 1}:0] in_data,
  output reg  out_valid,
  input  wire out_ready,
  output reg  [{unit.value.format.bits - 1}:0] out_data
);
"""


def _inputs(unit: Unrolled) -> str:
    """The inputs of one vector; the next vector may come when the sums were handed over."""
    inputs, bits = unit.weight.shape[1], unit.source.format.bits
    counter, settle = width(inputs - 1), width(unit.graph.depth)
    shifted = f"{{in_data, held[{inputs * bits - 1}:{bits}]}}" if inputs > 1 else "in_data"
    return f"""  reg [{inputs * bits - 1}:0] held;
  reg [{counter - 1}:0] come;
  reg [{settle - 1}:0] settling;
  reg full;
  wire put = in_valid & in_ready;
  wire last_put = put & (come == {constant(inputs - 1, counter)});
  wire drained, hand_over;
  always @(posedge clk) if (put) held <= {shifted};
  always @(posedge clk)
    if (rst) begin
      come <= 0;
      settling <= 0;
      full <= 1'b0;
      in_ready <= 1'b1;
    end else begin
      if (put) come <= last_put ? {constant(0, counter)} : come + 1'b1;
      if (last_put) settling <= {constant(unit.graph.depth, settle)};
      else if (settling != 0) settling <= settling - 1'b1;
      if (last_put) full <= 1'b1;
      else if (hand_over) full <= 1'b0;
      if (last_put) in_ready <= 1'b0;
      else if (hand_over) in_ready <= 1'b1;
    end
"""


def _adders(unit: Unrolled) -> str:
    """A wire for each input, a register for each addition, and the sums side by side."""
    form, graph = unit.source.format, unit.graph
    reach = max(abs(form.low), form.high)
    bounds = [reach] * graph.inputs
    lines = [
        f"  wire signed [{element_bits(form) - 1}:0] node_{place} = "
        f"{element(form, f'held[{(place + 1) * form.bits - 1}:{place * form.bits}]')};"
        for place in range(graph.inputs)
    ]
    registers = []
    for place, adder in enumerate(graph.adders):
        bound = sum(bounds[term.node] << term.shift for term in (adder.first, adder.second))
        bounds.append(bound)
        node = graph.inputs + place
        lines.append(f"  reg signed [{bound.bit_length()}:0] node_{node};")
        registers.append(f"    node_{node} <= {_text(adder.first)}{_text(adder.second, follows=True)};")
    total = sum_bits(unit)
    for place, term in enumerate(graph.outputs):
        value = signed(0, total) if term is None else _text(term)
        lines.append(f"  wire signed [{total - 1}:0] total_{place} = {value};")
    sums = ", ".join(f"total_{place}" for place in reversed(range(len(graph.outputs))))
    clocked = ["  always @(posedge clk) begin", *registers, "  end"] if registers else []
    return "\n".join([*lines, *clocked, f"  wire [{len(graph.outputs) * total - 1}:0] sums = {{{sums}}};", ""])


def _text(term: Term, follows: bool = False) -> str:
    sign = "-" if term.sign < 0 else ""
    shifted = f"(node_{term.node} <<< {term.shift})" if term.shift else f"node_{term.node}"
    if follows:
        return f" {sign or '+'} {shifted}"
    return f"{sign}{shifted}"


def is_linear(product: Product, shape: tuple[int, int, int]) -> bool:
    """Whether a product is a linear layer over a vector, which is what can be unrolled."""
    return shape[1:] == (1, 1) and product.groups == 1 and product.window == Window()
