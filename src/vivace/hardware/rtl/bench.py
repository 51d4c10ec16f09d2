"""What lies beside the Verilog: a self-checking test bench with vectors, and how a host talks to the design."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vivace.hardware.graph import golden
from vivace.hardware.graph.integer import Array, IntegerGraph, Value
from vivace.hardware.rtl.top import TOP, Design

VECTORS = 16
BENCH = "vivace_tb.v"
HOST = "host.json"


def files_of(design: Design, graph: IntegerGraph, samples: np.ndarray[Any, Any]) -> dict[str, str]:
    """Every text file of a design: Verilog, memory files, the test bench with its vectors, and host.json."""
    inputs = graph.quantize(samples[:VECTORS])
    plan = design.plan
    given, wanted = plan.stream(inputs, 0), plan.stream(golden.run(graph, inputs), len(plan.stages))
    return {
        **design.files,
        BENCH: _bench(design, len(inputs), given.shape[1], wanted.shape[1]),
        "vivace_tb_inputs.hex": _hex(given, design.input_bits),
        "vivace_tb_outputs.hex": _hex(wanted, design.output_bits),
        HOST: json.dumps(_host(design, graph), indent=2) + "\n",
    }


def _host(design: Design, graph: IntegerGraph) -> dict[str, Any]:
    """How real numbers become the elements of the stream, and the elements that come out real numbers."""
    last = len(design.plan.stages)
    return {
        "input": _side(graph.input) | {"order": _ordered(design.plan.orders[0])},
        "output": _side(graph.output) | {"order": _ordered(design.plan.orders[last])},
        "to_integers": "clip(floor(x / scale + 0.5), low, high)",
        "to_real": "q * scale",
        "order_means": "the element of the tensor, counted in PyTorch's order, that comes at each place of the stream",
    }


def _side(value: Value) -> dict[str, Any]:
    form = value.format
    return {
        "shape": list(value.shape),
        "bits": form.bits,
        "signed": form.signed,
        "scale": value.scale,
        "low": form.low,
        "high": form.high,
    }


def _ordered(order: Array) -> list[int] | str:
    return "as it is" if np.array_equal(order, np.arange(len(order))) else order.tolist()


def _hex(rows: Array, bits: int) -> str:
    digits = -(-bits // 4)
    return "".join(f"{int(number) & ((1 << bits) - 1):0{digits}x}\n" for number in rows.reshape(-1))


def _bench(design: Design, vectors: int, inputs: int, outputs: int) -> str:
    given, wanted = vectors * inputs, vectors * outputs
    return f"""// A test bench that checks itself: iverilog -o bench *.v && ./bench
`timescale 1ns / 1ps
module vivace_tb;
  reg clk = 0;
  reg rst = 1;
  reg [{design.input_bits - 1}:0] inputs [0:{given - 1}];
  reg [{design.output_bits - 1}:0] outputs [0:{wanted - 1}];
  integer given = 0;
  integer taken = 0;
  integer wrong = 0;
  integer cycle = 0;
  wire in_ready, out_valid;
  wire [{design.output_bits - 1}:0] out_data;
  wire in_valid = ~rst & (given < {given});
  wire [{design.input_bits - 1}:0] in_data = inputs[given < {given} ? given : 0];
  {TOP} dut (
    .clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data),
    .out_valid(out_valid), .out_ready(1'b1), .out_data(out_data)
  );
  always #5 clk = ~clk;
  initial begin
    $readmemh("vivace_tb_inputs.hex", inputs);
    $readmemh("vivace_tb_outputs.hex", outputs);
    repeat (8) @(posedge clk);
    rst <= 0;
  end
  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (in_valid & in_ready) given <= given + 1;
    if (~rst & out_valid) begin
      if (out_data !== outputs[taken]) begin
        wrong <= wrong + 1;
        $display("cycle %0d: output element %0d is %h, expected %h", cycle, taken, out_data, outputs[taken]);
      end
      taken <= taken + 1;
      if (taken == {wanted - 1}) begin
        if (wrong == 0 && out_data === outputs[taken]) $display("PASS: {vectors} vectors, %0d cycles", cycle);
        else $display("FAIL");
        $finish;
      end
    end
  end
endmodule
"""
