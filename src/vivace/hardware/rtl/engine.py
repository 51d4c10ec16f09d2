"""The folded engine in Verilog: a line buffer, a walk over its windows, P multipliers, and one rounding unit."""

from __future__ import annotations

from vivace.hardware.graph.integer import MaximumPool, Product, SumPool
from vivace.hardware.rtl.plan import LANES_A_COPY, Engine
from vivace.hardware.rtl.rounding import Module, drain, output, parameters, rounding_file, sum_bits
from vivace.hardware.rtl.weights import weight_files, weights
from vivace.hardware.rtl.words import (
    by_counter,
    constant,
    counters,
    element,
    element_bits,
    extended,
    signed,
    width,
    wrapped,
)


def engine_module(engine: Engine, name: str) -> Module:
    """The module of an engine: a stream in, a stream out, each with valid and ready."""
    files: dict[str, str] = {}
    parts = [_header(engine, name), _buffer(engine), _walk(engine), _addresses(engine), _flags(engine)]
    if isinstance(engine.operation, Product):
        files |= weight_files(engine, name)
        parts.append(weights(engine, name))
    parts += [_sums(engine), drain(engine, "valid_p[6] & last_p[6]", "short_p[6]")]
    if isinstance(engine.operation, Product):
        files[f"{name}_rounding.hex"] = rounding_file(engine)
        parts.append(parameters(engine, name))
    parts += [output(engine), "endmodule\n"]
    return Module(name, "\n".join(parts), files)


def _header(engine: Engine, name: str) -> str:
    operation, window = engine.operation, engine.window
    kind = {Product: "sums of products", MaximumPool: "maxima", SumPool: "averages"}[type(operation)]
    walk = f"{window.kernel[0]} x {window.kernel[1]} windows, stride {window.stride}, padding {window.padding}"
    shapes = f"{_shape(engine.source.shape)} in, {_shape(engine.value.shape)} out"
    return f"""// Layer {operation.name}: {kind} of {walk}.
// {shapes}; {engine.steps} steps an output, {engine.lanes} lanes.
module {name} (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  output reg  in_ready,
  input  wire [{engine.source.format.bits - 1}:0] in_data,
  output reg  out_valid,
  input  wire out_ready,
  output reg  [{engine.value.format.bits - 1}:0] out_data
);
"""


def _shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} channels of {shape[1]} x {shape[2]}"


def _size(engine: Engine) -> int:
    return engine.rows * engine.row_elements


def _address_bits(engine: Engine) -> int:
    return width(_size(engine) - 1)


def _buffer(engine: Engine) -> str:
    """The line buffer, written round and round; the space that is left says whether another element may come."""
    size, bits, space = _size(engine), _address_bits(engine), width(_size(engine))
    rows = range(engine.value.shape[1])
    freed = [(engine.first_needed_row(row + 1) - engine.first_needed_row(row)) * engine.row_elements for row in rows]
    return f"""  // The line buffer: {engine.rows} rows of {engine.row_elements} elements.
  (* no_rw_check *) reg [{engine.source.format.bits - 1}:0] memory [0:{size - 1}];
  reg [{bits - 1}:0] write_address;
  reg [{space - 1}:0] space, free_1, free_2, free_3;
  wire put = in_valid & in_ready;
  wire row_done;
{_row_counter(engine)}  wire [{space - 1}:0] row_space = {by_counter("row", freed, space)};
  wire [{space - 1}:0] next_space = space - {extended("put", space)} + free_3;
  always @(posedge clk) if (put) memory[write_address] <= in_data;
  always @(posedge clk)
    if (rst) begin
      write_address <= 0;
      space <= {constant(size, space)};
      in_ready <= 1'b0;
      free_1 <= 0;
      free_2 <= 0;
      free_3 <= 0;
    end else begin
      if (put) {wrapped("write_address", size, bits)}
      free_1 <= row_done ? row_space : {constant(0, space)};
      free_2 <= free_1;
      free_3 <= free_2;
      space <= next_space;
      in_ready <= next_space != 0;
    end
"""


def _row_counter(engine: Engine) -> str:
    return "" if engine.value.shape[1] == 1 else f"  reg [{width(engine.value.shape[1] - 1) - 1}:0] row;\n"


def _levels(engine: Engine) -> list[tuple[str, int]]:
    """The loops over one sample, innermost first."""
    part = len(engine.lane_groups) // engine.groups
    kernel_rows, kernel_columns = engine.window.kernel
    return [
        ("channel", engine.inputs), ("tap", kernel_columns), ("tap_row", kernel_rows), ("lane_group", part),
        ("group", engine.groups), ("column", engine.value.shape[2]), ("row", engine.value.shape[1]),
    ]  # fmt: skip


