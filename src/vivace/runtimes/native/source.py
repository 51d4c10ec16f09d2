"""The whole source of a program: kernels, memory, the statements of one call, and how it is entered."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.codegen import functions, lines, panels
from vivace.codegen.arrays import Array, stored
from vivace.codegen.panels import BFLOAT16, INT8
from vivace.codegen.parts import parts
from vivace.codegen.shares import shares
from vivace.codegen.statements import BARRIER, alone_on, loop, scheduled
from vivace.codegen.threads import POOL, head
from vivace.codegen.tiles import tile
from vivace.codegen.turning import turned
from vivace.runtimes.native.lowering import Program

KINDS = {"torch.float32": "float", "torch.int64": "long", "torch.bool": "bool", "torch.int32": "int"}
"""Of constants; others are bytes that kernels know how to read."""
CLOCK = """
#include <time.h>
static double seconds[$COUNT], since;
extern "C" double *told() { return seconds; }
static void tick(const int t, const int place) {
  if (t) return;
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const double found = now.tv_sec + 1e-9 * now.tv_nsec;
  if (place >= 0) seconds[place] = found - since;
  since = found;
}
"""


def source_of(
    program: Program, inputs: Sequence[Array], outputs: Sequence[Array], results: Sequence[Array],
    is_timed: bool = False,
) -> str:  # fmt: skip
    """The C++ of a program that reads `inputs` and leaves what it found in `results` in `outputs`.

    `is_timed`: its first thread notes how long it is at each statement (`told`, seconds of the last call).
    """
    for to, found in zip(outputs, results, strict=True):
        program.statements.append(loop(to, stored(found), program.threads))
    precisions = {precision for precision, *_ in program.kernels}
    in_pairs = BFLOAT16 in precisions or any(is_narrow for *_, is_narrow in program.tiles)
    return "\n".join(
        [
            head(program.vector, program.threads, in_pairs, INT8 in precisions),
            functions.TEXT,
            panels.TEXT,
            turned(program.vector),
            lines.ROUNDED,
            shares(program.vector),
            lines.TEXT,
            *_declared(program, inputs, outputs),
            *(tile(program.vector, *one) for one in sorted(program.tiles)),
            *(panels.kernel(name, program.vector) for name in sorted(program.kernels)),
            *program.functions.values(),
            *_work(program, inputs, outputs, is_timed),
            POOL,
            _entered(program, inputs, outputs),
        ]
    )


def _work(program: Program, inputs: Sequence[Array], outputs: Sequence[Array], is_timed: bool) -> list[str]:
    """What a thread does in a call."""
    pairs = zip(program.statements, program.taken(), strict=True)
    statements = [one if lane is None else alone_on(one, lane) for one, lane in pairs]
    lines = scheduled(statements, program.threads)
    functions, calls = parts(lines, _kinds(program, inputs, outputs))
    clock = [CLOCK.replace("$COUNT", str(len(program.statements)))] if is_timed else []
    calls = _timed(lines, calls) if is_timed else calls
    return [*clock, *functions, "static void work(const int t) {", *calls, "}"]


def _timed(lines: Sequence[str], calls: Sequence[str]) -> list[str]:
    """The calls of a program's lines, with the clock read after each; what a thread waits is nobody's."""
    found, place = ["  tick(t, -1);"], 0
    for line, call in zip(lines, calls, strict=True):
        is_barrier = line.strip() == BARRIER
        found += [call, f"  tick(t, {-1 if is_barrier else place});"]
        place += not is_barrier
    return found


def _kinds(program: Program, inputs: Sequence[Array], outputs: Sequence[Array]) -> dict[str, str]:
    """How arrays are declared, by their names; none is a part of another."""
    found = {name: kind for name, (kind, _) in program.scratch.items()}
    found |= {name: f"const {KINDS.get(str(one.dtype), 'char')}" for name, one in program.constants.items()}
    found |= {one.name: f"const {one.kind}" for one in inputs} | {one.name: one.kind for one in outputs}
    return {name: f"{kind} *__restrict $" for name, kind in found.items()}


def _declared(program: Program, inputs: Sequence[Array], outputs: Sequence[Array]) -> list[str]:
    lines = [f"static const {one.kind} *{one.name};" for one in inputs]
    lines += [f"static {one.kind} *{one.name};" for one in outputs]
    for name, tensor in program.constants.items():
        lines.append(f"static const {KINDS.get(str(tensor.dtype), 'char')} *{name};")
    for numbers, name in program.tables.items():
        lines.append(f"static const int {name}[] = {{{', '.join(map(str, numbers))}}};")
    for name, (kind, size) in program.scratch.items():
        lines.append(f"static {kind} {name}[{size + 16}] __attribute__((aligned(64)));")
    return lines


def _entered(program: Program, inputs: Sequence[Array], outputs: Sequence[Array]) -> str:
    given = ", ".join(f"void *g{place}" for place in range(len(inputs) + len(outputs)))
    bound = [f"  {one.name} = ({one.kind} *)g{place};" for place, one in enumerate((*inputs, *outputs))]
    kept = [f"  {name} = (decltype({name}))kept[{place}];" for place, name in enumerate(program.constants)]
    fills = [f"  __builtin_memset({name}, {value}, sizeof {name});" for name, value in program.filled.items()]
    return "\n".join(
        [
            'extern "C" void bind(void **kept) {', *kept, *fills, "}",
            f'extern "C" int run({given}) {{', "  outside = 0;", *bound,
            "  all_work();", "  return outside;", "}",
        ]
    )  # fmt: skip
