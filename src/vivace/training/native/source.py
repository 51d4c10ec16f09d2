"""The whole source of a compiled step: kernels, the threads and how they wait, one step, and many in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch.fx import GraphModule

from vivace.codegen import functions
from vivace.codegen.arrays import FLOAT, Array, Read, stored
from vivace.codegen.lowering import Lowering, Rounded
from vivace.codegen.operators.walk import lowered
from vivace.codegen.parts import parts
from vivace.codegen.statements import Statement, loop, merged_updates, scheduled
from vivace.codegen.threads import POOL, head
from vivace.codegen.tiles import Vector, tile
from vivace.codegen.turning import turned
from vivace.training.native import drawing, update
from vivace.training.native.fed import fed
from vivace.training.native.leaves import Leaf
from vivace.training.native.update import NUMBERS, Rule


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What a compiled step is made of. `state` are the model's tensors, by number; `rules` says how each that
    learns is updated, in the order of the graph's gradients."""

    graph: GraphModule
    state: tuple[Leaf, ...]
    leaves: tuple[Leaf, ...]
    rules: Mapping[int, Rule]
    rows: int | None
    vector: Vector
    threads: int


@dataclasses.dataclass(frozen=True)
class Source:
    """The C++ of a step. `narrow` are the numbers of the batch's tensors that it takes from a table in bfloat16, if it
    is given one; `draws` is how many of its operators draw random numbers."""

    text: str
    narrow: tuple[int, ...]
    draws: int


def source_of(plan: StepPlan) -> Source:
    """The C++ of a plan. Raises NotApplicable where an operator has none.

    Pointers are given in this order: the model's tensors, then for each that learns its gradient and the optimizer's
    tensors; of data, the batch's tensors or tables, then those of `narrow` in bfloat16 (none: null).
    """
    tensors = [Array.whole(f"p{number}", leaf.shape, leaf.kind) for number, leaf in enumerate(plan.state)]
    leaves = [Array.whole(f"x{number}", leaf.shape, leaf.kind) for number, leaf in enumerate(plan.leaves)]
    weights = frozenset(f"p{number}" for number in plan.rules)
    buffers = frozenset(array.name for array in tensors) - weights
    lowering, draws = Lowering(weights, plan.vector, plan.threads, buffers), drawing.Draws()
    loss, *gradients = lowered(plan.graph, [*tensors, *leaves], lowering, draws.operators)
    aliases: dict[str, str] = {}
    found = lowering.stored(loss)
    for number, gradient in zip(plan.rules, gradients, strict=True):
        array = lowering.stored(gradient)
        if array.name in lowering.scratch and array.name not in aliases and array.is_dense and array.name != found.name:
            aliases[array.name] = f"g{number}"
        else:
            to = Array.whole(f"g{number}", plan.state[number].shape)
            lowering.statements.append(loop(to, stored(array), plan.threads))
    lowering.statements += [loop(to, value, plan.threads) for to, value in lowering.writes.items()]
    lowering.check_memory()
    named = {gradient: scratch for scratch, gradient in aliases.items()}
    whose = [named.get(f"g{number}", f"g{number}") for number in plan.rules]
    copies = {number: copy for number in plan.rules if (copy := _copy(plan, lowering, number))}
    updates = [
        update.statement(rule, place, plan.state[number], f"p{number}", gradient, copies.get(number))
        for place, ((number, rule), gradient) in enumerate(zip(plan.rules.items(), whose, strict=True))
    ]
    told = Statement(f"  if (t == 0) losses[s] = {found.at(('0',) * len(found.shape))};", (Read(found.name, None),), ())
    kept = [copy.statement for copy in copies.values()]
    computed = [*(_once(one) if one in kept else one for one in lowering.statements), told]
    narrow: tuple[int, ...] = ()
    if plan.rows is not None:
        computed, narrow = fed(plan.rows, plan.leaves, lowering.rounded, computed, plan.threads)
    statements = merged_updates(computed, updates, whose)
    kinds = _kinds(plan, lowering) | dict.fromkeys(draws.names, drawing.KEY)
    written, calls = parts(scheduled(statements, plan.threads), kinds, "t, s")
    lines = [
        head(plan.vector, plan.threads, any(narrow for *_, narrow in lowering.tiles)), functions.TEXT,
        turned(plan.vector), f"#define NUMBERS {NUMBERS}",
        *(tile(plan.vector, *one) for one in sorted(lowering.tiles)),
        *_declared(plan, lowering, aliases),
        *(f"static const short *narrow{number};" for number in narrow),
        update.TEXT,
        drawing.TEXT,
        *written,
        "static void one_step(const int t, const long s) {",
        *(f"  const Numbers n{place} = numbers_of({place}, s);" for place in range(len(plan.rules))),
        *(f"  const Key {name} = key_of({place}, s);" for place, name in enumerate(draws.names)),
        *calls,
        "}",
        _TAIL.replace("$POOL", POOL).replace("$BIND", _bound(plan, narrow)),
    ]  # fmt: skip
    return Source("\n".join(lines), narrow, draws.count)


