"""What several processes train with: techniques beside a layout are proved as in one, then raced with all ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from together import contrastive, ranks, wide_job

import vivace as vv
from vivace.core.errors import UsageError
from vivace.core.measurement import Outcome, SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.report.training import headline, training_document
from vivace.testing.tiny_training import image_job, job

pytestmark = [pytest.mark.timeout(290), pytest.mark.slow]

BESIDE = [
    ("data=2", ["recorded-step"]),
    ("data=2", [{"technique": "compiled-training", "settings": {"scope": "step"}}]),
    ("data=2", ["fused-optimizer", {"technique": "compiled-training", "settings": {"scope": "loss"}}]),
    ("data=2", ["gradient-accumulation"]),
    ("data=2", ["bfloat16"]),
    ("shard=2", ["fused-optimizer"]),
    ("shard=2", ["activation-checkpointing", "bfloat16"]),
    ("tensor=2", ["bfloat16"]),
    ("pipeline=2", ["fused-optimizer"]),
]


@pytest.mark.parametrize(("layout", "plan"), BESIDE, ids=str)
def test_a_technique_beside_a_layout_trains_as_one_process(layout: str, plan: Any) -> None:
    proof = vv.parity(wide_job(), plan, layout=layout, steps=2)

    assert proof.verdict is QualityVerdict.HELD, proof.reason
    assert ranks() == []


def test_the_masks_of_a_layout_are_compared_apart_where_a_technique_draws_others() -> None:
    proof = vv.parity(job(), ["recorded-step"], layout="data=2", steps=2)

    assert proof.verdict is QualityVerdict.HELD, proof.reason
    assert "dropout is off while gradients are compared" in proof.notes
    assert "with dropout on, one more step compares the masks of data-parallel with those of one process" in proof.notes


@pytest.mark.parametrize(
    ("work", "plan", "told"),
    [
        (image_job, ["recorded-step"], "batch normalization takes its statistics of all processes in the midst of a"),
        (job, ["gradient-accumulation"], "the model has dropout, whose masks would be drawn for parts of a process's"),
    ],
    ids=["batch norm", "dropout"],
)
def test_what_cannot_stand_beside_copies_of_this_model_says_why(work: Any, plan: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.parity(work(), plan, layout="data=2")


def test_losses_and_scores_over_seeds_are_those_of_one_process() -> None:
    proof = vv.parity(job(), layout="shard=2", seeds=3, curve_steps=20)

    assert proof.plan == "fully-sharded"
    assert proof.curve is not None and proof.scores is not None
    assert len(proof.curve.original) == len(proof.curve.plan) == len(proof.scores.plan) == 3
    assert [len(losses) for losses in proof.curve.plan] == [20, 20, 20]
    for one, many in zip(proof.curve.original, proof.curve.plan, strict=True):
        assert many == pytest.approx(one, rel=1e-3)
    assert proof.verdict is QualityVerdict.HELD, proof.reason


def test_a_layout_that_is_named_trains_and_its_techniques_are_raced_with_all_ranks(tmp_path: Path) -> None:
    run = vv.train(job(), processes=2, layout="shard=2", time="25s", only=["fused-optimizer", "recorded-step"],
                   out=tmp_path / "run")  # fmt: skip

    tried = {str(trial.plan): trial for trial in run.trials}
    assert tried["fully-sharded"].accepted and tried["fully-sharded"].seconds is not None
    assert tried["fused-optimizer + fully-sharded"].over == tried["fully-sharded"].plan
    assert tried["fully-sharded + recorded-step"].outcome is Outcome.UNSUPPORTED
    assert "layers that are whole on each process" in tried["fully-sharded + recorded-step"].reason
    assert "fully-sharded" in str(run.plan)
    assert run.parity is not None and run.parity.verdict is QualityVerdict.HELD
    assert run.comparison is not None and run.scaling is not None
    assert (run.scaling.processes, run.scaling.counts[0].layout) == (2, "shard=2")
    assert [one.place for one in run.ranks] == [{"shard": 0}, {"shard": 1}]
    assert sum(one.parameter_bytes for one in run.ranks) == run.diagnosis.parameter_bytes
    is_slower = run.comparison.verdict is SpeedVerdict.SLOWER
    assert is_slower == ("is SLOWER than in one process" in headline(training_document(run)))
    assert ranks() == []


def test_without_a_layout_one_process_competes_and_what_could_not_be_is_told(tmp_path: Path) -> None:
    run = vv.train(job(), processes=2, time="1s", only=["fused-optimizer"], out=tmp_path / "run")

    told = {str(trial.plan): trial for trial in run.trials}
    assert told["data-parallel"].speedup is not None
    assert told["tensor-parallel"].reason.startswith("tensor-parallel: no two linear layers follow each other")
    assert "2 is a dropout, whose masks" in told["pipeline-parallel"].reason
    assert told["fully-sharded"].outcome is Outcome.CANCELLED
    assert run.scaling is not None and run.scaling.counts[0].layout == "data=2"
    is_several = "data-parallel" in str(run.plan)
    assert len(run.ranks) == (2 if is_several else 0)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["scaling"]["counts"][0]["processes"] == 2
    assert "Several processes beside one" in (tmp_path / "run" / "report.html").read_text()


def test_a_job_that_no_layout_trains_as_one_process_does_is_trained_in_one(tmp_path: Path) -> None:
    run = vv.train(job(loss=contrastive), processes=2, time="1s", only=["fused-optimizer"], out=tmp_path / "run")

    told = {str(trial.plan): trial for trial in run.trials}
    assert told["data-parallel"].outcome is Outcome.QUALITY_FAILED
    assert "gradient of" in told["data-parallel"].reason
    assert (run.ranks, run.scaling) == ((), None)


def test_a_layout_that_is_named_and_trains_differently_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on several processes this job trains differently than on one: gradient of"):
        vv.train(job(loss=contrastive), processes=2, layout="data=2", out=tmp_path / "run")
