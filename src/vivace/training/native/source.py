"""The whole source of a compiled step: kernels, the threads and how they wait, one step, and many in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch.fx import GraphModule

from vivace.core.errors import NotApplicable
from vivace.training.native import update
from vivace.training.native.arrays import FLOAT, LONG, Array, Read, stored
from vivace.training.native.lowering import KINDS, Lowering
from vivace.training.native.operators import lowered
from vivace.training.native.statements import Statement, loop, merged_updates, rows_of, scheduled
from vivace.training.native.tiles import Vector, inner_tile, outer_tile
from vivace.training.native.update import NUMBERS, Rule


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A tensor of the batch, as C is given it."""

    shape: tuple[int, ...]
    kind: str


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What a compiled step is made of. `state` are shapes of the model's tensors, by number; `rules` says how each that
    learns is updated, in the order of the graph's gradients."""

    graph: GraphModule
    state: tuple[tuple[int, ...], ...]
    leaves: tuple[Leaf, ...]
    rules: Mapping[int, Rule]
    rows: int | None
    vector: Vector
    threads: int


def source_of(plan: StepPlan) -> str:
    """The C++ of a plan. Raises NotApplicable where an operator has none.

    Pointers are given in this order: the model's tensors, then for each that learns its gradient and the optimizer's
    tensors.
    """
    tensors = [Array.whole(f"p{number}", shape) for number, shape in enumerate(plan.state)]
    leaves = [Array.whole(f"x{number}", leaf.shape, leaf.kind) for number, leaf in enumerate(plan.leaves)]
    weights = frozenset(f"p{number}" for number in plan.rules)
    lowering = Lowering(weights, plan.vector, plan.threads)
    loss, *gradients = lowered(plan.graph, [*tensors, *leaves], lowering)
    aliases: dict[str, str] = {}
    found = lowering.stored(loss)
    for number, gradient in zip(plan.rules, gradients, strict=True):
        array = lowering.stored(gradient)
        if array.name in lowering.scratch and array.name not in aliases and array.is_dense and array.name != found.name:
            aliases[array.name] = f"g{number}"
        else:
            to = Array.whole(f"g{number}", plan.state[number])
            index = tuple(f"i{place}" for place in range(len(to.shape)))
            lowering.statements.append(loop(to, gradient.at(index), stored(array).reads(index), plan.threads))
    named = {gradient: scratch for scratch, gradient in aliases.items()}
    whose = [named.get(f"g{number}", f"g{number}") for number in plan.rules]
    updates = [
        update.statement(rule, place, plan.state[number], f"p{number}", gradient)
        for place, ((number, rule), gradient) in enumerate(zip(plan.rules.items(), whose, strict=True))
    ]
    told = Statement(f"  if (t == 0) losses[s] = {found.at(('0',) * len(found.shape))};", (Read(found.name, None),), ())
    statements = merged_updates([*_gathered(plan), *lowering.statements, told], updates, whose)
    return "\n".join(
        [
            _HEAD.replace("$LANES", str(plan.vector.lanes)).replace("$THREADS", str(plan.threads))
            .replace("$NUMBERS", str(NUMBERS)),
            _PAIRS if plan.vector.has_bf16 else "",
            *(_tile(plan.vector, *tile) for tile in sorted(lowering.tiles)),
            *_declared(plan, lowering, aliases),
            update.TEXT,
            "static void one_step(const int t, const long s) {",
            *(f"  const Numbers n{place} = numbers_of({place}, s);" for place in range(len(plan.rules))),
            *scheduled(statements, plan.threads),
            "}",
            _TAIL.replace("$BIND", _bound(plan)),
        ]
    )  # fmt: skip


def _tile(vector: Vector, kind: str, rows: int, columns: int, narrow: bool) -> str:
    return (inner_tile if kind == "inner" else outer_tile)(vector, rows, columns, narrow)


def _gathered(plan: StepPlan) -> list[Statement]:
    """Rows of tables copied into the batch's memory, where the step is given tables."""
    found = []
    for number, leaf in enumerate(plan.leaves):
        if plan.rows is None or not leaf.shape or leaf.shape[0] != plan.rows:
            continue
        size = Array.whole("", leaf.shape).strides[0]
        text = (
            f"  if (order) {{ {rows_of(plan.rows, plan.threads)}\n    for (long i = from; i < to; i++) "
            f"__builtin_memcpy(batch{number} + i*{size}, column{number} + order[s*{plan.rows} + i]*{size}, "
            f"{size} * sizeof({leaf.kind})); }}"
        )
        found.append(Statement(text, (), (Read(f"x{number}", plan.rows if plan.rows > 1 else None),)))
    return found


def _declared(plan: StepPlan, lowering: Lowering, aliases: Mapping[str, str]) -> list[str]:
    lines = ["static const long *order; static float *losses;"]
    lines += [f"static float *p{number};" for number in range(len(plan.state))]
    for number, rule in plan.rules.items():
        names = "".join(f", *p{number}_{name}" for name in rule.state)
        lines.append(f"static float *g{number}{names};")
    for number, leaf in enumerate(plan.leaves):
        size = Array.whole("", (1, *leaf.shape)).strides[0]
        lines.append(f"static {leaf.kind} batch{number}[{max(1, size)}] __attribute__((aligned(64)));")
        lines.append(f"static const {leaf.kind} *column{number}, *x{number};")
    for name, (kind, size) in lowering.scratch.items():
        if name in aliases:
            lines.append(f"#define {name} {aliases[name]}")
        else:
            lines.append(f"static {kind} {name}[{size}] __attribute__((aligned(64)));")
    return lines


