"""Entanglement of three qubits: a GHZ state beyond Mermin's bound: python examples/ghz.py"""

from __future__ import annotations

from vivace.quantum.words.demonstration import Runner
from vivace.quantum.words.entanglement import ghz


def main(time: str = "") -> None:
    """Four settings, each read in 4,096 shots of the simulator."""
    found = ghz(Runner(shots=4096))
    print(found.text)
    for histogram in found.histograms:
        print(f"{histogram.name}: {dict(sorted(histogram.counts.items()))}")
    print(
        f"{found.statistic} = {found.value} (SIMULATED, 95%); with answers known before they are asked, 2 at the most"
    )
    assert found.holds


if __name__ == "__main__":
    main()
