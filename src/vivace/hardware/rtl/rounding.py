"""What all engines share in Verilog: sums that leave one by one, their bias and multiplier, rounding, and clipping."""

from __future__ import annotations

import dataclasses

import numpy as np

from vivace.hardware.graph.integer import MULTIPLIER_BITS, MaximumPool, Product
from vivace.hardware.rtl import words
from vivace.hardware.rtl.plan import Engine, Unrolled
from vivace.hardware.rtl.words import constant, element_bits, signed, width

_SPLIT = 17
"""Low bits of a sum that one 18-bit multiplier takes; what is above goes to a second one."""


@dataclasses.dataclass(frozen=True)
class Module:
    """A Verilog module, and the memory files that it reads: name to text."""

    name: str
    text: str
    files: dict[str, str]


def sum_bits(engine: Engine | Unrolled) -> int:
    """Bits of a sum."""
    if isinstance(engine.operation, MaximumPool):
        return element_bits(engine.source.format)
    return max(engine.operation.accumulator_bits, element_bits(engine.source.format))


def drain(engine: Engine | Unrolled, handed_over: str, is_short: str) -> str:
    """Finished sums leave one by one, so that one rounding unit serves all lanes."""
    total, lanes = sum_bits(engine), engine.lanes
    bits = width(lanes)
    short = min(engine.lane_groups)
    shifted = f"{{{total}'d0, drain[{lanes * total - 1}:{total}]}}" if lanes > 1 else "drain"
    return f"""  // The drain.
  reg [{lanes * total - 1}:0] drain;
  reg [{bits - 1}:0] left_over;
  wire move = ~out_valid | out_ready;
  assign hand_over = {handed_over};
  wire leave = move & (left_over != 0);
  assign drained = leave & (left_over == {constant(1, bits)});
  always @(posedge clk)
    if (rst) left_over <= 0;
    else if (hand_over) left_over <= {is_short} ? {constant(short, bits)} : {constant(lanes, bits)};
    else if (leave) left_over <= left_over - 1'b1;
  always @(posedge clk)
    if (hand_over) drain <= sums;
    else if (leave) drain <= {shifted};
"""


def _bias_bits(product: Product) -> int:
    return max(2, int(np.abs(product.bias).max(initial=0)).bit_length() + 1)


def parameters(engine: Engine | Unrolled, name: str) -> str:
    """The memory of biases and multipliers, read as the sums leave."""
    product = engine.operation
    assert isinstance(product, Product)
    outputs, bits = len(product.bias), _bias_bits(product) + MULTIPLIER_BITS
    address = width(outputs - 1)
    after = f"output_channel == {constant(outputs - 1, address)} ? {constant(0, address)} : output_channel + 1'b1"
    return f"""  // The bias and the multiplier of each output, read a cycle ahead.
  reg [{bits - 1}:0] rounding [0:{outputs - 1}];
  initial $readmemh("{name}_rounding.hex", rounding);
  reg [{address - 1}:0] output_channel;
  reg [{bits - 1}:0] rounding_0, rounding_1;
  wire [{address - 1}:0] after_channel = {after};
  wire [{address - 1}:0] read_channel = leave ? after_channel : output_channel;
  always @(posedge clk) output_channel <= rst ? {constant(0, address)} : read_channel;
  always @(posedge clk) rounding_0 <= rounding[read_channel];
  always @(posedge clk) if (move) rounding_1 <= rounding_0;
"""


def output(engine: Engine | Unrolled) -> str:
    """From a sum that leaves the drain to the output's register."""
    total, form = sum_bits(engine), engine.value.format
    if isinstance(engine.operation, MaximumPool):
        low, high = engine.operation.low, engine.operation.high
        return f"""  // The output.
  reg valid_1;
  reg signed [{total - 1}:0] sum_1;
{clip_wire("sum_1", total, low, high, form.bits)}  always @(posedge clk)
    if (rst) begin
      valid_1 <= 1'b0;
      out_valid <= 1'b0;
    end else if (move) begin
      valid_1 <= left_over != 0;
      out_valid <= valid_1;
    end
  always @(posedge clk) if (move) begin
    sum_1 <= drain[{total - 1}:0];
    out_data <= clipped;
  end
"""
    return _rounded_output(engine, total)


