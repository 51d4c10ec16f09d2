"""One arm of the training benchmark in a process of its own, which prints one line of JSON.

python arm.py WORKLOAD choose TIME           the plan that vivace.train finds, with its proof
python arm.py WORKLOAD vivace SEED EPOCHS PLAN
python arm.py WORKLOAD ARM SEED EPOCHS       the same training as somebody else writes it
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic_core import to_json

import vivace as vv
from prepare import NotAvailable
from vivace.codegen.build import LIBRARIES
from vivace.core.training.parity import Parity


def choose(workload: Any, time: str, seeds: str) -> dict[str, Any]:
    """The plan for a workload: one search, then its losses over seeds."""
    job = workload.job(0)
    run = vv.train(job, until=-1e9, time=time)  # one epoch; what pays is asked of all of them
    found = {
        "plan": run.plan.to_json(), "plan_name": str(run.plan), "search_seconds": run.search_seconds,
        "step_speedup": dataclasses.asdict(run.speedup) if run.speedup else None,
        "diagnosis": dataclasses.replace(run.diagnosis, advice=()),
        "trials": [
            {"plan": str(one.plan), "outcome": one.outcome.value, "accepted": one.accepted, "reason": one.reason,
             "speedup": one.speedup and one.speedup.value} for one in run.trials
        ],
    }  # fmt: skip
    if len(run.plan) and int(seeds) > 1:
        proof = vv.parity(job, run.plan, seeds=int(seeds), curve_steps=workload.COMPARED_STEPS)
        found["parity"] = told(proof)
    return found


def told(proof: Parity | None) -> dict[str, Any] | None:
    """A proof's verdicts: of tensors, of losses and of scores over seeds."""
    if proof is None:
        return None
    curves = {
        name: {"verdict": one.verdict.value, "difference": dataclasses.asdict(one.difference), "margin": one.margin}
        for name, one in (("losses", proof.curve), ("scores", proof.scores))
        if one is not None
    }
    return {"verdict": proof.verdict.value, "reason": proof.reason, "reference": proof.reference, **curves}


def ours(workload: Any, seed: str, epochs: str, plan: str) -> dict[str, Any]:
    """A training by `vivace.train` with a plan that was chosen before; its gradients are proved again. It is compiled
    where it trains, so that compiling is in what comes before the first step."""
    os.environ[LIBRARIES] = ""
    job = dataclasses.replace(workload.job(int(seed)), epochs=int(epochs))
    run = vv.train(job, plan=json.loads(plan))
    return {
        "prepare_seconds": run.prepare_seconds, "epoch_seconds": list(run.epoch_seconds), "scores": list(run.scores),
        "peak_bytes": run.peak_bytes, "plan_name": str(run.plan), "parity": told(run.parity),
    }  # fmt: skip


def main(name: str, arm: str, *rest: str) -> None:
    warnings.simplefilter("ignore")
    workload = importlib.import_module(f"trainings.{name}")
    try:
        if arm == "choose":
            found = choose(workload, *rest)
        elif arm == "vivace":
            found = ours(workload, *rest)
        else:
            found = workload.ARMS[arm](*map(int, rest)).document()
    except NotAvailable as error:
        found = {"left_out": str(error)}
    print(to_json(found).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
