"""The top level: stages wired by streams with valid and ready, forks where two read one stream, queues before joins."""

from __future__ import annotations

import dataclasses

from vivace.hardware.rtl.engine import engine_module
from vivace.hardware.rtl.plan import Engine, Join, Plan, Pointwise, Stage, Unrolled
from vivace.hardware.rtl.rounding import Module
from vivace.hardware.rtl.units import join_module, pointwise_module, queue_module
from vivace.hardware.rtl.unrolled import unrolled_module
from vivace.hardware.rtl.words import identifier

TOP = "vivace_top"


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Verilog files of a design: name to text, memory files among them. `modules` are the files to compile."""

    plan: Plan
    files: dict[str, str]
    modules: tuple[str, ...]

    @property
    def input_bits(self) -> int:
        """Bits of an input element."""
        return self.plan.value(0).format.bits

    @property
    def output_bits(self) -> int:
        """Bits of an output element."""
        return self.plan.value(len(self.plan.stages)).format.bits


def design_of(plan: Plan) -> Design:
    """The Verilog of a plan: one module a stage, and the top level that wires them."""
    modules = [_module(stage) for stage in plan.stages]
    queues = [
        queue_module(plan.value(stage.sources[port]).format.bits, stage.unit.depths[port], _queue_name(stage, port))
        for stage in plan.stages
        if isinstance(stage.unit, Join)
        for port in (0, 1)
    ]
    top = Module(TOP, _top(plan), {})
    files: dict[str, str] = {}
    for module in (*modules, *queues, top):
        files[f"{module.name}.v"] = module.text
        files.update(module.files)
    return Design(plan, files, tuple(f"{module.name}.v" for module in (*modules, *queues, top)))


def _module(stage: Stage) -> Module:
    match stage.unit:
        case Engine() as engine:
            return engine_module(engine, _name(stage))
        case Join() as join:
            return join_module(join, _name(stage))
        case Unrolled() as unrolled:
            return unrolled_module(unrolled, _name(stage))
        case Pointwise() as unit:
            return pointwise_module(unit, _name(stage))


def _name(stage: Stage) -> str:
    return f"stage_{stage.number}_{identifier(stage.name)}"


def _queue_name(stage: Stage, port: int) -> str:
    return f"queue_{stage.number}_{port}"


def _top(plan: Plan) -> str:
    last = len(plan.stages)
    bits = [plan.value(stream).format.bits for stream in range(last + 1)]
    streams = "".join(
        f"  wire valid_{stream}, ready_{stream};\n  wire [{bits[stream] - 1}:0] data_{stream};\n"
        for stream in range(last + 1)
    )
    wired = "".join(_readers(plan, stream) for stream in range(last))
    instances = "".join(_instance(plan, stage) for stage in plan.stages)
    trace = ", ".join(f"valid_{stream} & ready_{stream}" for stream in reversed(range(last + 1)))
    seen = ", ".join(_padded(f"data_{stream}", bits[stream]) for stream in reversed(range(last + 1)))
    return f"""// {plan.graph.name}: a stream of input elements in, a stream of output elements out.
// An element moves in a cycle in which both its valid and its ready are high. rst is synchronous.
module {TOP} (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  output wire in_ready,
  input  wire [{bits[0] - 1}:0] in_data,
  output wire out_valid,
  input  wire out_ready,
  output wire [{bits[last] - 1}:0] out_data
`ifdef VIVACE_TRACE
  , output wire [{last}:0] trace_moves,
  output wire [{16 * (last + 1) - 1}:0] trace_data
`endif
);
{streams}  assign valid_0 = in_valid;
  assign in_ready = ready_0;
  assign data_0 = in_data;
  assign out_valid = valid_{last};
  assign ready_{last} = out_ready;
  assign out_data = data_{last};
`ifdef VIVACE_TRACE
  assign trace_moves = {{{trace}}};
  assign trace_data = {{{seen}}};
`endif
{wired}{instances}endmodule
"""


def _padded(name: str, bits: int) -> str:
    return name if bits == 16 else f"{{{16 - bits}'d0, {name}}}"


def _port(stage: int, port: int) -> str:
    return f"{stage}_{port}"


def _readers(plan: Plan, stream: int) -> str:
    """The wires from a stream to each of its readers; with several, an element moves to all of them at once."""
    readers = plan.readers(stream)
    text = "".join(
        f"  wire valid_to_{_port(*reader)}, ready_to_{_port(*reader)};\n"
        f"  wire [{plan.value(stream).format.bits - 1}:0] data_to_{_port(*reader)} = data_{stream};\n"
        for reader in readers
    )
    for reader in readers:
        others = "".join(f" & ready_to_{_port(*other)}" for other in readers if other != reader)
        text += f"  assign valid_to_{_port(*reader)} = valid_{stream}{others};\n"
    ready = " & ".join(f"ready_to_{_port(*reader)}" for reader in readers)
    return text + f"  assign ready_{stream} = {ready};\n"


def _instance(plan: Plan, stage: Stage) -> str:
    if isinstance(stage.unit, Join):
        return _join_instance(plan, stage)
    port, out = _port(stage.number, 0), stage.number + 1
    return f"""  {_name(stage)} stage_{stage.number} (
    .clk(clk), .rst(rst),
    .in_valid(valid_to_{port}), .in_ready(ready_to_{port}), .in_data(data_to_{port}),
    .out_valid(valid_{out}), .out_ready(ready_{out}), .out_data(data_{out})
  );
"""


def _join_instance(plan: Plan, stage: Stage) -> str:
    text, ports = "", []
    for port, letter in enumerate("ab"):
        name, bits = _port(stage.number, port), plan.value(stage.sources[port]).format.bits
        text += f"""  wire valid_of_{name}, ready_of_{name};
  wire [{bits - 1}:0] data_of_{name};
  {_queue_name(stage, port)} waiting_{name} (
    .clk(clk), .rst(rst),
    .in_valid(valid_to_{name}), .in_ready(ready_to_{name}), .in_data(data_to_{name}),
    .out_valid(valid_of_{name}), .out_ready(ready_of_{name}), .out_data(data_of_{name})
  );
"""
        ports.append(
            f".{letter}_valid(valid_of_{name}), .{letter}_ready(ready_of_{name}), .{letter}_data(data_of_{name}),"
        )
    out = stage.number + 1
    return (
        text
        + f"""  {_name(stage)} stage_{stage.number} (
    .clk(clk), .rst(rst),
    {ports[0]}
    {ports[1]}
    .out_valid(valid_{out}), .out_ready(ready_{out}), .out_data(data_{out})
  );
"""
    )
