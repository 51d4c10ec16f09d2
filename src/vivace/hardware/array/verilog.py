"""The Verilog of a systolic array: processing element, array and sequencer, as one file of plain Verilog-2001."""

from __future__ import annotations

from vivace.hardware.array.chip import Chip, Dataflow

TOP = "vivace_array"
SUM_BITS = 32
ACTIVATION_BITS = 8
WEIGHT_BITS = 8
INDEX_BITS = 2

_HEAD = """// {title}
// {rows} x {columns} processing elements, {dataflow} stationary, {kind}: 8-bit operands, 32-bit sums.
`default_nettype none

// A value, so many cycles later.
module vivace_delay #(parameter WIDTH = 1, parameter STAGES = 0) (
  input wire clk, input wire [WIDTH-1:0] in, output wire [WIDTH-1:0] out
);
  generate
    if (STAGES == 0) begin : none
      assign out = in;
    end else begin : some
      reg [WIDTH*STAGES-1:0] line;
      if (STAGES == 1) begin : one
        always @(posedge clk) line <= in;
      end else begin : more
        always @(posedge clk) line <= {{line[WIDTH*(STAGES-1)-1:0], in}};
      end
      assign out = line[WIDTH*STAGES-1:WIDTH*(STAGES-1)];
    end
  endgenerate
endmodule
"""

_PRODUCT = {
    False: """  wire signed [7:0] value = weight;
  wire [7:0] picked = activation;
""",
    True: """  // a weight is {index, value}: the index picks one of the four activations of its group
  wire signed [7:0] value = weight[7:0];
  wire [7:0] picked = activation[8*weight[9:8] +: 8];
""",
}

_MULTIPLY = """  wire signed [8:0] extended = {is_signed & picked[7], picked};
  wire signed [16:0] product = value * extended;
"""

_PORTS = """module vivace_array (
  input wire clk, input wire rst, input wire start, input wire is_signed,
  input wire [31:0] steps, input wire [31:0] tiles,
  output wire loading, output wire feeding, output wire [31:0] step, output reg [31:0] tile,
  input wire [%(moving_all)d-1:0] moving, input wire [%(resting_all)d-1:0] resting,
  input wire [32*%(columns)d-1:0] partial,
  output wire [32*%(columns)d-1:0] result, output wire [%(columns)d-1:0] result_valid,
  output wire working
);
  localparam ROWS = %(rows)d, COLUMNS = %(columns)d, MOVING = %(moving)d, RESTING = %(resting)d;"""
"""The top of every array, which both kinds of element share."""

