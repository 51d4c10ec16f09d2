"""The arithmetic and the table of the training benchmark on planted runs; an epoch of the loops beside ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import training
import training_table
import vivace as vv
from trainings import arm, gpt, mnist, photos
from vivace.core.training.bound import StepBound


def ran(*epochs: float, prepare: float = 0.5, scores: tuple[float, ...] = (0.8, 0.92, 0.96)) -> dict[str, Any]:
    return {"prepare_seconds": prepare, "epoch_seconds": [*epochs], "scores": [*scores], "peak_bytes": 10**8}


def test_compilation_is_told_apart_and_is_in_the_totals() -> None:
    found = dict(training.figures(ran(3.0, 1.0, 1.0, 1.0, 1.0, scores=(0.8, 0.92, 0.96, 0.96, 0.97)), target=0.95))

    assert found["epoch_seconds"] == 1.0
    assert found["compile_seconds"] == 2.5
    assert (found["total_5_seconds"], found["total_20_seconds"]) == (7.5, None)
    assert found["to_target_seconds"] == 5.5


def test_a_target_that_was_not_reached_has_no_time() -> None:
    assert dict(training.figures(ran(1.0, 1.0, 1.0), target=0.99))["to_target_seconds"] is None


def test_ratios_are_paired_by_seed() -> None:
    found = training.ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])

    assert found == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert training.ratio([2.0, None], [1.0, 1.0]) is None


def planted() -> dict[str, Any]:
    chosen = {
        "diagnosis": {"flops": 1e6}, "plan_name": "threads(count=1)", "search_seconds": 30.0,
        "parity": {"verdict": "HELD", "losses": {"verdict": "HELD"}},
    }  # fmt: skip
    runs: dict[tuple[str, int], dict[str, Any]] = {("choose", 0): chosen}
    for seed in (0, 1):
        runs["vivace", seed] = {**ran(2.0, 1.0, 1.0), "parity": {"verdict": "HELD"}}
        runs["pytorch-tutorial", seed] = ran(5.0, 5.0, 5.0, prepare=0.0)
        runs["keras-jax", seed] = {"left_out": "No module named 'jax'"}
    found = training.summary(mnist, "mnist", runs, 2, {"1": 50.0, "2": 100.0})
    machine = {"processor": "a processor", "cores": 2, "versions": "torch 2"}
    return {**found, "machine": machine, "date": "2026-11-25"}


def test_the_table_has_every_arm_and_says_what_was_left_out() -> None:
    text = training_table.table([planted()])

    assert "| mnist | vivace | 1 ± 0 | 1.5 ± 0 |" in text
    assert "**5.00** [5.00, 5.00]" in text
    assert "left out: No module named 'jax'" in text
    assert "gradients HELD in 2 of 2 runs, losses HELD" in text


def test_an_arm_that_failed_with_a_seed_is_left_out_rather_than_paired_with_others() -> None:
    found = training.of_arm([ran(1.0, 1.0, 1.0), {"left_out": "it took longer than 3600 s"}], target=0.95)

    assert found == {"left_out": "1 of 2 runs: it took longer than 3600 s"}


def test_every_run_begins_with_empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr(training, "started", lambda command, variables: given.append(variables) or {})
    bench = training.Bench("mnist", training.QUICK, "python", None, tmp_path)

    for seed in (0, 1):
        bench.one("pytorch-tutorial", seed)

    assert all(one["TORCHINDUCTOR_CACHE_DIR"].startswith(one["XDG_CACHE_HOME"]) for one in given)
    assert given[0]["XDG_CACHE_HOME"] != given[1]["XDG_CACHE_HOME"]


def test_the_table_goes_between_its_own_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- training results: begin (x) -->\nold\n<!-- training results: end -->\nb\n")
    training_table.write([page], tmp_path)

    assert "No results yet" in page.read_text()
    assert "old" not in page.read_text() and page.read_text().startswith("a\n") and page.read_text().endswith("b\n")


def test_the_readme_has_the_marks() -> None:
    for page in ("README.md", "README.zh.md"):
        assert training_table.MARKED.search((training_table.ROOT / page).read_text())


def test_the_loops_beside_ours_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt, "STEPS_AN_EPOCH", 8)
    small, characters = mnist.pytorch(0, 2), gpt.eager(0, 1)

    assert len(small.epoch_seconds) == len(small.scores) == 2
    assert small.scores[-1] > 0.4
    assert -4.6 < characters.scores[0] < -2
    assert characters.document()["peak_bytes"]


@pytest.mark.slow
def test_what_choosing_a_plan_prints_is_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = torch.Generator().manual_seed(0)
    data = [(torch.randn(16, 8, generator=made), torch.randint(3, (16,), generator=made)) for _ in range(8)]

    def job(seed: int) -> vv.Training:
        return vv.Training(
            model=lambda: torch.nn.Linear(8, 3),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
            data=data,
            evaluate=lambda model: 0.0,
            seed=seed,
        )

    monkeypatch.setitem(sys.modules, "trainings.planted", SimpleNamespace(job=job, ARMS={}, COMPARED_STEPS=4))
    arm.main("planted", "choose", "5s", "1")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert found["diagnosis"]["flops"] > 0
    assert found["diagnosis"]["bound"] in {one.value for one in StepBound}
    assert isinstance(found["trials"], list) and found["plan_name"]


def test_photographs_are_made_once_and_held_out_digits_are_in_none_that_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setattr(photos, "WORK", tmp_path)
    monkeypatch.setattr(photos, "TRAINED", 6)
    monkeypatch.setattr(photos, "HELD_OUT", 3)
    trained, held_out = photos.files()
    pixels, _ = photos.Photographs(trained)[0]

    assert photos.files() == (trained, held_out)
    assert not {path for path, _ in trained} & {path for path, _ in held_out}
    assert pixels.shape == (3, photos.SIDE, photos.SIDE) and bool(torch.isfinite(pixels).all())