def _walk(engine: Engine) -> str:
    """When a step may be issued: its row of the map has come, and the drain has room for the sums of its last step."""
    declared, reset, body = counters(_levels(engine), "go")
    if engine.value.shape[1] > 1:
        declared = declared.replace(_row_counter(engine), "")
    if engine.is_stream:
        bits, first, others = width(_size(engine)) + 1, 1, ""
        part = len(engine.lane_groups)
        taken = "go" if part == 1 else "go & (lane_group == 0)"
        others = "" if part == 1 else " | (lane_group != 0)"
        used = extended(taken, bits)
    else:
        rows = range(engine.value.shape[1])
        needed = [(engine.last_needed_row(row) + 1) * engine.row_elements for row in rows]
        sample = engine.source.elements
        deltas = [b - a for a, b in zip(needed, [*needed[1:], needed[0] + sample], strict=True)]
        first, others = needed[0], ""
        bits = width(2 * (_size(engine) + sample)) + 1
        used = f"(row_done ? {by_counter('row', deltas, bits)} : {constant(0, bits)})"
    return f"""  // The walk: an element's credit is what has come, less what the next step needs.
{declared}  reg signed [{bits - 1}:0] credit;
  reg draining, pause;
  wire drained, hand_over;
  wire last_step = last_channel & last_tap & last_tap_row;
  wire last_place = last_step & last_lane_group & last_group;
  wire go = (~credit[{bits - 1}]{others}) & ~pause & (~last_step | ~draining);
  assign row_done = go & last_place & last_column;
  always @(posedge clk)
    if (rst) begin
{reset}      credit <= {signed(-first, bits)};
      draining <= 1'b0;
      pause <= 1'b0;
    end else begin
      pause <= go & last_step;
{body}      credit <= credit + {extended("put", bits)} - {used};
      if (go & last_step) draining <= 1'b1;
      else if (drained) draining <= 1'b0;
    end
"""


def _addresses(engine: Engine) -> str:
    """Where the next element lies: the row of the buffer, the place of the window in it, the place in the window."""
    bits, size, row = _address_bits(engine), _size(engine), engine.row_elements
    channels, _, _ = engine.source.shape
    (vertical, horizontal), (down, right) = engine.window.padding, engine.window.stride
    outputs = engine.value.shape[1]
    jumps = [down % engine.rows] * (outputs - 1) + [(engine.source.shape[1] - (outputs - 1) * down) % engine.rows]
    jump = by_counter("row", [one * row for one in jumps], bits + 1)
    start = ((-vertical) % engine.rows) * row
    left = constant(-horizontal * channels, bits)
    next_group = "offset_base"
    if engine.groups > 1:
        step = f"offset_base + {constant(engine.inputs, bits)}"
        next_group = f"(last_step & last_lane_group ? (last_group ? {constant(0, bits)} : {step}) : offset_base)"
    base = f"  reg [{bits - 1}:0] offset_base;\n" if engine.groups > 1 else f"  wire [{bits - 1}:0] offset_base = 0;\n"
    return f"""  // Addresses, in three registered steps.
  reg [{bits - 1}:0] top_row, next_top, tap_base, left, offset;
{base}  wire [{bits - 1}:0] next_offset = {next_group};
  wire [{bits}:0] jumped = {{1'b0, top_row}} + {jump};
  always @(posedge clk) next_top <= jumped >= {constant(size, bits + 1)} ? jumped - {constant(size, bits + 1)} : jumped;
  always @(posedge clk)
    if (rst) begin
      top_row <= {constant(start, bits)};
      tap_base <= {constant(start, bits)};
      left <= {left};
      offset <= 0;
{"      offset_base <= 0;" if engine.groups > 1 else ""}
    end else if (go) begin
      if (~last_channel) offset <= offset + 1'b1;
      else if (~last_tap) offset <= offset + {constant(channels - engine.inputs + 1, bits)};
      else offset <= next_offset;
{"      if (last_channel & last_tap) offset_base <= next_offset;" if engine.groups > 1 else ""}
      if (last_channel & last_tap) begin
        if (~last_tap_row) tap_base <= tap_base == {constant(size - row, bits)} ? {constant(0, bits)} \
: tap_base + {constant(row, bits)};
        else tap_base <= last_place & last_column ? next_top : top_row;
      end
      if (last_place) left <= last_column ? {left} : left + {constant(right * channels, bits)};
      if (row_done) top_row <= next_top;
    end
  reg [{bits - 1}:0] address_1, offset_1, address_2;
  reg [{engine.source.format.bits - 1}:0] element_3;
  reg signed [{element_bits(engine.source.format) - 1}:0] element_4;
{_copies(engine)}
{_outside(engine)}
  always @(posedge clk) begin
    address_1 <= tap_base + left;
    offset_1 <= offset;
    address_2 <= address_1 + offset_1;
    element_3 <= memory[address_2];
    element_4 <= {_chosen(engine)};
  end
"""


