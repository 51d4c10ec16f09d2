"""The smaller modules: the sum of two streams, elements one by one, a queue, and a stream that goes two ways."""

from __future__ import annotations

from vivace.hardware.graph.integer import MULTIPLIER_BITS, Rounding, Value
from vivace.hardware.rtl.plan import Join, Pointwise
from vivace.hardware.rtl.rounding import Module, clip_wire, product_registers, product_steps, product_sum
from vivace.hardware.rtl.words import constant, element, element_bits, extended, signed, width, wrapped


def join_module(join: Join, name: str) -> Module:
    """The sum of two streams, each with its multiplier, rounded once: four registered steps."""
    sources = list(zip("ab", join.sources, join.operation.multipliers, strict=True))
    ports = "".join(
        f"""  input  wire {letter}_valid,
  output wire {letter}_ready,
  input  wire [{value.format.bits - 1}:0] {letter}_data,
"""
        for letter, value, _ in sources
    )
    registers = "".join(
        f"""  reg signed [{element_bits(value.format) - 1}:0] {letter}_1;
  reg signed [{element_bits(value.format) + MULTIPLIER_BITS}:0] {letter}_2;
"""
        for letter, value, _ in sources
    )
    steps = "".join(
        f"""    {letter}_1 <= {element(value.format, f"{letter}_data")};
    {letter}_2 <= {letter}_1 * {signed(multiplier, MULTIPLIER_BITS + 1)};
"""
        for letter, value, multiplier in sources
    )
    bits = max(element_bits(value.format) for value in join.sources) + MULTIPLIER_BITS + 2
    return Module(
        name,
        f"""// Layer {join.operation.name}: the sum of two maps.
module {name} (
  input  wire clk,
  input  wire rst,
{ports}  output reg  out_valid,
  input  wire out_ready,
  output reg  [{join.value.format.bits - 1}:0] out_data
);
  wire move = ~out_valid | out_ready;
  wire meet = a_valid & b_valid;
  assign a_ready = move & meet;
  assign b_ready = move & meet;
{registers}{_tail("meet", "a_2 + b_2", steps, bits, join.operation.rounding, join.value)}endmodule
""",
        {},
    )


def pointwise_module(unit: Pointwise, name: str) -> Module:
    """Each element times one multiplier, rounded and clipped: four registered steps."""
    bits = element_bits(unit.source.format)
    multiplier = constant(unit.operation.multiplier, MULTIPLIER_BITS)
    steps = f"""    in_1 <= {element(unit.source.format, "in_data")};
{product_steps("in_1", multiplier, bits)}
"""
    registers = f"""  reg signed [{bits - 1}:0] in_1;
{product_registers(bits)}
"""
    scaled = bits + MULTIPLIER_BITS + 1
    return Module(
        name,
        f"""// Layer {unit.operation.name}: elements one by one.
module {name} (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  output wire in_ready,
  input  wire [{unit.source.format.bits - 1}:0] in_data,
  output reg  out_valid,
  input  wire out_ready,
  output reg  [{unit.value.format.bits - 1}:0] out_data
);
  wire move = ~out_valid | out_ready;
  assign in_ready = move;
{registers}{_tail("in_valid", product_sum(bits), steps, scaled, unit.operation.rounding, unit.value)}endmodule
""",
        {},
    )


def _tail(valid: str, total: str, steps: str, bits: int, rounding: Rounding, value: Value) -> str:
    """Three steps from registered elements to the output: product, sum with half, clip."""
    bits = max(bits, rounding.shift + 2)
    return f"""  reg [2:0] valid_r;
  reg signed [{bits - 1}:0] scaled_3;
  wire signed [{bits - 1}:0] shifted = scaled_3 >>> {rounding.shift};
{clip_wire("shifted", bits, rounding.low, rounding.high, value.format.bits)}  always @(posedge clk)
    if (rst) begin
      valid_r <= 0;
      out_valid <= 1'b0;
    end else if (move) begin
      valid_r <= {{valid_r[1:0], {valid}}};
      out_valid <= valid_r[2];
    end
  always @(posedge clk) if (move) begin
{steps}    scaled_3 <= {total} + {signed(rounding.half, bits)};
    out_data <= clipped;
  end
"""


def queue_module(bits: int, depth: int, name: str) -> Module:
    """A queue of elements between a fork and a join; an element comes out two cycles after it went in."""
    address, count = width(depth - 1), width(depth)
    return Module(
        name,
        f"""// A queue of {depth} elements of {bits} bits.
module {name} (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  output reg  in_ready,
  input  wire [{bits - 1}:0] in_data,
  output reg  out_valid,
  input  wire out_ready,
  output reg  [{bits - 1}:0] out_data
);
  (* no_rw_check *) reg [{bits - 1}:0] memory [0:{depth - 1}];
  reg [{address - 1}:0] write_address, read_address;
  reg [{count - 1}:0] held;
  wire put = in_valid & in_ready;
  wire move = ~out_valid | out_ready;
  wire get = move & (held != 0);
  wire [{count - 1}:0] next_held = held + {extended("put", count) if count > 1 else "put"} - \
{extended("get", count) if count > 1 else "get"};
  always @(posedge clk) if (put) memory[write_address] <= in_data;
  always @(posedge clk) if (get) out_data <= memory[read_address];
  always @(posedge clk)
    if (rst) begin
      write_address <= 0;
      read_address <= 0;
      held <= 0;
      in_ready <= 1'b0;
      out_valid <= 1'b0;
    end else begin
      if (put) {wrapped("write_address", depth, address)}
      if (get) {wrapped("read_address", depth, address)}
      held <= next_held;
      in_ready <= next_held != {constant(depth, count)};
      if (move) out_valid <= held != 0;
    end
endmodule
""",
        {},
    )