_RESTING_ELEMENT = """
// Keeps one operand, lets the other pass to the right, and adds their product to the sum that passes down.
module vivace_element #(parameter MOVING = 8, parameter RESTING = 8) (
  input wire clk, input wire rst, input wire is_signed, input wire load,
  input wire valid_in, output reg valid_out,
  input wire [MOVING-1:0] moving_in, output reg [MOVING-1:0] moving_out,
  input wire [RESTING-1:0] resting_in, output reg [RESTING-1:0] resting_out,
  input wire signed [31:0] sum_in, output reg signed [31:0] sum_out
);
%(wires)s
%(product)s  always @(posedge clk) begin
    valid_out <= valid_in & ~rst;
    moving_out <= moving_in;
    if (load) resting_out <= resting_in;
    sum_out <= sum_in + product;
  end
endmodule

%(ports)s
  // The sequencer: ROWS cycles that load the resting operand, then `steps` that feed, then the array runs empty.
  reg running;
  reg [31:0] count;
  wire last = count == steps + 2 * ROWS + COLUMNS - 3;
  assign loading = running && count < ROWS;
  assign feeding = running && count >= ROWS && count < ROWS + steps;
  assign step = loading ? count : count - ROWS;
  always @(posedge clk) begin
    if (rst) begin
      running <= 1'b0; count <= 0; tile <= 0;
    end else if (!running) begin
      running <= start; count <= 0; tile <= 0;
    end else if (last) begin
      count <= 0; tile <= tile + 1; running <= tile + 1 != tiles;
    end else count <= count + 1;
  end

  wire [MOVING*ROWS*(COLUMNS+1)-1:0] across;
  wire [ROWS*(COLUMNS+1)-1:0] valid;
  wire [RESTING*COLUMNS*(ROWS+1)-1:0] held;
  wire [32*COLUMNS*(ROWS+1)-1:0] sums;
  assign held[RESTING*COLUMNS-1:0] = resting;
  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : edges
      vivace_delay #(MOVING + 1, r) skew (.clk(clk), .in({feeding, moving[MOVING*r +: MOVING]}),
        .out({valid[r*(COLUMNS+1)], across[MOVING*r*(COLUMNS+1) +: MOVING]}));
    end
    for (c = 0; c < COLUMNS; c = c + 1) begin : tops
      vivace_delay #(32, c) skew (.clk(clk), .in(partial[32*c +: 32]), .out(sums[32*c +: 32]));
      assign result_valid[c] = valid[(ROWS-1)*(COLUMNS+1) + c + 1];
    end
    for (r = 0; r < ROWS; r = r + 1) begin : rows
      for (c = 0; c < COLUMNS; c = c + 1) begin : columns
        vivace_element #(MOVING, RESTING) element (.clk(clk), .rst(rst), .is_signed(is_signed), .load(loading),
          .valid_in(valid[r*(COLUMNS+1) + c]), .valid_out(valid[r*(COLUMNS+1) + c + 1]),
          .moving_in(across[MOVING*(r*(COLUMNS+1) + c) +: MOVING]),
          .moving_out(across[MOVING*(r*(COLUMNS+1) + c + 1) +: MOVING]),
          .resting_in(held[RESTING*(r*COLUMNS + c) +: RESTING]),
          .resting_out(held[RESTING*((r+1)*COLUMNS + c) +: RESTING]),
          .sum_in(sums[32*(r*COLUMNS + c) +: 32]), .sum_out(sums[32*((r+1)*COLUMNS + c) +: 32]));
      end
    end
  endgenerate
  assign result = sums[32*COLUMNS*ROWS +: 32*COLUMNS];
  assign working = result_valid[COLUMNS-1];
endmodule
`default_nettype wire
"""