def _bound(plan: StepPlan) -> str:
    """C that takes every pointer from the lists that it is given."""
    lines, place = [], 0
    for number in range(len(plan.state)):
        lines.append(f"  p{number} = (float *)tensors[{place}];")
        place += 1
    for number, rule in plan.rules.items():
        for name in (f"g{number}", *(f"p{number}_{name}" for name in rule.state)):
            lines.append(f"  {name} = (float *)tensors[{place}];")
            place += 1
    for number, leaf in enumerate(plan.leaves):
        lines.append(f"  column{number} = (const {leaf.kind} *)columns[{number}];")
        lines.append(f"  x{number} = order ? batch{number} : column{number};")
    return "\n".join(lines)


def leaf_of(shape: Sequence[int], dtype: object) -> Leaf:
    """A batch's tensor. Raises NotApplicable for types that C is not given."""
    kind = KINDS.get(dtype)  # type: ignore[call-overload]
    if kind not in (FLOAT, LONG) or str(dtype) == "torch.bfloat16":
        raise NotApplicable(f"the batch holds a tensor of {dtype}; a compiled step takes float32 and int64")
    return Leaf(tuple(int(size) for size in shape), kind)


_HEAD = """
#include <pthread.h>
#include <sched.h>
#define LANES $LANES
#define THREADS $THREADS
#define NUMBERS $NUMBERS
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define INSIDE(index, size) ((unsigned long)(index) < size ? (index) : (outside = 1, 0))
static int outside;
extern "C" {
float expf(float); float logf(float); float log1pf(float); float tanhf(float); float erff(float); float sinf(float);
float cosf(float); float powf(float, float); double pow(double, double); double sqrt(double);
}
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int ivec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
typedef int iloose __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__x86_64__)
#define KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x)
#endif
static inline vec load(const float *p) { return *(const loose *)p; }
static inline ivec iload(const int *p) { return *(const iloose *)p; }
static inline void store(float *p, vec v) { *(loose *)p = v; }
static inline void add_products(vec &s, vec a, vec b) { s += a * b; }
static inline vec load_some(const float *p, long n) {
  if (n >= LANES) return load(p);
  float t[LANES] = {};
  for (long i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
static inline void store_some(float *p, vec v, long n) {
  if (n >= LANES) { store(p, v); return; }
  float t[LANES];
  store(t, v);
  for (long i = 0; i < n; i++) p[i] = t[i];
}
static inline unsigned bits(float x) { unsigned u; __builtin_memcpy(&u, &x, 4); return u; }
static inline unsigned halved(float x) { const unsigned u = bits(x); return u + 0x7fff + ((u >> 16) & 1); }
static inline short narrow(float x) { return (short)(halved(x) >> 16); }
static inline int pair(float low, float high) { return (int)((halved(low) >> 16) | (halved(high) & 0xffff0000u)); }
static int arrived __attribute__((aligned(64))), phase __attribute__((aligned(64)));
static inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
static inline void barrier() {
  const int mine = __atomic_load_n(&phase, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == THREADS) {
    __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&phase, mine + 1, __ATOMIC_RELEASE);
    return;
  }
  for (long spins = 0; __atomic_load_n(&phase, __ATOMIC_ACQUIRE) == mine; spins++) {
    if (spins > 10000) sched_yield();  // no pause before: hypervisors may take a pause for idleness
  }
}
"""

_PAIRS = """
static inline void add_products(vec &s, ivec a, ivec b) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(s) : "v"(a), "v"(b)); }
"""

_TAIL = """
static long count;
static int generation __attribute__((aligned(64))), is_over;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static pthread_t others[THREADS];
static void all_steps(int t) { for (long s = 0; s < count; s++) one_step(t, s); }
static void *wait_for_work(void *which) {
  for (int seen = 0;; seen++) {
    for (long spins = 0; __atomic_load_n(&generation, __ATOMIC_ACQUIRE) == seen; spins++) {
      if (spins < 2000) { relax(); continue; }
      pthread_mutex_lock(&gate);
      while (__atomic_load_n(&generation, __ATOMIC_ACQUIRE) == seen) pthread_cond_wait(&bell, &gate);
      pthread_mutex_unlock(&gate);
    }
    if (is_over) return 0;
    all_steps((int)(long)which);
  }
}
static void ring() {
  pthread_mutex_lock(&gate);
  __atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
  pthread_cond_broadcast(&bell);
  pthread_mutex_unlock(&gate);
}
extern "C" int begin() {
  for (long t = 1; t < THREADS; t++) if (pthread_create(&others[t], 0, wait_for_work, (void *)t)) return 1;
  return 0;
}
extern "C" void end() {
  is_over = 1;
  ring();
  for (long t = 1; t < THREADS; t++) pthread_join(others[t], 0);
}
extern "C" int run(void **tensors, const double *given, const long *rows, void **columns, long steps, float *to) {
  outside = 0; numbers = given; order = rows; count = steps; losses = to;
$BIND
  if (THREADS > 1) ring();
  all_steps(0);
  return outside;
}
"""
