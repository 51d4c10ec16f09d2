"""Superposition is more than chance: it can be taken back: python examples/superposition.py"""

from __future__ import annotations

from vivace.quantum.words.demonstration import Runner
from vivace.quantum.words.superposition import superposition


def main(time: str = "") -> None:
    """Three qubits after one layer of Hadamard gates, and after two."""
    found = superposition(Runner(shots=4096))
    print(found.text)
    for histogram in found.histograms:
        print(f"{histogram.name}: {dict(sorted(histogram.counts.items()))}")
    print(f"{found.statistic} = {found.value} (SIMULATED, 95%); tossed coins give {found.bound:.3g}")
    assert found.holds


if __name__ == "__main__":
    main()
