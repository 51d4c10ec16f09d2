"""Convolutions with a window of its own for every channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vivace.codegen.arrays import Array, Read, Value
from vivace.codegen.panels import Ending, Rows, bounds, divided
from vivace.codegen.statements import rows_of
from vivace.runtimes.native import images
from vivace.runtimes.native.lowering import Program, Waiting, waiting
from vivace.runtimes.native.operands import UNSIGNED
from vivace.runtimes.native.windows import Window

SIDE_BY_SIDE = 4
"""Answers of a line that are computed at once: each element of the image and of the window is read once for them."""
READ = "(WHOLE ? load({0}) : load_some({0}, channels - c))"
ARGUMENTS = (
    "const float *x, long rows, long row, long step, long width, const float *w, const float *bias, long channels, "
    "long wide, long pad, long from, long to, Y *y, long line, const float *add, float least, float most, float size, "
    "float *scale"
)


def convolution(
    program: Program, shape: Sequence[int], value: Value, weight: Tensor, bias: Any, window: Window
) -> Waiting:
    """One answer a channel (weight: channels, 1, *kernel), in float32: what it reads takes longer than its products.

    Elements beyond the image are left out of sums, so that nothing is laid out anew for its borders. Where answers
    have bounds, a product in int8 that follows takes them as bytes, in steps that these bounds give.
    """
    lines = weight.reshape(weight.shape[0], 1, -1)

    def make(weight: Tensor, bias: Tensor | None, ending: Ending) -> Array:
        to = images.channels_last(program, shape)
        _Depthwise(program, value, window, weight, bias, ending, to).write()
        return to

    def in_bytes(weight: Tensor, bias: Tensor | None, ending: Ending) -> Rows | None:
        if not ending.relu or not ending.most:
            return None
        order, channels = images.order_of(len(shape)), program.vector.whole(shape[1])
        room = program.room(tuple(channels if axis == 1 else shape[axis] for axis in order), "byte")
        steps = tuple(room.strides[order.index(axis)] for axis in range(len(shape)))
        to = Array(room.name, tuple(shape), steps, "byte")
        outer, inner = divided((shape[0], *shape[2:]))
        scales = program.room((outer * inner,)).name
        _Depthwise(program, value, window, weight, bias, ending, to).write(ending.most / 255, scales)
        places = tuple(place * steps[-1] for place in range(outer * inner))
        reads = (to.divided(), Read(scales, outer, inner))
        return Rows(to.name, places, (0,), shape[1], outer, inner, reads, scales, UNSIGNED)

    made = waiting(shape, make, lines, bias, images.order_of(len(shape)))
    return dataclasses.replace(made, in_bytes=in_bytes)


@dataclasses.dataclass(frozen=True)
class _Depthwise:
    """A convolution of each channel, its answers in `to` (n, channels, *sizes)."""

    program: Program
    value: Value
    window: Window
    weight: Tensor
    bias: Tensor | None
    ending: Ending
    to: Array

    def write(self, size: float = 0.0, scales: str = "") -> None:
        """Add the statement. In bytes, `size` is their step, and goes to each place of `scales`."""
        program, to, add = self.program, self.to, self.ending.add
        image = images.side_by_side(program, self.value)
        n, _, height, width = _flat(image.shape)
        lengths = (n, *_flat(to.shape)[2:])
        split = next((place for place, length in enumerate(lengths) if length > 1), 0)
        (i, i_end), (y, y_end), (o, o_end) = (
            ("from", "to") if place == split else ("0", str(length)) for place, length in enumerate(lengths)
        )
        down, across = _pair(self.window.kernel)
        above, pad = _pair(self.window.before, 0)
        stride, apart = _pair(self.window.stride)[0], _pair(self.window.dilation)[0]
        row = image.strides[2] if len(image.shape) == 4 else 0
        place = f"(i*{lengths[1]} + y)*{lengths[2]}L"
        line = f"{place}*{to.strides[-1]}"
        given = (
            f"{image.name} + {image.offset} + i*{image.strides[0]}L + (top + skip*{apart})*{row}",
            f"end - skip, {apart * row}, {image.strides[-1]}, {width}",
            *self._constants(f"skip*{across}"),
            f"{pad}, {o}, {o_end}, {to.name} + {line}, {to.strides[-1]}",
            "0" if add is None else f"{add.name} + {add.offset} + {line}",
            f"{bounds(self.ending)}, {size!r}f, {f'{scales} + {place}' if scales else '0'}",
        )
        text = (
            f"  {{ {rows_of(lengths[split], program.threads)}\n"
            f"    for (long i = {i}; i < {i_end}; i++) for (long y = {y}; y < {y_end}; y++) {{\n"
            f"      const long top = y*{stride} - {above}, skip = top < 0 ? (-top + {apart - 1})/{apart} : 0;\n"
            f"      const long end = MIN({down}, ({height} - top + {apart - 1})/{apart});\n"
            f"      {self._function(image)}({', '.join(given)}); }} }}"
        )
        outer, inner = divided(lengths)
        reads = [image.divided() if n > 1 else Read(image.name, None)]
        if add is not None:
            reads.append(add.divided() if outer > 1 else Read(add.name, None))
        writes = [to.divided() if outer > 1 else Read(to.name, None)]
        program.add(text, reads, [*writes, *([Read(scales, outer, inner)] if scales else [])])

    def _function(self, image: Array) -> str:
        """The name of the function for these windows; it may read whole vectors where lines of channels have them."""
        window, program = self.window, self.program
        program.function("depthwise", TEXT)
        is_whole = image.shape[1] % program.vector.lanes == 0 or program.line_of(image) is not None
        along, between = _pair(window.stride)[1], _pair(window.dilation)[1]
        name = program.function(*kernel(*_pair(window.kernel), along, between))
        return f"{name}<{str(is_whole).lower()}>"

    def _constants(self, skipped: str) -> tuple[str, str, str]:
        """Windows without the first elements (`skipped`), what sums begin with, and how many channels there are."""
        channels = self.weight.shape[0]
        wide = self.program.vector.whole(channels)
        taps, told = torch.zeros(self.weight.shape[-1], wide), torch.zeros(wide)
        taps[:, :channels] = self.weight.reshape(channels, -1).t()
        if self.bias is not None:
            told[:channels] = self.bias
        weight = f"(const float *){self.program.kept(taps)} + {skipped}*{wide}"
        return weight, f"(const float *){self.program.kept(told)}", f"{channels}, {wide}"


def _pair(sizes: Sequence[int], missing: int = 1) -> tuple[int, int]:
    """Of an image; a sequence is one line of one."""
    return (missing, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _flat(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """(n, channels, height, width) of an image or a sequence."""
    return (shape[0], shape[1], *_pair(shape[2:]))


def kernel(down: int, across: int, stride: int, apart: int) -> tuple[str, str]:
    """The name and the C of a function that computes the answers `from` to `to` of one line of places: windows are
    `down` lines high and `across` elements wide, these `apart` from each other, and `stride` apart from window to
    window. `rows` lines of the image are read, those of the window that are inside of it."""
    name = f"depthwise_{down}_{across}_{stride}_{apart}"
    ahead = (SIDE_BY_SIDE - 1) * stride + (across - 1) * apart
    many = range(SIDE_BY_SIDE)
    sums = ", ".join(f"s{a}" for a in many)
    lines = [
        f"template <bool WHOLE, class Y> static __attribute__((noinline)) void {name}({ARGUMENTS}) {{",
        "  const float by = 1.0f / size;",
        "  for (long o = from; o < to;) {",
        f"    const long first = o*{stride} - pad;",
        "    vec odd = vec{};",
        f"    if (first >= 0 && o + {SIDE_BY_SIDE} <= to && first + {ahead} < width) {{",
        "      for (long c = 0; c < wide; c += LANES) {",
        "        const float *p = x + first*step + c, *q = w + c;",
        "        vec s0 = load(bias + c)" + "".join(f", s{a} = s0" for a in many if a) + ";",
        f"        if (rows == {down}) {{",
        *_taps(across, stride, apart, down),
        f"        }} else for (long r = 0; r < rows; r++, p += row, q += {across}*wide) {{",
        *_taps(across, stride, apart, 1),
        "        }",
        *(f"        {_bounded(a)}" for a in many),
        f"        put(y + o*line + c, line, by, {sums});",
        "      }",
        f"      if (scale) for (long a = 0; a < {SIDE_BY_SIDE}; a++) scale[o + a] = size + total(odd);",
        f"      o += {SIDE_BY_SIDE};",
        "    } else {",
        f"      const long low = first < 0 ? (-first + {apart - 1})/{apart} : 0;",
        f"      const long high = MIN({across}, (width - first + {apart - 1})/{apart});",
        "      for (long c = 0; c < wide; c += LANES) {",
        "        const float *p = x + first*step + c, *q = w + c;",
        "        vec s0 = load(bias + c);",
        f"        for (long r = 0; r < rows; r++, p += row, q += {across}*wide)",
        f"          for (long d = low; d < high; d++) s0 += {READ.format(f'p + d*{apart}*step')}*load(q + d*wide);",
        f"        {_bounded(0)}",
        "        put(y + o*line + c, by, s0);",
        "      }",
        "      if (scale) scale[o] = size + total(odd);",
        "      o++;",
        "    }",
        "  }",
        "}",
    ]
    return name, "\n".join(lines)


def _taps(across: int, stride: int, apart: int, down: int) -> list[str]:
    """C that adds `down` lines of a window to the sums of a block: each element of the image is read once for them."""
    lines = []
    for r in range(down):
        below, taps = (f" + {r}*row", f" + {r * across}*wide") if r else ("", "")
        lines.append(f"          {{ const float *e = p{below}, *u = q{taps};")
        lines += [f"          const vec w{d} = load(u + {d}*wide);" for d in range(across)]
        for column in range((SIDE_BY_SIDE - 1) * stride + (across - 1) * apart + 1):
            uses = [(a, d) for a in range(SIDE_BY_SIDE) for d in range(across) if a * stride + d * apart == column]
            if uses:
                adds = " ".join(f"s{a} += v*w{d};" for a, d in uses)
                lines.append(f"          {{ vec v = {READ.format(f'e + {column}*step')}; KEEP(v); {adds} }}")
        lines.append("          }")
    return lines


def _bounded(answer: int) -> str:
    """C that ends the sum of an answer of a block, and sees whether it is a number."""
    return (
        f"if (add) s{answer} += load(add + (o + {answer})*line + c); s{answer} = bounded(s{answer}, least, most); "
        f"if (sizeof(Y) == 1) odd += s{answer}*0.0f;"
    )


TEXT = """
typedef byte loose_bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
static inline void put(float *y, float by, vec v) { store(y, v); }
static inline ivec whole_steps(vec v, float by) { return (ivec)(v * by + TO_WHOLE) - 0x4b400000; }
static inline void put(float *y, long line, float by, vec a, vec b, vec c, vec d) {
  store(y, a); store(y + line, b); store(y + 2*line, c); store(y + 3*line, d);
}
#if defined(__AVX2__) && LANES == 8 && !defined(__clang__)  // GCC 12 takes the elements of a vector apart for this
typedef short v16 __attribute__((vector_size(32)));
typedef long long loose_long __attribute__((aligned(1), may_alias));
typedef long long v4 __attribute__((vector_size(32)));
static inline v4 four_packed(ivec a, ivec b, ivec c, ivec d) {
  const v16 low = (v16)__builtin_ia32_packusdw256(a, b), high = (v16)__builtin_ia32_packusdw256(c, d);
  return (v4)__builtin_ia32_permvarsi256((ivec)__builtin_ia32_packuswb256(low, high), ivec{0, 4, 1, 5, 2, 6, 3, 7});
}
static inline void put(byte *y, float by, vec v) {
  const ivec whole = whole_steps(v, by);
  *(loose_long *)y = four_packed(whole, whole, whole, whole)[0];
}
static inline void put(byte *y, long line, float by, vec a, vec b, vec c, vec d) {
  const v4 all = four_packed(whole_steps(a, by), whole_steps(b, by), whole_steps(c, by), whole_steps(d, by));
  for (int i = 0; i < 4; i++) *(loose_long *)(y + i*line) = all[i];
}
#else
static inline void put(byte *y, float by, vec v) {
  *(loose_bytes *)y = __builtin_convertvector(whole_steps(v, by), loose_bytes);
}
static inline void put(byte *y, long line, float by, vec a, vec b, vec c, vec d) {
  put(y, by, a); put(y + line, by, b); put(y + 2*line, by, c); put(y + 3*line, by, d);
}
#endif
static inline float total(vec v) {
  float sum = 0.0f;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}
"""
"""Stores answers, side by side or in lines below each other; as bytes, of what is between 0 and 255 steps."""
