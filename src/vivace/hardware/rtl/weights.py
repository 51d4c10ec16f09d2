"""An engine's weights in Verilog: memories of a bounded depth, each with a register behind it, and their files."""

from __future__ import annotations

import numpy as np

from vivace.hardware.graph.integer import Product
from vivace.hardware.rtl import words
from vivace.hardware.rtl.plan import BANK_WORDS, LOGIC_MEMORY_BITS, Engine
from vivace.hardware.rtl.words import constant, width


def weights(engine: Engine, name: str) -> str:
    """The memories of an engine's weights, and the word of a step, `weight_5`, beside its element."""
    product = engine.operation
    assert isinstance(product, Product)
    bits, address = product.weight_bits * engine.lanes, width(sum(engine.banks) - 1)
    banks = "".join(
        f"""  {_style(held * bits)}reg [{bits - 1}:0] weights_{bank} [0:{held - 1}];
  initial $readmemh("{_weight_name(name, bank)}", weights_{bank});
  reg [{bits - 1}:0] weight_3_{bank}, weight_4_{bank};
  always @(posedge clk) begin
    weight_3_{bank} <= weights_{bank}[weight_address_2[{width(held - 1) - 1}:0]];
    weight_4_{bank} <= weight_3_{bank};
  end
"""
        for bank, held in enumerate(engine.banks)
    )
    return f"""  // Weights: a word holds those of all lanes for one step; every memory has a register behind it.
  reg [{address - 1}:0] weight_address, weight_address_1, weight_address_2;
  always @(posedge clk)
    if (rst) weight_address <= 0;
    else if (go) weight_address <= last_place ? {constant(0, address)} : weight_address + 1'b1;
  always @(posedge clk) begin
    weight_address_1 <= weight_address;
    weight_address_2 <= weight_address_1;
  end
{banks}{_choice(len(engine.banks), bits, address)}"""


def _choice(banks: int, bits: int, address: int) -> str:
    """The word of the memory that holds the step's address."""
    if banks == 1:
        return f"  reg [{bits - 1}:0] weight_5;\n  always @(posedge clk) weight_5 <= weight_4_0;\n"
    low = width(BANK_WORDS - 1)
    chosen = f"weight_4_{banks - 1}"
    for bank in reversed(range(banks - 1)):
        chosen = f"bank_4 == {constant(bank, address - low)} ? weight_4_{bank} : {chosen}"
    return f"""  reg [{address - low - 1}:0] bank_3, bank_4;
  reg [{bits - 1}:0] weight_5;
  always @(posedge clk) begin
    bank_3 <= weight_address_2[{address - 1}:{low}];
    bank_4 <= bank_3;
    weight_5 <= {chosen};
  end
"""


def _style(bits: int) -> str:
    """Memory blocks from so many bits on; fewer are tables."""
    return '(* ram_style = "block" *) ' if bits > LOGIC_MEMORY_BITS else ""


def _weight_name(name: str, bank: int) -> str:
    return f"{name}_weights_{bank}.hex"


def weight_files(engine: Engine, name: str) -> dict[str, str]:
    """The memories' files, by name."""
    lines = _lines(engine).splitlines(keepends=True)
    starts = range(0, len(lines), BANK_WORDS)
    return {_weight_name(name, bank): "".join(lines[start : start + BANK_WORDS]) for bank, start in enumerate(starts)}


def _lines(engine: Engine) -> str:
    """The weights, word by word in the order of the walk: conv group, lane group, tap row, tap, channel."""
    product = engine.operation
    assert isinstance(product, Product) and engine.weight is not None
    part = len(engine.weight) // engine.groups
    lines = []
    for group in range(engine.groups):
        for start in range(0, part, engine.lanes):
            taken = engine.weight[group * part : (group + 1) * part][start : start + engine.lanes]
            steps = taken.transpose(2, 3, 1, 0).reshape(engine.steps, -1)
            lines += [np.pad(steps, ((0, 0), (0, engine.lanes - steps.shape[1])))]
    numbers = np.concatenate(lines)
    if product.weight_bits == 1:
        numbers = (numbers > 0).astype(np.int64)
    return words.memory_file(words.packed(numbers, product.weight_bits), product.weight_bits * engine.lanes)