def _rounded_output(engine: Engine | Unrolled, total: int) -> str:
    operation = engine.operation
    assert not isinstance(operation, MaximumPool)
    scaled = max(total + MULTIPLIER_BITS + 1, operation.rounding.shift + 2)
    if isinstance(operation, Product):
        bias = _bias_bits(operation)
        added = f"$signed(sum_1) + $signed(rounding_1[{bias + MULTIPLIER_BITS - 1}:{MULTIPLIER_BITS}])"
        multiplier = f"rounding_1[{MULTIPLIER_BITS - 1}:0]"
    else:
        added, multiplier = "sum_1", constant(operation.multiplier, MULTIPLIER_BITS)
    rounding = operation.rounding
    return f"""  // Rounding: bias, product with the multiplier, half, shift, clip; each step is registered.
  reg [3:0] valid_r;
  reg signed [{total - 1}:0] sum_1, biased_2;
  reg [{MULTIPLIER_BITS - 1}:0] multiplier_2;
{product_registers(total)}
  reg signed [{scaled - 1}:0] scaled_4;
  wire signed [{scaled - 1}:0] shifted = scaled_4 >>> {rounding.shift};
{clip_wire("shifted", scaled, rounding.low, rounding.high, engine.value.format.bits)}  always @(posedge clk)
    if (rst) begin
      valid_r <= 0;
      out_valid <= 1'b0;
    end else if (move) begin
      valid_r <= {{valid_r[2:0], left_over != 0}};
      out_valid <= valid_r[3];
    end
  always @(posedge clk) if (move) begin
    sum_1 <= drain[{total - 1}:0];
    biased_2 <= {added};
    multiplier_2 <= {multiplier};
{product_steps("biased_2", "multiplier_2", total)}
    scaled_4 <= {product_sum(total)} + {signed(rounding.half, scaled)};
    out_data <= clipped;
  end
"""


def product_registers(bits: int) -> str:
    """The registers of a product with a multiplier: one, or two where one 18-bit multiplier is too narrow."""
    if bits <= _SPLIT + 1:
        return f"  reg signed [{bits + MULTIPLIER_BITS}:0] low_3;"
    return f"""  reg signed [{_SPLIT + 1 + MULTIPLIER_BITS}:0] low_3;
  reg signed [{bits - _SPLIT + MULTIPLIER_BITS}:0] high_3;"""


def product_steps(value: str, multiplier: str, bits: int) -> str:
    """The assignments that fill these registers."""
    by = f"$signed({{1'b0, {multiplier}}})"
    if bits <= _SPLIT + 1:
        return f"    low_3 <= {value} * {by};"
    return f"""    low_3 <= $signed({{1'b0, {value}[{_SPLIT - 1}:0]}}) * {by};
    high_3 <= $signed({value}[{bits - 1}:{_SPLIT}]) * {by};"""


def product_sum(bits: int) -> str:
    """The product, from these registers."""
    return "low_3" if bits <= _SPLIT + 1 else f"low_3 + $signed({{high_3, {_SPLIT}'d0}})"


def clip_wire(value: str, bits: int, low: int, high: int, out_bits: int) -> str:
    """A wire `clipped` of so many bits: a signed value, held between two bounds."""
    bits = max(bits, out_bits, width(max(abs(low), abs(high))) + 1)
    return f"""  wire signed [{bits - 1}:0] unclipped = {value};
  wire [{out_bits - 1}:0] clipped = unclipped < {signed(low, bits)} ? {constant(low, out_bits)}
    : unclipped > {signed(high, bits)} ? {constant(high, out_bits)} : unclipped[{out_bits - 1}:0];
"""


def rounding_file(engine: Engine | Unrolled) -> str:
    """Bias and multiplier of each output, one word each."""
    product = engine.operation
    assert isinstance(product, Product)
    bits = _bias_bits(product)
    mask = (1 << bits) - 1
    pairs = zip(product.bias.tolist(), product.multiplier.tolist(), strict=True)
    numbers = [((bias & mask) << MULTIPLIER_BITS) | multiplier for bias, multiplier in pairs]
    return words.memory_file(numbers, bits + MULTIPLIER_BITS)
