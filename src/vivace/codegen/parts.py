"""A program's statements as functions of their own, which those share that differ by what they are given alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vivace.codegen.statements import BARRIER

WORD = re.compile(r"\b[A-Za-z_]\w*\b")


def parts(lines: Sequence[str], kinds: Mapping[str, str], always: str = "t") -> tuple[list[str], list[str]]:
    """Functions, and the calls of them that do what `lines` do. Compilers take long for large functions and for many:
    the layers of a network are alike. `kinds` says how names in the lines are declared as parameters (`$` stands for
    the name); `always` are the names of whole numbers that every function is given.

    >>> parts(["  a[t] = 1;", "  b[t] = 1;"], {"a": "float *$", "b": "float *$"})[1]
    ['  part0(t, a);', '  part0(t, b);']
    """
    made: dict[tuple[str, str], str] = {}
    calls = []
    for line in lines:
        if line.strip() == BARRIER:
            calls.append(line)
            continue
        names = [name for name in dict.fromkeys(WORD.findall(line)) if name in kinds]
        function = made.setdefault(_given(line, names, kinds), f"part{len(made)}")
        calls.append(f"  {function}({', '.join([always, *names])});")
    whole = ", ".join(f"const long {name}" for name in always.split(", "))
    functions = [
        f"static __attribute__((noinline)) void {function}({whole}{given}) {{\n{body}\n}}"
        for (given, body), function in made.items()
    ]
    return functions, calls


def _given(text: str, names: Sequence[str], kinds: Mapping[str, str]) -> tuple[str, str]:
    """The parameters and the body of a statement that is given what it names."""
    own = {name: f"given{number}" for number, name in enumerate(names)}
    given = "".join(f", {kinds[name].replace('$', own[name])}" for name in names)
    return given, WORD.sub(lambda word: own.get(word[0], word[0]), text)
