"""The whole source of a program: kernels, memory, the statements of one call, and how it is entered."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.codegen import functions, panels
from vivace.codegen.arrays import Array, stored
from vivace.codegen.panels import BFLOAT16, INT8
from vivace.codegen.statements import BARRIER, loop, scheduled
from vivace.codegen.threads import POOL, head
from vivace.codegen.tiles import inner_tile, outer_tile
from vivace.runtimes.native.lowering import Program


def source_of(program: Program, inputs: Sequence[Array], outputs: Sequence[Array], results: Sequence[Array]) -> str:
    """The C++ of a program that reads `inputs` and leaves what it found in `results` in `outputs`."""
    for to, found in zip(outputs, results, strict=True):
        program.statements.append(loop(to, stored(found), program.threads))
    precisions = {precision for precision, *_ in program.kernels}
    return "\n".join(
        [
            head(program.vector, program.threads, BFLOAT16 in precisions, INT8 in precisions),
            functions.TEXT,
            panels.TEXT,
            *_declared(program, inputs, outputs),
            *(_tile(program, *tile) for tile in sorted(program.tiles)),
            *(panels.kernel(name, program.vector) for name in sorted(program.kernels)),
            *_work(program),
            POOL,
            _entered(program, inputs, outputs),
        ]
    )


def _work(program: Program) -> list[str]:
    """What a thread does in a call, each statement a function of its own: compilers take long for large ones."""
    lines = scheduled(program.statements, program.threads)
    parts = [line for line in lines if line.strip() != BARRIER]
    names = iter(range(len(parts)))
    made = [
        f"static __attribute__((noinline)) void part{number}(const int t) {{\n{part}\n}}"
        for number, part in enumerate(parts)
    ]
    calls = [line if line.strip() == BARRIER else f"  part{next(names)}(t);" for line in lines]
    return [*made, "static void work(const int t) {", *calls, "}"]


def _tile(program: Program, kind: str, rows: int, columns: int, narrow: bool) -> str:
    return (inner_tile if kind == "inner" else outer_tile)(program.vector, rows, columns, narrow)


def _declared(program: Program, inputs: Sequence[Array], outputs: Sequence[Array]) -> list[str]:
    lines = [f"static const {one.kind} *{one.name};" for one in inputs]
    lines += [f"static {one.kind} *{one.name};" for one in outputs]
    kinds = {"torch.float32": "float", "torch.int64": "long", "torch.bool": "bool", "torch.int32": "int"}
    for name, tensor in program.constants.items():
        lines.append(f"static const {kinds.get(str(tensor.dtype), 'char')} *{name};")
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
            "  if (THREADS > 1) ring();", "  work(0);", "  return outside;", "}",
        ]
    )  # fmt: skip