_OUTPUT_ELEMENT = """
// Both operands pass; the sum stays. When a tile is done the sum is taken aside and leaves downward, row by row.
module vivace_element #(parameter MOVING = 8, parameter RESTING = 8) (
  input wire clk, input wire rst, input wire is_signed, input wire take,
  input wire valid_in, output reg valid_out, input wire first_in, output reg first_out,
  input wire [MOVING-1:0] moving_in, output reg [MOVING-1:0] moving_out,
  input wire [RESTING-1:0] resting_in, output reg [RESTING-1:0] resting_out,
  input wire signed [31:0] aside_in, output reg signed [31:0] aside_out
);
%(wires)s
%(product)s  reg signed [31:0] sum;
  always @(posedge clk) begin
    valid_out <= valid_in & ~rst;
    first_out <= first_in;
    moving_out <= moving_in;
    resting_out <= resting_in;
    if (valid_in) sum <= (first_in ? 32'sd0 : sum) + product;
    aside_out <= take ? sum : aside_in;
  end
endmodule

%(ports)s
  // The sequencer: `steps` cycles that feed, then the array runs empty; sums leave during the next tile.
  reg running, take;
  reg [31:0] count;
  reg [ROWS-1:0] leaving;
  wire last = count == steps + ROWS + COLUMNS - 3;
  assign loading = 1'b0;
  assign feeding = running && count < steps;
  assign step = count;
  always @(posedge clk) begin
    take <= ~rst & running & last;
    if (rst) begin
      running <= 1'b0; count <= 0; tile <= 0;
    end else if (!running) begin
      running <= start; count <= 0; tile <= 0;
    end else if (last) begin
      count <= 0; tile <= tile + 1; running <= tile + 1 != tiles;
    end else count <= count + 1;
    if (rst) leaving <= 0;
    else if (take) leaving <= {ROWS{1'b1}};
    else leaving <= leaving >> 1;
  end

  wire [MOVING*ROWS*(COLUMNS+1)-1:0] across;
  wire [ROWS*(COLUMNS+1)-1:0] valid, first;
  wire [RESTING*COLUMNS*(ROWS+1)-1:0] down;
  wire [32*COLUMNS*(ROWS+1)-1:0] aside;
  assign aside[32*COLUMNS-1:0] = partial;
  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : edges
      vivace_delay #(MOVING + 2, r) skew (.clk(clk), .in({feeding, count == 0, moving[MOVING*r +: MOVING]}),
        .out({valid[r*(COLUMNS+1)], first[r*(COLUMNS+1)], across[MOVING*r*(COLUMNS+1) +: MOVING]}));
    end
    for (c = 0; c < COLUMNS; c = c + 1) begin : tops
      vivace_delay #(RESTING, c) skew (.clk(clk), .in(resting[RESTING*c +: RESTING]),
        .out(down[RESTING*c +: RESTING]));
      assign result_valid[c] = leaving[0];
    end
    for (r = 0; r < ROWS; r = r + 1) begin : rows
      for (c = 0; c < COLUMNS; c = c + 1) begin : columns
        vivace_element #(MOVING, RESTING) element (.clk(clk), .rst(rst), .is_signed(is_signed), .take(take),
          .valid_in(valid[r*(COLUMNS+1) + c]), .valid_out(valid[r*(COLUMNS+1) + c + 1]),
          .first_in(first[r*(COLUMNS+1) + c]), .first_out(first[r*(COLUMNS+1) + c + 1]),
          .moving_in(across[MOVING*(r*(COLUMNS+1) + c) +: MOVING]),
          .moving_out(across[MOVING*(r*(COLUMNS+1) + c + 1) +: MOVING]),
          .resting_in(down[RESTING*(r*COLUMNS + c) +: RESTING]),
          .resting_out(down[RESTING*((r+1)*COLUMNS + c) +: RESTING]),
          .aside_in(aside[32*(r*COLUMNS + c) +: 32]), .aside_out(aside[32*((r+1)*COLUMNS + c) +: 32]));
      end
    end
  endgenerate
  assign result = aside[32*COLUMNS*ROWS +: 32*COLUMNS];
  assign working = valid[ROWS*(COLUMNS+1) - 1];
endmodule
`default_nettype wire
"""


def weight_bits(chip: Chip) -> int:
    """Bits of a weight as the array takes it: its value, and with 2:4 the index of the activation that it meets."""
    return WEIGHT_BITS + (INDEX_BITS if chip.sparse else 0)


def activation_bits(chip: Chip) -> int:
    """Bits of activations as an element takes them: one, or with 2:4 the four of a group."""
    return ACTIVATION_BITS * (4 if chip.sparse else 1)


def lane_bits(chip: Chip) -> tuple[int, int]:
    """Bits of what enters from the left, for each row, and from the top, for each column."""
    bits = activation_bits(chip), weight_bits(chip)
    return bits[::-1] if chip.dataflow is Dataflow.INPUT else bits


def verilog_of(chip: Chip) -> str:
    """The whole design as one file; its top is `vivace_array`."""
    moving, resting = lane_bits(chip)
    kept = "resting_in" if chip.dataflow is Dataflow.OUTPUT else "resting_out"
    weight, activation = ("moving_in", kept) if chip.dataflow is Dataflow.INPUT else (kept, "moving_in")
    wires = (
        f"  wire [{weight_bits(chip) - 1}:0] weight = {weight};\n"
        f"  wire [{activation_bits(chip) - 1}:0] activation = {activation};"
    )
    head = _HEAD.format(
        title=f"A systolic array, {chip.name}.", rows=chip.rows, columns=chip.columns,
        dataflow=chip.dataflow.name.lower(), kind="2:4 sparse weights" if chip.sparse else "dense",
    )  # fmt: skip
    body = _OUTPUT_ELEMENT if chip.dataflow is Dataflow.OUTPUT else _RESTING_ELEMENT
    sizes = {
        "rows": chip.rows, "columns": chip.columns, "moving": moving, "resting": resting,
        "moving_all": moving * chip.rows, "resting_all": resting * chip.columns,
    }  # fmt: skip
    product = _PRODUCT[chip.sparse] + _MULTIPLY
    return head + body % {**sizes, "ports": _PORTS % sizes, "wires": wires, "product": product}
