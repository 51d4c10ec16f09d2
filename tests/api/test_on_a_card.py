"""On a CUDA device: a model that lies there is made faster there, and a training is timed until the card is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.train import diagnose
from vivace.core.measurement import SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.core.result import Status

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inward, outward in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_a_model_on_the_card_gets_a_faster_artifact_that_answers_there(tmp_path: Path) -> None:
    model, x = network().cuda(), torch.randn(4, 3, 32, 32).cuda()
    work = vv.Workload(model, inputs=(x,), name="on-card")

    result = vv.optimize(work, time="150s", out=tmp_path / "fast")

    assert result.status is Status.FASTER, [(str(t.plan), t.outcome, t.reason) for t in result.candidates]
    assert result.speedup.low > 1
    answer = vv.load(tmp_path / "fast", trust=True)(x)
    assert answer.is_cuda
    torch.testing.assert_close(answer, model(x), rtol=0.05, atol=0.05)


def test_the_report_of_a_card_has_its_own_ceiling(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048)).cuda().eval()
    work = vv.Workload(model, inputs=(torch.randn(512, 2048).cuda(),), name="wide")

    result = vv.optimize(work, time="150s", out=tmp_path / "fast")

    assert result.compute is not None
    assert result.compute.original.device == result.compute.winner.device == "cuda"
    assert 0 < result.compute.original.share < 1.2


def test_two_models_on_the_card_are_compared_there() -> None:
    small, large = nn.Linear(1024, 1024).cuda(), nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(16))).cuda()

    found = vv.measure(large, small, inputs=(torch.randn(64, 1024).cuda(),))

    assert found.verdict is SpeedVerdict.FASTER


def test_a_captured_step_trains_the_same_and_is_timed_until_the_card_is_done() -> None:
    from vivace.core.plan import Plan
    from vivace.techniques.memory.fused_optimizer import FusedOptimizer
    from vivace.techniques.target.captured_step import CapturedStep

    job = training()
    proof = vv.parity(job, Plan.of([FusedOptimizer(), CapturedStep()]))

    assert proof.verdict is QualityVerdict.HELD, proof.reason


def test_a_diagnosis_of_a_card_finds_what_launching_costs() -> None:
    found = diagnose(training())

    assert found.device == "cuda"
    assert found.ceiling_gflops is not None and found.ceiling_gflops > 5000
    assert 0 < found.overhead_seconds < found.step_seconds


def training() -> vv.Training:
    images, labels = torch.randn(512, 3, 16, 16), torch.randint(0, 10, (512,))
    return vv.Training(
        model=_on_card, loss=_loss, optimizer=_sgd, data=torch.utils.data.TensorDataset(images, labels), batch_size=64,
        epochs=2, name="on-card",
    )  # fmt: skip


def _on_card() -> nn.Module:
    return network().train().cuda()


def _loss(model: nn.Module, batch: Any) -> torch.Tensor:
    images, labels = (one.cuda() for one in batch)
    return nn.functional.cross_entropy(model(images), labels)


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
