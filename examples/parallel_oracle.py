"""One call of an oracle on all inputs at once, and what can be read of it: python examples/parallel_oracle.py"""

from __future__ import annotations

from vivace.quantum.words.demonstration import Runner
from vivace.quantum.words.parallel_oracle import parallel_oracle


def main(time: str = "") -> None:
    """A hidden string in one call; and without interference, one input with its answer at random."""
    found = parallel_oracle(Runner(shots=4096), secret="1011")
    print(found.text)
    with_it, without = found.histograms
    print(f"{with_it.name}: {dict(with_it.counts)}")
    print(f"{without.name}: {len(without.counts)} different readings, so no shot tells more than one call does")
    print(f"{found.statistic} = {found.value} (SIMULATED, 95%); guessing after one classical call: {found.bound:.3g}")
    assert found.holds


if __name__ == "__main__":
    main()
