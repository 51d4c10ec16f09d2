"""Small pieces of Verilog text: widths, constants, counters, and choices by a counter."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Sequence

import numpy as np

from vivace.hardware.graph.integer import Array, Format


def width(most: int) -> int:
    """Bits that hold 0 to `most`, at least one.

    >>> width(0), width(7), width(8)
    (1, 3, 4)
    """
    return max(1, int(most).bit_length())


def constant(value: int, bits: int) -> str:
    """A sized constant; a negative one in two's complement.

    >>> constant(-1, 4), constant(5, 8)
    ("4'd15", "8'd5")
    """
    return f"{bits}'d{value & ((1 << bits) - 1)}"


def signed(value: int, bits: int) -> str:
    """A signed constant of so many bits.

    >>> signed(-3, 8)
    "-8'sd3"
    """
    return f"-{bits}'sd{-value}" if value < 0 else f"{bits}'sd{value}"


def extended(text: str, bits: int) -> str:
    """A single bit as a number of so many bits.

    >>> extended("put", 4)
    "{{3{1'b0}}, put}"
    """
    return f"{{{{{bits - 1}{{1'b0}}}}, {text}}}"


def identifier(name: str) -> str:
    """A layer's name as a Verilog identifier.

    >>> identifier("features.0")
    'features_0'
    """
    plain = re.sub(r"\W", "_", name)
    return plain if re.match(r"[A-Za-z_]", plain) else f"layer_{plain}"


def element(form: Format, text: str) -> str:
    """An element of a stream as a signed number, one bit wider where it is unsigned."""
    return f"$signed({text})" if form.signed else f"$signed({{1'b0, {text}}})"


def element_bits(form: Format) -> int:
    """Bits of that signed number."""
    return form.bits if form.signed else form.bits + 1


def by_counter(counter: str, values: Sequence[int], bits: int) -> str:
    """An expression that gives values[counter]: the most frequent value, and the exceptions one by one.

    >>> by_counter("row", [1, 0, 0], 2)
    "(row == 2'd0 ? 2'd1 : 2'd0)"
    """
    usual = Tally(values).most_common(1)[0][0]
    counter_bits = width(len(values) - 1)
    text = constant(usual, bits)
    exceptions = [(place, value) for place, value in enumerate(values) if value != usual]
    for place, value in reversed(exceptions):
        text = f"({counter} == {constant(place, counter_bits)} ? {constant(value, bits)} : {text})"
    return text


def wrapped(register: str, count: int, bits: int) -> str:
    """The assignment that advances a register from 0 to count - 1, round and round.

    >>> wrapped("place", 6, 3)
    "place <= place == 3'd5 ? 3'd0 : place + 1'b1;"
    """
    return f"{register} <= {register} == {constant(count - 1, bits)} ? {constant(0, bits)} : {register} + 1'b1;"


def counters(levels: Sequence[tuple[str, int]], enable: str) -> tuple[str, str, str]:
    """Nested counters, innermost first: their declarations, the wires `last_NAME`, and the body that advances them.

    A counter of one step is left out, and its `last_` wire is 1.
    """
    kept = [(name, count) for name, count in levels if count > 1]
    declared = "".join(f"  reg [{width(count - 1) - 1}:0] {name};\n" for name, count in kept)
    for name, count in levels:
        told = f"{name} == {constant(count - 1, width(count - 1))}" if count > 1 else "1'b1"
        declared += f"  wire last_{name} = {told};\n"
    reset = "".join(f"      {name} <= 0;\n" for name, _ in kept)
    body, condition = "", enable
    for name, count in levels:
        if count > 1:
            body += f"      if ({condition}) {name} <= last_{name} ? {constant(0, width(count - 1))} : {name} + 1'b1;\n"
        condition += f" & last_{name}"
    return declared, reset, body


def memory_file(words: Sequence[int], bits: int) -> str:
    """The lines of a file for $readmemh: one word a line."""
    digits = -(-bits // 4)
    return "".join(f"{word & ((1 << bits) - 1):0{digits}x}\n" for word in words)


def packed(rows: Array, bits: int) -> list[int]:
    """Each row of integers as one word, the first in the lowest bits, in two's complement."""
    mask = (1 << bits) - 1
    return [sum((int(number) & mask) << (place * bits) for place, number in enumerate(row)) for row in np.asarray(rows)]
