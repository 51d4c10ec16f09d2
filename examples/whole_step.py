"""A whole training step as one compiled program, its epochs in one call each: python examples/whole_step.py"""

from __future__ import annotations

import dataclasses
import statistics

from train_digits import job

import vivace as vv

PLAN = ["sample-cache", "native-step"]


def main(time: str = "") -> None:
    """Train as given and with the compiled step, both proved and in processes of their own, and compare the epochs."""
    short = dataclasses.replace(job, epochs=8)
    for plan in ([], PLAN):
        run = vv.train(short, plan=plan)
        seconds = statistics.median(run.epoch_seconds[1:])
        verdict = run.parity.verdict.value if run.parity else "as given"
        print(f"{run.plan}: {seconds * 1e3:.2f} ms an epoch, score {run.scores[-1]:.3f}, parity {verdict}")


if __name__ == "__main__":
    main()
