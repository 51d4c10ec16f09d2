"""Digits on two processes, as one would train them: `vivace train examples/ddp_digits.py:job --processes 2`."""

from __future__ import annotations

import dataclasses

from train_digits import job as one

import vivace as vv

job = dataclasses.replace(one, epochs=3, name="digits-ddp")


def main(time: str = "1m") -> None:
    """Train on two processes, then on one, and say that it is the same. Without `plan` the fastest is searched for."""
    together = vv.train(job, processes=2, plan=())
    alone = vv.train(job, plan=())
    print(f"{together.plan}: parity {together.parity and together.parity.verdict.value}")
    for number, (many, single) in enumerate(zip(together.losses, alone.losses, strict=True), 1):
        print(f"epoch {number}: loss {many:.4f} on two processes, {single:.4f} on one")
    print(f"accuracy {together.scores[-1]:.3f} and {alone.scores[-1]:.3f}")


if __name__ == "__main__":
    main()
