"""The CHSH game: correlations above the classical bound of 2, also under a real machine's noise: python
examples/chsh.py"""

from __future__ import annotations

from vivace.quantum.machines import machine
from vivace.quantum.words.demonstration import Runner
from vivace.quantum.words.entanglement import chsh


def main(time: str = "") -> None:
    """An ideal machine, and one with the gate and reading errors of a published calibration."""
    for noisy in (None, machine("ibm-torino")):
        found = chsh(Runner(shots=4096, machine=noisy))
        print(
            f"{found.statistic} = {found.value} (SIMULATED, 95%, noise of {found.machine or 'none'}); classically <= 2"
        )
        assert found.holds
    print(found.text)


if __name__ == "__main__":
    main()
