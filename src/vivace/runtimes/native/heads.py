"""One head of attention as C, in float32 or with operands in bfloat16: scores of some queries, and what they add up."""

from __future__ import annotations

import dataclasses

from vivace.codegen.arrays import Array
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.matrices import per_thread, tiles

PAIR = 2
"""Elements of bfloat16 that are multiplied at once."""


@dataclasses.dataclass
class Head:
    """Products in float32, for sample `i` and head `h` in C. At most `most` queries have scores at a time, in lines of
    `line` at `s`."""

    program: Program
    query: Array
    key: Array
    value: Array
    to: Array
    most: int

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return self.key.shape[2]

    @property
    def depth(self) -> int:
        """How long queries and keys are."""
        return self.key.shape[3]

    @property
    def width(self) -> int:
        """How long values are."""
        return self.to.shape[3]

    @property
    def wide(self) -> int:
        """How many keys fill whole vectors."""
        return self.program.vector.whole(self.keys)

    def begin(self, array: Array, line: str = "0") -> str:
        """Where a line of this head begins in an array."""
        return (
            f"{array.name} + {array.offset} + i*{array.strides[0]} + h*{array.strides[1]} + {line}*{array.strides[2]}"
        )

    def ready(self) -> str:
        """C that defines `s`, and keys and values as products read them."""
        turned = per_thread(self.program, self.depth * self.wide)
        lines = [
            f"    float *kt = {turned}, *s = {per_thread(self.program, self.most * self.wide)};",
            f"    turned({self.begin(self.key)}, {self.key.strides[2]}, kt, {self.wide}, {self.keys}, {self.depth});",
        ]
        lanes, begin, step = self.program.vector.lanes, self.begin(self.value), self.value.strides[2]
        if self.width >= lanes:
            return "\n".join([*lines, f"    const float *v = {begin};"])
        memory = per_thread(self.program, self.keys * lanes)
        lines.append(
            f"    float *v = {memory}; for (long j = 0; j < {self.keys}; j++) for (long d = 0; d < {self.width}; d++) "
            f"v[j*{lanes} + d] = ({begin})[j*{step} + d];"
        )
        return "\n".join(lines)

    def scores(self, count: int, line: int) -> str:
        """C that gives `count` queries, from q on, their scores."""
        asked = (self.begin(self.query, "q"), self.query.strides[2], self.query.strides[3])
        return tiles(self.program, (count, line, self.depth), asked, ("kt", self.wide), ("s", line))

    def added(self, count: int, seen: int, line: int) -> str:
        """C that adds values up by the shares of `seen` keys."""
        values = ("v", self.value.strides[2] if self.width >= self.program.vector.lanes else self.program.vector.lanes)
        return tiles(self.program, (count, self.width, seen), ("s", line, 1), values, self.given)

    @property
    def given(self) -> tuple[str, int]:
        """Where what a query is given lies, and how far that of the next is from it."""
        return self.begin(self.to, "q"), self.to.strides[2]


class NarrowHead(Head):
    """The same with operands rounded to bfloat16; sums are float32 still."""

    def ready(self) -> str:
        """Keys as pairs of neighbouring elements, turned; values as pairs of neighbouring lines."""
        program, pairs, line = self.program, self.depth // PAIR, max(self.width, self.program.vector.lanes)
        memory = {
            "kt": per_thread(program, pairs * self.wide), "s": per_thread(program, self.most * self.wide),
            "k": per_thread(program, self.keys * pairs), "q2": per_thread(program, self.most * pairs),
            "v": per_thread(program, -(-self.keys // PAIR) * line),
            "p": per_thread(program, self.most * self.wide // PAIR),
        }  # fmt: skip
        return "\n".join(
            [
                f"    float {', '.join(f'*{name} = {place}' for name, place in memory.items())};",
                f"    rounded_lines({self.begin(self.key)}, {self.key.strides[2]}, (short_t *)k, {self.depth}, "
                f"{self.keys}, {self.depth});",
                f"    turned(k, {pairs}, kt, {self.wide}, {self.keys}, {pairs});",
                f"    paired_lines({self.begin(self.value)}, {self.value.strides[2]}, (int_t *)v, {line}, {self.keys}, "
                f"{self.width});",
            ]
        )

    def scores(self, count: int, line: int) -> str:
        """C that rounds `count` queries, from q on, and gives them their scores."""
        rounded = (
            f"      rounded_lines({self.begin(self.query, 'q')}, {self.query.strides[2]}, (short_t *)q2, {self.depth}, "
            f"{count}, {self.depth});\n"
        )
        pairs = self.depth // PAIR
        return rounded + tiles(
            self.program, (count, line, pairs), ("(const int *)q2", pairs, 1), ("(const int *)kt", self.wide),
            ("s", line), is_narrow=True,
        )  # fmt: skip

    def added(self, count: int, seen: int, line: int) -> str:
        """C that rounds shares, and adds values up by them."""
        rounded = f"      rounded_lines(s, {line}, (short_t *)p, {line}, {count}, {line});\n"
        return rounded + tiles(
            self.program, (count, self.width, -(-seen // PAIR)), ("(const int *)p", line // PAIR, 1),
            ("(const int *)v", max(self.width, self.program.vector.lanes)), self.given, is_narrow=True,
        )  # fmt: skip
