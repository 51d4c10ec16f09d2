"""A small network trained on handwritten digits, its job, and digits that neither has seen."""

import dataclasses

import torch
from sklearn.datasets import load_digits
from torch import nn

from vivace.core.facts import Fact
from vivace.core.work import Lesson, Work
from vivace.data import samples
from vivace.measure import gate
from vivace.runtimes import capture, eager, store
from vivace.testing import contract

TRAINED, CALIBRATED = slice(0, 600), slice(600, 800)
JUDGED = slice(800, None)
BUDGET = 0.01
"""One point of accuracy."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A network trained on handwritten digits, its job, and the digits that neither has seen."""

    model: object
    work: object
    images: torch.Tensor
    labels: torch.Tensor

    def right(self, model):
        """1 for each digit that is told right."""
        return (eager.run_flat(model.program, [self.images])[0].argmax(1) == self.labels).float()

    def verdict(self, model, rule):
        return gate.judge_scores(self.right(self.model), self.right(model), BUDGET, gate=rule).verdict

    def with_loss(self, loss, targets=None):
        """The job with a user's loss and labels."""
        given = self.targets if targets is None else targets
        return dataclasses.replace(self.work, lesson=Lesson(loss, given))

    @property
    def targets(self):
        return list(digits()[1][CALIBRATED].split(20))


def digits():
    """Images [N, 64] and labels, shuffled once."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(bunch.data, dtype=torch.float32)[order] / 16, torch.tensor(bunch.target)[order]


def trained_network():
    """A network trained on the first digits, the same one each time."""
    x, y = (part[TRAINED] for part in digits())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU()),
            *(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
        for _ in range(40):
            for rows in torch.randperm(len(x)).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    return net.eval()


def job_of(net, folder):
    """The job of a network, captured and stored in a folder."""
    x, y = digits()
    found = capture.capture(net, (x[:20],), varying=[frozenset({0})])
    store.save(found.model, folder / "original")
    model = store.read_model(folder / "original")
    calls = [[part] for part in x[CALIBRATED].split(20)]
    calibration = samples.write(folder / "calibrate", calls, model.signature.call, 1)
    facts = frozenset({Fact.CALIBRATION, Fact.HAS_LINEAR, Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.RUNNABLE})
    work = Work("digits", model.signature, facts, contract.SAMPLE_COST, folder, calibration)
    return Job(model, dataclasses.replace(work, original=folder / "original"), x[JUDGED], y[JUDGED])
