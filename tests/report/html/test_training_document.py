"""run.json reads back, old or new, damaged or not; and what a terminal is told of a training."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import planted_training_run
import pytest
from rich.console import Console

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.training.parity import Parity
from vivace.core.training.run import StepTrial, TrainingRun
from vivace.report.reading import read_run, read_training
from vivace.report.terminal import print_block
from vivace.report.training import RUN, training_block, training_document
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.precision.bfloat16 import Bfloat16

PLAN = Plan.of([ChannelsLast(), Bfloat16(), FusedOptimizer()])


def made_run(trials: int = 3) -> TrainingRun:
    """A training with so many trials, the last of which was kept, and long words everywhere."""
    refused = StepTrial(PLAN, Outcome.QUALITY_FAILED, None, 0.0, False, "gradient of " + "layer." * 40)
    kept = StepTrial(PLAN, Outcome.OK, Interval(1.3, 1.2, 1.4), 2.0, True)
    found = planted_training_run.diagnosis(notes=("a parameter never learns " * 4,) * 5)
    proof = Parity(str(PLAN), "rounded", "float64", QualityVerdict.HELD, "all of 36 tensors agree " * 3,
                   tuple(planted_training_run.agreements()))  # fmt: skip
    return TrainingRun(
        "a-job-with-a-name-that-is-rather-long", PLAN, found, (refused,) * (trials - 1) + (kept,),
        planted_training_run.comparison(), proof, 70.0, (2.0, 0.1), (0.5, 0.9), 960, 1.4, out=Path("run"),
        diagnosis_after=planted_training_run.diagnosis_after(), course=planted_training_run.course(),
    )  # fmt: skip


def printed(run: TrainingRun) -> str:
    stream = io.StringIO()
    print_block(Console(file=stream, width=80), training_block(run))
    return stream.getvalue()


def test_a_training_is_read_from_its_folder_and_from_a_file_of_any_name(tmp_path: Path) -> None:
    document = planted_training_run.rich()
    for name in (RUN, "kept.json"):
        (tmp_path / name).write_text(document.to_text())
    assert read_run(tmp_path) == read_run(tmp_path / RUN) == read_run(tmp_path / "kept.json") == document


def test_a_training_from_before_a_key_was_there_reads_back() -> None:
    node = json.loads(planted_training_run.rich().to_text())
    for name in ("out", "diagnosis_after", "noise_ratios", "break_even_steps", "course"):
        del node[name]
    del node["diagnosis"]["whole_seconds"]
    found = read_training(json.dumps(node))
    assert (found.diagnosis_after, found.course.spans, found.break_even_steps) == (None, (), None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"schema_version": 1, "diagnosis": 3}', "is not a result of schema 1: name: Field required"),
        ("[]", "it has no schema_version; give the run.json of a training"),
        ("nonsense", "is no JSON"),
        ('{"schema_version": 2}', "is of schema 2, and this version of Vivace reads up to 1"),
    ],
)
def test_a_damaged_training_is_refused_by_its_own_name(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / RUN).write_text(text)
    with pytest.raises(UsageError, match=rf"run\.json.*{re.escape(told)}"):
        read_run(tmp_path)


def test_a_run_is_its_document_and_the_other_way_round() -> None:
    run = made_run()
    found = read_training(training_document(run).to_text())
    assert (found.diagnosis, found.diagnosis_after, found.course) == (run.diagnosis, run.diagnosis_after, run.course)
    assert found.comparison == run.comparison
    assert found.parity is not None
    assert run.parity is not None
    assert found.parity.agreements == list(run.parity.agreements)


@pytest.mark.parametrize("trials", [1, 3, 60])
def test_the_terminal_is_told_in_fewer_than_40_plain_lines_of_80_signs(trials: int) -> None:
    lines = printed(made_run(trials)).splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_what_was_kept_is_told_whatever_else_was_tried() -> None:
    told = printed(made_run(60))
    assert re.search(r"^60 +1\.30x \[1\.20, 1\.40\] +kept", told, re.MULTILINE)
    assert "and 52 more, in run.json" in told
    assert "a step of the plan: 0.9 ms, bound by overhead: in 56% of a step no operator" in told


def test_a_terminal_is_told_where_the_page_is() -> None:
    assert "kept in run: model.safetensors, run.json, report.html" in printed(made_run())
    assert "report.html" not in printed(dataclasses.replace(made_run(), out=None))
