"""The operator of a linear layer with two non-zeros at most among each four inputs: these, and two bits for each."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vivace.codegen.build import flags_for, library
from vivace.codegen.team import enlist
from vivace.codegen.threads import POOL, head
from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable
from vivace.devices import machine
from vivace.runtimes.sparse.defining import defined

SCHEMA = (
    "semi_structured_linear(Tensor x, Tensor values, Tensor places, Tensor? bias, int outputs, int inputs) -> Tensor"
)
"""y = x W' + b. W [outputs, inputs] lies in panels of 16 outputs: for each four inputs two `values` of each output
[panels, fours, 2, 16], and in an int32 two bits of each that say which input it is (`places` [panels, fours, 2])."""
WIDE, GROUP, KEPT = 16, 4, 2
"""Outputs of a panel, inputs of a group, values that are kept of it."""


@functools.cache
def operator() -> Any:
    """The operator, for graphs; it is made known to this process."""
    return defined(SCHEMA, _multiply, _shape)


def packed(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """The values and places of a weight [outputs, inputs]; None where a group of inputs holds more than two.

    >>> values, places = packed(torch.tensor([[0.0, 5.0, 0.0, 7.0]]))
    >>> values[0, 0, :, 0].tolist(), places.tolist()
    ([5.0, 7.0], [[[1, 3]]])
    """
    outputs, inputs = weight.shape
    if inputs % GROUP or not inputs:
        return None
    groups = weight.reshape(outputs, -1, GROUP)
    if int((groups != 0).sum(2).max()) > KEPT:
        return None
    which = (groups != 0).int().topk(KEPT, dim=2).indices.sort(dim=2).values
    panels = -(-outputs // WIDE)
    kept = torch.zeros(panels * WIDE, inputs // GROUP, KEPT)
    kept[:outputs] = groups.gather(2, which)
    bits = torch.zeros(panels * WIDE, inputs // GROUP, KEPT, dtype=torch.int64)
    bits[:outputs] = which
    by_panel = (panels, WIDE, inputs // GROUP, KEPT)
    shifts = 2 * torch.arange(WIDE)[None, :, None, None]
    words = (bits.reshape(by_panel) << shifts).sum(1)
    return kept.reshape(by_panel).permute(0, 2, 3, 1).contiguous(), words.to(torch.uint32).view(torch.int32)


def unpacked(values: Tensor, places: Tensor, outputs: int, inputs: int) -> Tensor:
    """The weight again."""
    panels = len(values)
    words = places.to(torch.int64) & 0xFFFFFFFF
    which = (words[..., None] >> (2 * torch.arange(WIDE))) & (GROUP - 1)  # panels, fours, kept, outputs of a panel
    groups = torch.zeros(panels, inputs // GROUP, GROUP, WIDE).scatter_add_(2, which, values)
    return groups.permute(0, 3, 1, 2).reshape(panels * WIDE, inputs)[:outputs].contiguous()


def _multiply(x: Tensor, values: Tensor, places: Tensor, bias: Tensor | None, outputs: int, inputs: int) -> Tensor:
    if x.shape[-1] != inputs:
        raise RuntimeError(f"semi_structured_linear received rows of {x.shape[-1]}; allowed are {inputs}")
    _check(values, places, bias, outputs, inputs)
    kernel = _kernel(torch.get_num_threads()) if x.dtype is torch.float32 else None
    if kernel is None:
        weight = unpacked(values, places, outputs, inputs).to(x.dtype)
        return torch.nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
    rows = x.reshape(-1, inputs).contiguous()
    y = x.new_empty((len(rows), outputs))
    kernel(rows, values.contiguous(), places.contiguous(), None if bias is None else bias.contiguous(), y)
    return y.reshape(*x.shape[:-1], outputs)


def _check(values: Tensor, places: Tensor, bias: Tensor | None, outputs: int, inputs: int) -> None:
    """What a kernel trusts. Whatever bits places hold, they name one of four inputs."""
    panels = -(-outputs // WIDE)
    shapes = (panels, inputs // GROUP, KEPT, WIDE), (panels, inputs // GROUP, KEPT)
    fits = inputs % GROUP == 0 and (tuple(values.shape), tuple(places.shape)) == shapes
    types = values.dtype is torch.float32 and places.dtype is torch.int32
    if not fits or not types or (bias is not None and (bias.shape != (outputs,) or bias.dtype is not torch.float32)):
        raise RuntimeError(
            f"semi_structured_linear received values {tuple(values.shape)} and places {tuple(places.shape)}; allowed "
            f"for {outputs} outputs of {inputs} inputs are float32 {shapes[0]} and int32 {shapes[1]}, with a bias of "
            f"as many float32 as outputs"
        )


def _shape(x: Tensor, values: Any, places: Any, bias: Any, outputs: int, inputs: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], None]


@functools.cache
def _kernel(threads: int) -> Kernel | None:
    """The product as compiled code with so many threads; None where there is no compiler."""
    here = machine.detect()
    if not here.cxx_compiler:
        return None
    tiles = "\n".join(_tile(rows) for rows in ROWS)
    walk = "\n".join(f"    for (; m + {rows} <= rows; m += {rows}) tile_{rows}(m, p);" for rows in ROWS)
    body = _TEXT.replace("$TILES", tiles).replace("$WALK", walk)
    source = head(Vector(WIDE, 32), threads) + body + POOL + _ENTRY
    try:
        built = library(source, here.cxx_compiler, flags_for(here.architecture, WIDE))
    except NotApplicable:
        return None
    if built.begin():
        return None
    enlist(built)
    built.run.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 3
    one_at_a_time = threading.Lock()  # its threads do one call at a time

    def run(x: Tensor, values: Tensor, places: Tensor, bias: Tensor | None, y: Tensor) -> None:
        given = [None if one is None else one.data_ptr() for one in (x, values, places, bias, y)]
        with one_at_a_time:
            built.run(*given, len(x), y.shape[1], x.shape[1])

    return run


os.register_at_fork(after_in_child=_kernel.cache_clear)  # a child has none of its parent's threads

ROWS = (8, 4, 1)
"""Heights of tiles: so many rows share what a panel's places are made into."""