def _flags(engine: Engine) -> str:
    """What each step is, passed along with it: it is there, it is a window's last, it fills few lanes."""
    return f"""  // What each step is, passed along with it.
  reg [6:0] valid_p, last_p, short_p;
  always @(posedge clk)
    if (rst) valid_p <= 0;
    else valid_p <= {{valid_p[5:0], go}};
  always @(posedge clk) begin
    last_p <= {{last_p[5:0], last_step}};
    short_p <= {{short_p[5:0], {_is_short(engine)}}};
  end
"""


def _is_short(engine: Engine) -> str:
    counts = set(engine.lane_groups)
    return "last_lane_group" if len(counts) > 1 else "1'b0"


def _has_padding(engine: Engine) -> bool:
    return engine.window.padding != (0, 0)


def _outside(engine: Engine) -> str:
    """Whether a step lies outside the map: coordinates in the first register, the comparison in the second."""
    if not _has_padding(engine):
        return ""
    (vertical, horizontal), (down, right) = engine.window.padding, engine.window.stride
    _, height, breadth = engine.source.shape
    bits = width(2 * max(height, breadth) + max(engine.window.kernel)) + 1
    taps = "tap" if engine.window.kernel[1] > 1 else "1'b0"
    tap_rows = "tap_row" if engine.window.kernel[0] > 1 else "1'b0"
    return f"""  reg signed [{bits - 1}:0] window_y, window_x, y_1, x_1;
  reg outside_2, outside_3;
  always @(posedge clk)
    if (rst) begin
      window_y <= {signed(-vertical, bits)};
      window_x <= {signed(-horizontal, bits)};
    end else if (go & last_place) begin
      window_x <= last_column ? {signed(-horizontal, bits)} : window_x + {signed(right, bits)};
      if (last_column) window_y <= last_row ? {signed(-vertical, bits)} : window_y + {signed(down, bits)};
    end
  always @(posedge clk) begin
    y_1 <= window_y + $signed({{1'b0, {tap_rows}}});
    x_1 <= window_x + $signed({{1'b0, {taps}}});
    outside_2 <= y_1 < 0 | y_1 >= {signed(height, bits)} | x_1 < 0 | x_1 >= {signed(breadth, bits)};
    outside_3 <= outside_2;
  end"""


def _chosen(engine: Engine) -> str:
    bits = element_bits(engine.source.format)
    read = element(engine.source.format, "element_3")
    if not _has_padding(engine):
        return read
    nothing = engine.source.format.low if isinstance(engine.operation, MaximumPool) else 0
    return f"outside_3 ? {signed(nothing, bits)} : {read}"


def _copies(engine: Engine) -> str:
    """The element once more for every few lanes, so that no register drives many multipliers far apart."""
    bits = element_bits(engine.source.format)
    lines = [
        f"""  reg signed [{bits - 1}:0] element_5_{copy};
  (* keep *) always @(posedge clk) element_5_{copy} <= element_4;"""
        for copy in range(-(-engine.lanes // LANES_A_COPY))
    ]
    names = ", ".join(f"element_5_{copy}" for copy in reversed(range(len(lines))))
    return "\n".join([*lines, f"  wire [{bits * len(lines) - 1}:0] element_5 = {{{names}}};"])


def _sums(engine: Engine) -> str:
    """One lane beside the other: a registered product and a sum, which starts anew when it was handed over.

    After a window's last step one cycle is left out for that, so that the start needs no logic in front of the sum.
    """
    total = sum_bits(engine)
    product, added = _lane(engine)
    lowest = isinstance(engine.operation, MaximumPool)
    start = signed(-(1 << (total - 1)), total) if lowest else "0"
    return f"""  // Lanes.
  wire [{engine.lanes * total - 1}:0] sums;
  genvar lane;
  generate
    for (lane = 0; lane < {engine.lanes}; lane = lane + 1) begin : lanes
{product}
      reg signed [{total - 1}:0] sum;
      always @(posedge clk)
        if (rst | hand_over) sum <= {start};
        else if (valid_p[5]) sum <= {added};
      assign sums[lane * {total} +: {total}] = sum;
    end
  endgenerate
"""


def _lane(engine: Engine) -> tuple[str, str]:
    taken = element_bits(engine.source.format)
    element = f"$signed(element_5[lane / {LANES_A_COPY} * {taken} +: {taken}])"
    operation = engine.operation
    if isinstance(operation, MaximumPool):
        return _registered(element, taken), "product > sum ? product : sum"
    if isinstance(operation, SumPool):
        return _registered(element, taken), "sum + product"
    bits = operation.weight_bits
    weight = f"weight_5[lane * {bits} +: {bits}]"
    if bits == 1:
        product, size = f"{weight} ? {element} : -{element}", taken + 1
    elif bits == 2:
        product = f"{weight} == 2'd1 ? {element} : {weight} == 2'd3 ? -{element} : {signed(0, taken + 1)}"
        size = taken + 1
    else:
        product, size = f"{element} * $signed({weight})", taken + bits
    return _registered(product, size), "sum + product"


def _registered(product: str, bits: int) -> str:
    return f"""      reg signed [{bits - 1}:0] product;
      always @(posedge clk) product <= {product};"""
