"""A feed that leaves batches out is found, before the run or where an epoch ends, and is taken out alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import vivace as vv
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import Points, job


def test_a_feed_that_tells_fewer_batches_than_the_samples_make_is_found_before_the_run() -> None:
    found = vv.parity(job(), Plan((planted.LeftOutBatch(tells=True), FusedOptimizer())))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert found.reason == "batch of epoch 0 in step 0: there are 6, and its samples make 7"
    run = vv.train(job(), plan=Plan((planted.LeftOutBatch(tells=True), FusedOptimizer())))
    assert str(run.plan) == "fused-optimizer" and run.steps == 21


def test_a_feed_that_leaves_batches_out_silently_is_taken_out_alone_where_the_epoch_ends(tmp_path: Path) -> None:
    plan = Plan((planted.LeftOutBatch(), FusedOptimizer()))
    assert vv.parity(job(), plan).verdict is QualityVerdict.HELD

    found = vv.train(job(), plan=plan, out=tmp_path / "run")

    plain = vv.train(job(), plan=["fused-optimizer"], out=tmp_path / "plain")
    assert str(found.plan) == "fused-optimizer"
    assert (found.steps, found.losses) == (21, plain.losses)
    (told,) = found.dropped
    assert "batch of epoch 0 in step 6: there were 6, and its samples make 7" in told
    assert f"{planted.LeftOutBatch()} was taken out, and it was trained with fused-optimizer from the beginning" in told


def test_the_run_goes_on_from_before_the_epoch_that_lacks_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("vivace.api.running.drive.PATIENCE_SECONDS", 1e-6)
    plan = Plan((planted.LeftOutBatch(after=2), FusedOptimizer()))

    found = vv.train(job(epochs=4), plan=plan, out=tmp_path)

    assert str(found.plan) == "fused-optimizer" and found.steps == 28
    assert "batch of epoch 2 in step 20: there were 6, and its samples make 7" in found.dropped[0]
    assert found.dropped[0].endswith("trained with fused-optimizer from step 14 on")
    assert found.losses == pytest.approx(vv.train(job(epochs=4), plan=["fused-optimizer"]).losses, rel=1e-6)


def test_a_feed_alone_leaves_the_original() -> None:
    found = vv.train(job(data=Points(64), evaluate=None), plan=Plan((planted.LeftOutBatch(number=3),)))

    assert str(found.plan) == "original" and found.steps == 12