def _tile(rows: int) -> str:
    """C++ of a tile of so many rows and one panel: of 16 inputs at a time, which are a vector, lanes take what their
    places name, and multiply it by their values. Sums are two for each row, as an addition waits for the one before."""
    each = range(rows)
    step = []
    for four in range(WIDE // GROUP):
        for half in range(KEPT):
            at = f"(((uvec{{}} + w[{KEPT * four + half}]) >> shift) & 3u) | {GROUP * four}u"
            step.append(f"  {{ const ivec at = (ivec)({at}); const vec v = load(value + {KEPT * four + half}*LANES);")
            step += [f"    s{r}_{half} += chosen(x{r}, at) * v;" for r in each]
            step.append("  }")
    return "\n".join(
        [
            f"static void tile_{rows}(long m, long p) {{",
            "  const uvec shift = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};",
            "  const long left = outputs - p*LANES;",
            "  const float *value = values + p*inputs/2*LANES, *from = x + m*inputs;",
            "  const unsigned *w = places + p*inputs/2;",
            "  const vec first = bias ? load_some(bias + p*LANES, left) : vec{};",
            *(f"  vec s{r}_0 = first, s{r}_1 = vec{{}};" for r in each),
            "  long k = 0;",
            "  for (; k + LANES <= inputs; k += LANES, value += LANES/2*LANES, w += LANES/2) {",
            *(f"  const vec x{r} = load(from + {r}*inputs + k);" for r in each),
            *step,
            "  }",
            "  for (; k < inputs; k += 4, value += 2*LANES, w += 2) {",
            *(f"  const vec x{r} = load_some(from + {r}*inputs + k, 4);" for r in each),
            *step[: KEPT * (rows + 2)],
            "  }",
            *(f"  store_some(y + (m + {r})*outputs + p*LANES, s{r}_0 + s{r}_1, left);" for r in each),
            "}",
        ]
    )  # fmt: skip


_TEXT = """
static const float *x, *values, *bias;
static const unsigned *places;
static float *y;
static long rows, outputs, inputs;
typedef unsigned uvec __attribute__((vector_size(LANES * 4)));
// what lanes name of a vector
static inline __attribute__((always_inline)) vec chosen(vec from, ivec at) {
#if defined(__clang__)
  vec found;
  for (long i = 0; i < LANES; i++) found[i] = from[at[i]];
  return found;
#else
  return __builtin_shuffle(from, at);
#endif
}
$TILES
static void work(int t) {
  const long panels = (outputs + LANES - 1) / LANES, each = (panels + THREADS - 1) / THREADS;
  const long from = MIN(t*each, panels), to = MIN(from + each, panels);
  for (long p = from; p < to; p++) {
    long m = 0;
$WALK
  }
  if (THREADS > 1) barrier();
}
"""
_ENTRY = """
extern "C" void run(const float *x_, const float *values_, const unsigned *places_, const float *bias_, float *y_,
                    long rows_, long outputs_, long inputs_) {
  x = x_; values = values_; places = places_; bias = bias_; y = y_; rows = rows_; outputs = outputs_; inputs = inputs_;
  all_work();
}
"""
