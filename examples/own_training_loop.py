"""A training loop of one's own, with the model, optimizer and loader that `vv.accelerate` gives it: run this file."""

from __future__ import annotations

from train_digits import evaluate, job

import vivace as vv


def main(time: str = "1m") -> None:
    """Choose a plan, then train by hand."""
    fast = vv.accelerate(job, time=time)
    model, optimizer, loader = fast
    with fast.running():
        for epoch in range(1, 6):
            for batch in loader:
                optimizer.zero_grad()
                loss = fast.loss(batch)
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {evaluate(model.eval()):.3f}")
            model.train()
    print(f"{fast.plan}: {fast.speedup}, parity {fast.parity and fast.parity.verdict.value}")


if __name__ == "__main__":
    main()