def _copy(plan: StepPlan, lowering: Lowering, number: int) -> Rounded | None:
    """The copy in bfloat16 of a parameter whose rows it has, which the update then keeps."""
    found = lowering.rounded.get(f"p{number}")
    return found if found and found.source.shape == plan.state[number].matrix else None


def _once(statement: Statement) -> Statement:
    """A statement of the first step of a call alone."""
    return dataclasses.replace(statement, text=f"  if (s == 0) {{\n{statement.text}\n  }}")


def _declared(plan: StepPlan, lowering: Lowering, aliases: Mapping[str, str]) -> list[str]:
    lines = ["static const long *order; static float *losses;"]
    lines += [f"static {leaf.kind} *p{number};" for number, leaf in enumerate(plan.state)]
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


def _kinds(plan: StepPlan, lowering: Lowering) -> dict[str, str]:
    """How what statements name is declared as a parameter; no array is a part of another."""
    arrays = {name: kind for name, (kind, _) in lowering.scratch.items()}
    arrays |= {f"p{number}": leaf.kind for number, leaf in enumerate(plan.state)}
    for number, rule in plan.rules.items():
        arrays |= dict.fromkeys((f"g{number}", *(f"p{number}_{name}" for name in rule.state)), FLOAT)
    arrays |= {f"x{number}": f"const {leaf.kind}" for number, leaf in enumerate(plan.leaves)}
    numbers = {f"n{place}": "const Numbers &$" for place in range(len(plan.rules))}
    return {name: f"{kind} *__restrict $" for name, kind in arrays.items()} | numbers


def _bound(plan: StepPlan, narrow: Sequence[int]) -> str:
    """C that takes every pointer from the lists that it is given."""
    lines, place = [], 0
    for number, leaf in enumerate(plan.state):
        lines.append(f"  p{number} = ({leaf.kind} *)tensors[{place}];")
        place += 1
    for number, rule in plan.rules.items():
        for name in (f"g{number}", *(f"p{number}_{name}" for name in rule.state)):
            lines.append(f"  {name} = (float *)tensors[{place}];")
            place += 1
    for number, leaf in enumerate(plan.leaves):
        lines.append(f"  column{number} = (const {leaf.kind} *)columns[{number}];")
        lines.append(f"  x{number} = order ? batch{number} : column{number};")
    for place, number in enumerate(narrow, start=len(plan.leaves)):
        lines.append(f"  narrow{number} = (const short *)columns[{place}];")
    return "\n".join(lines)


_TAIL = """
static long count;
static void work(int t) { for (long s = 0; s < count; s++) one_step(t, s); }
$POOL
extern "C" int run(void **tensors, const double *given, const long *rows, void **columns, const unsigned long *by,
                   long steps, float *to) {
  outside = 0; numbers = given; order = rows; keys = by; count = steps; losses = to;
$BIND
  all_work();
  return outside;
}
"""
