"""Parallel evaluation: an oracle asked about all inputs at once, and what can be read of its answers."""

from __future__ import annotations

from typing import Any

from vivace.core.errors import UsageError
from vivace.quantum import extra
from vivace.quantum.intervals import proportion
from vivace.quantum.words.demonstration import Demonstration, Histogram, Runner, pictured

SECRET = "1011"


def parallel_oracle(runner: Runner = Runner(), secret: str = SECRET) -> Demonstration:
    """Bernstein and Vazirani's problem (SIAM Journal on Computing 26 (1997), 1411): f(x) is the parity of x and a
    hidden string. One call of the oracle, on all inputs at once, gives the string; one classical call gives one bit of
    it.

    The second histogram reads the answers without the interference: one input and its answer, at random, as one
    classical call gives. Raises UsageError unless the string is of 1 to 8 bits, not all 0.
    """
    if not 1 <= len(secret) <= 8 or set(secret) - {"0", "1"} or "1" not in secret:
        raise UsageError(
            f"the hidden string is {secret!r}; allowed are 1 to 8 signs of 0 and 1, at least one of them 1"
        )
    asked, plain = _circuit(secret, interferes=True), _circuit(secret, interferes=False)
    counts = runner.counts([asked, plain])
    picture, text = pictured(asked)
    return Demonstration(
        "oracle", "Parallelism: an oracle asked about all inputs at once",
        f"One call evaluates f at {2 ** len(secret)} inputs in superposition, and interference leaves the hidden "
        f"string: by guessing after one classical call it is right in {_guess(secret):.3g} of all cases.",
        "share of the hidden string", proportion(counts[0].get(secret, 0), runner.shots), _guess(secret), 1.0,
        (Histogram("read after interference", counts[0]), Histogram("read without it: f(x) and x", counts[1])),
        picture, text, runner.shots, runner.name,
        "The answers themselves cannot be read: without the last gates a shot gives one x with its f(x). Only a "
        "property of all of them together, for which such an interference is known, comes out of one call.",
    )  # fmt: skip


def _guess(secret: str) -> float:
    """The chance of the best guess after one classical call, which halves the strings that are left."""
    return 2.0 ** (1 - len(secret))


def _circuit(secret: str, interferes: bool) -> Any:
    """Inputs on the first qubits, the answer on the last. With interference the answer is a sign, without it a bit."""
    count = len(secret)
    circuit = extra.qiskit().QuantumCircuit(count + 1, count if interferes else count + 1)
    circuit.h(range(count))
    if interferes:
        circuit.x(count)
        circuit.h(count)
    for place, bit in enumerate(reversed(secret)):
        if bit == "1":
            circuit.cx(place, count)
    if interferes:
        circuit.h(range(count))
    read = range(count if interferes else count + 1)
    circuit.measure(read, read)
    return circuit
