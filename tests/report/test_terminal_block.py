"""The final block: a golden text, its size, and what it must not leave out."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from report.conftest import Openvino, Threads, comparison
from vivace.core.attribution import Attribution
from vivace.core.forecast import Forecast
from vivace.core.measurement import Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Fidelity, Quality, QualityVerdict
from vivace.core.result import Result, Trial, TrialStage
from vivace.core.workload import Objective
from vivace.report.results import to_document
from vivace.report.terminal import MAX_LINES, comparison_block, preview_block, print_block, print_result

GOLDEN = """\
2.31x faster [2.27, 2.35] than the original, MEASURED; quality HELD: drop 0.12
pp, upper bound 0.41 < budget 1.0 pp (n=550); artifact fast/
plan: threads(count=1) + openvino(precision=bf16)

#  speed-up            median ms  p90/p99 ms    memory  size    quality
0  1x                  2.77       3.05 / n=320  210 MB  -       reference
1  2.31x [2.27, 2.35]  1.20       1.32 / 1.80   210 MB  1.2 MB  HELD
  0 original
  1 threads(count=1) + openvino(precision=bf16)
  p99 not estimable (n=320): it needs 473 calls
gain over the original 2.31x [2.27, 2.35]; over the best plain rung
(threads(count=1)) 1.78x
break-even: 2,345 calls pay for building (3s), loading and the first call
each technique, MEASURED in one pair of processes (the whole plan: confirmed):
  so far               with / without it    technique
  1.30x [1.28, 1.32]   -                    threads(count=1); crashed: SIGSEGV …
  2.31x [2.27, 2.35]   1.78x [1.72, 1.84]   openvino(precision=bf16)
ladder of plain PyTorch, speeds from the race:
  1.30x [1.28, 1.32]   threads(count=1)

tried 5 in 1m58s: 2 ok, 1 unsupported, 1 crashed, 1 not faster
not chosen, speeds from the race:
  crashed         openvino(precision=f16): SIGSEGV while converting
  SLOWER          0.92x [0.90, 0.94]  openvino(precision=f32): below the leader
  unsupported     openvino(precision=int8): needs calibration data

conditions: 40 paired blocks in 3 pairs of fresh processes; noise floor 0.8%;
AMD EPYC, 2 cores allowed; torch 2.13.0; seed 0
next: python -c "import vivace as vv; model = vv.load('fast')"
"""


@pytest.fixture(autouse=True)
def _nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed of an artifact depends on the files that lie where it is said to be."""
    monkeypatch.chdir(tmp_path)


def printed(result: Result, width: int = 80) -> str:
    stream = io.StringIO()
    print_result(Console(file=stream, width=width, markup=False, highlight=False), result)
    return stream.getvalue()


def test_a_faster_result_prints_the_golden_block(result: Result) -> None:
    assert printed(result) == GOLDEN


def test_techniques_none_of_which_was_measured_take_one_line(result: Result) -> None:
    assert result.attribution is not None
    *steps, last = result.attribution.steps
    untold = [dataclasses.replace(step, speedup=None, reason="no time was left") for step in steps]
    left_out = [
        dataclasses.replace(part, worth=None, reason="no time was left") for part in result.attribution.left_out
    ]
    found = Attribution((*untold, last), tuple(left_out))

    lines = printed(dataclasses.replace(result, attribution=found)).splitlines()

    assert "each technique: not measured: no time was left" in lines
    assert not any("so far" in line for line in lines)


def test_the_reason_of_most_techniques_is_told_first(result: Result) -> None:
    assert result.attribution is not None
    *steps, last = [dataclasses.replace(step, speedup=None) for step in result.attribution.steps]
    first, *rest = [dataclasses.replace(part, worth=None) for part in result.attribution.left_out * 2]
    told = [
        dataclasses.replace(first, reason="not legal"),
        *(dataclasses.replace(one, reason="no time") for one in rest),
    ]
    found = Attribution((*steps, last), tuple(told))

    assert (
        "each technique: not measured: no time; not legal"
        in printed(dataclasses.replace(result, attribution=found)).splitlines()
    )


def test_a_crowded_result_still_fits_40_lines_of_80_signs(crowded: Result) -> None:
    lines = printed(crowded).splitlines()
    assert len(lines) <= MAX_LINES
    assert max(len(line) for line in lines) <= 80


def test_a_crowded_result_says_how_many_were_left_out(crowded: Result) -> None:
    assert "more, each with its reason, in results.json" in printed(crowded)


def test_too_few_samples_are_said_first_with_how_many_would_decide(uncertified: Result) -> None:
    first = " ".join(printed(uncertified).splitlines()[:4])
    assert first.startswith(
        "kept the original: the quality of another plan could not be certified; openvino(precision=f32) (0.92x"
    )
    assert "quality CANNOT TELL" in first
    assert "about 298 samples like these would decide" in first


def test_nothing_faster_is_said_in_the_first_line(nothing: Result) -> None:
    assert printed(nothing).startswith("kept the original: nothing faster was found")


def test_a_plan_that_could_not_run_is_told_with_its_whole_reason_and_no_advice_to_wait(nothing: Result) -> None:
    why = "ImportError: libcudart.so.12: cannot open shared object file; install it or leave this technique out"
    stopped = dataclasses.replace(nothing.candidates[2], outcome=Outcome.CONVERT_FAILED, speedup=None, reason=why)
    found = " ".join(printed(dataclasses.replace(nothing, candidates=(stopped,))).split())

    assert why in found
    assert "next: see above what stopped each plan" in found
    assert "more time" not in found


def test_no_colour_and_no_escape_where_there_is_no_terminal(result: Result) -> None:
    assert "\x1b" not in printed(result)


def test_a_terminal_gets_colour(result: Result) -> None:
    stream = io.StringIO()
    print_result(Console(file=stream, width=80, force_terminal=True, color_system="standard", no_color=False), result)
    assert "\x1b[1;32m" in stream.getvalue()


def test_no_color_is_obeyed_on_a_terminal(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    print_result(Console(file=stream, width=80, force_terminal=True, color_system="standard"), result)
    assert "\x1b[1;32m" not in stream.getvalue()
    assert "32m" not in stream.getvalue()


def test_a_stream_that_knows_ascii_only_is_not_broken(crowded: Result) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_result(Console(file=stream, width=80), crowded)
    stream.seek(0)
    assert "2.31x faster" in stream.read()


def test_a_plan_name_with_markup_is_printed_as_it_is(result: Result) -> None:
    hostile = dataclasses.replace(result.candidates[2], reason="[bold]not[/bold] [red]markup")
    found = printed(dataclasses.replace(result, candidates=(*result.candidates, hostile)))
    assert "[bold]not[/bold] [red]markup" in found


def test_fidelity_without_labels_is_said(result: Result) -> None:
    quality = Quality(QualityVerdict.HELD, "fidelity", 64, 0.01, fidelity=Fidelity(41, 1, 30, 0.998, 0.992, 64))
    first = " ".join(printed(dataclasses.replace(result, quality=quality)).splitlines()[:3])
    assert "quality HELD by fidelity: top-1 agreement 99.80% (at least 99.20%), SQNR 41 dB, n=64" in first


def test_a_verdict_that_the_bound_does_not_carry_names_its_basis(result: Result) -> None:
    quality = dataclasses.replace(result.quality, drop_upper=0.02, basis="float64 referee")
    assert "upper bound 2.00 >= budget 1.0 pp, held by float64" in " ".join(
        printed(dataclasses.replace(result, quality=quality)).splitlines()[:3]
    )


def test_the_memory_objective_puts_memory_first(result: Result) -> None:
    found = printed(dataclasses.replace(result, conditions={"objective": "memory"}))
    assert found.startswith("peak memory 210 MB, the original 210 MB, MEASURED; 2.31x faster")


def test_every_outcome_is_counted(result: Result) -> None:
    trials = tuple(result.candidates[2].replace(outcome=outcome) for outcome in Outcome)
    found = " ".join(printed(dataclasses.replace(result, candidates=trials)).split())
    assert "tried 14 in 1m58s: 1 ok, 1 unsupported, 1 convert failed" in found


def test_a_loser_whose_race_reads_faster_says_why_it_lost(result: Result) -> None:
    loser = next(trial for trial in result.candidates if trial.outcome is Outcome.NOT_FASTER)
    race = Interval(40.0, 30.0, 50.0)
    faster = loser.replace(outcome=Outcome.OK, reason="", speedup=race, standing=2.0)
    others = [trial.replace(standing=2.3) if trial.plan == result.plan else trial for trial in result.candidates]
    candidates = tuple(faster if trial.plan == loser.plan else trial for trial in others)

    text = printed(dataclasses.replace(result, candidates=candidates))

    assert "40.0x [30.0, 50.0]  openvino(precision=f32): slower in races" in text


LONG = Plan.of([Threads(count) for count in range(12)])
RACED = Trial(LONG, Outcome.OK, TrialStage.SEARCH, speedup=Interval(24.6, 11.0, 158.0), standing=2.0)
FINALIST = Trial(LONG, Outcome.OK, TrialStage.FINALIST, speedup=Interval(2.3, 2.2, 2.4))


@pytest.mark.parametrize(
    ("loser", "conditions", "told"),
    [
        (RACED, {}, "slower in races among candidates"),
        (RACED.replace(standing=3.0), {}, "not confirmed: no time, or no place among the finalists, was left"),
        (RACED.replace(standing=None, speedup=Interval(24.6, 1.5, 158.0)), {}, "its race is sure of 1.50x alone"),
        (RACED.replace(speedup=Interval(1.5, 1.4, 1.6), standing=1.5), {}, "slower in the race than the winner"),
        (RACED.replace(peak_memory_bytes=333_000_000), {"objective": "memory"}, "with 333 MB of memory in the race"),
        (FINALIST.replace(confirmed=comparison(2.1, 2.2, 2.3)), {}, "confirmed slower than the winner"),
        (FINALIST.replace(confirmed=comparison(2.2, 2.28, 2.4)), {}, "confirmed slower than the winner, within its"),
        (FINALIST.replace(confirmed=comparison(2.2, 2.32, 2.4)), {}, "as fast as the winner, which changes less"),
        (FINALIST.replace(confirmed=comparison(0.9, 1.0, 1.1, SpeedVerdict.SAME)), {}, "confirmed SAME beside the"),
        (FINALIST.replace(confirmed=comparison(2.1, 2.2, 2.3)), {"calls": 9}, "loading it and all calls take longer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [80, 100])
def test_no_name_is_too_long_for_the_reason_why_its_plan_was_not_chosen(
    result: Result, loser: Trial, conditions: dict[str, object], told: str, width: int
) -> None:
    winner = next(trial for trial in result.candidates if trial.plan == result.plan)
    shown = [winner.replace(plan=Plan.of([Openvino(name)]), confirmed=comparison(2.4, 2.5, 2.6)) for name in "ab"]
    candidates = (winner.replace(standing=2.3), *shown, *[loser] * 2)
    given = dataclasses.replace(result, candidates=candidates, conditions=conditions)

    block = printed(given, width)

    losers = block[block.index("not chosen") :].split("\n  ok ")[1:]
    assert [told in " ".join(one.split("conditions")[0].split()) for one in losers] == [True, True]
    assert all(len(line) <= width for line in block.splitlines())
    assert [told in one.reason for one in to_document(given).candidates[-2:]] == [True, True]


def test_a_loser_whose_quality_could_not_be_told_is_called_so_before_its_name(result: Result) -> None:
    told = "about 680 samples like these would decide"
    unsure = Quality(QualityVerdict.CANNOT_TELL, "3 of 364", 364, 0.01, reason=told)
    one = next(trial for trial in result.candidates if trial.outcome is Outcome.NOT_FASTER)
    faster = one.replace(outcome=Outcome.OK, reason="", quality=unsure)

    block = printed(
        dataclasses.replace(result, candidates=(*(t for t in result.candidates if t is not one), faster)), 120
    )

    (line,) = (line for line in block.splitlines() if "quality unsure" in line)
    assert "about 680 samples like these would decide" in line


def test_a_comparison_says_who_is_faster_and_what_is_not_estimable(result: Result) -> None:
    stream = io.StringIO()
    print_block(Console(file=stream, width=80), comparison_block(result.comparison, "work.py:digits", "fast"))
    assert stream.getvalue().startswith("B is 2.31x faster [2.27, 2.35] than A, MEASURED\n")
    assert "p99 not estimable (n=320)" in stream.getvalue()


def test_a_dry_run_labels_every_speed_as_predicted(forecast: Forecast) -> None:
    stream = io.StringIO()
    print_block(Console(file=stream, width=80), preview_block(forecast))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "25 plans would be tried, in this order if each goes as PREDICTED"
    assert lines[2] == "1   1.50x     11s    threads(count=1) + openvino(precision=bf16)"
    assert lines[-6:] == [
        "and 5 more (--json lists all)",
        "PREDICTED in all: 1m23s of the 2m allowed, and up to 5.2 MB of disk for programs",
        "while it runs",
        "left out:",
        "  tf32: needs a CUDA device",
        "note: fixed",
    ]


def previewed(forecast: Forecast, width: int = 80) -> list[str]:
    stream = io.StringIO()
    print_block(Console(file=stream, width=width), preview_block(forecast))
    return stream.getvalue().splitlines()


def test_a_long_name_gives_way_and_the_numbers_of_a_dry_run_stay_whole(forecast: Forecast) -> None:
    long = Plan(forecast.plans[0].plan.techniques * 5)
    found = previewed(dataclasses.replace(forecast, plans=(dataclasses.replace(forecast.plans[0], plan=long),) * 12))

    assert found[1].split() == ["#", "speed-up", "takes", "plan"]
    assert [line.split()[:3] for line in found[2:] if line[:2].strip().isdigit()] == [
        [str(number), "1.50x", "11s"] for number in range(1, 13)
    ]
    assert "".join(found).count("threads(count=1)") == 12 * 5
    assert max(map(len, found)) <= 80
    assert not any("…" in line for line in found)


def test_a_long_target_gives_way_and_the_numbers_of_a_comparison_stay_whole(result: Result) -> None:
    stream = io.StringIO()
    print_block(Console(file=stream, width=80), comparison_block(result.comparison, "folder/" * 20 + "a.py:b", "fast"))

    (first,) = [line for line in stream.getvalue().splitlines() if line.startswith("A folder/")]
    assert first.split()[-8:] == ["2.77", "3.05", "/", "n=320", "24.93", "0.50", "210", "MB"]


def test_one_plan_is_no_plans(forecast: Forecast) -> None:
    found = previewed(dataclasses.replace(forecast, plans=forecast.plans[:1]))

    assert found[0] == "1 plan would be tried; its numbers are PREDICTED"


@pytest.mark.parametrize("objective", [Objective.MEMORY, Objective.SIZE])
def test_a_dry_run_for_bytes_predicts_those_of_the_weights(forecast: Forecast, objective: Objective) -> None:
    plans = (dataclasses.replace(forecast.plans[0], weight_bytes=5_000_000),)

    found = previewed(dataclasses.replace(forecast, plans=plans, objective=objective))

    assert found[1].split() == ["#", "speed-up", "weights", "takes", "plan"]
    assert found[2].startswith("1  1.50x     5.0 MB   11s    threads")


def test_a_note_is_told_to_its_end(nothing: Result) -> None:
    told = "openvino is faster a call, but loading it and 1 call take 2.31 s and the original's 0.004 s"

    found = printed(dataclasses.replace(nothing, notes=(told,)))

    assert f"note: {told}" in " ".join(found.split())


def test_the_memory_is_the_confirmed_one_where_there_is_one(result: Result) -> None:
    last = result.candidates[-1]
    raced = (*result.candidates[:-1], last.replace(peak_memory_bytes=333_000_000))

    row = next(line for line in printed(dataclasses.replace(result, candidates=raced)).splitlines() if line[:1] == "1")

    assert "210 MB" in row
    assert "333 MB" not in row


@pytest.mark.parametrize(
    ("conditions", "candidates", "told"),
    [
        ({"calls": 1}, slice(None), "next: keep a loaded model for more calls (--calls)"),
        ({"objective": "memory", "seconds_allowed": 60.0}, slice(None), "(--time 3m) or another objective"),
        ({"seconds_allowed": 10.0}, slice(0), "next: give more time (--time 30s); the artifact is the original"),
        ({}, slice(0, 2), "next: give more time (--time 15m) or another objective"),
    ],
)
def test_what_to_do_next_fits_why_the_original_was_kept(
    nothing: Result, conditions: dict[str, object], candidates: slice, told: str
) -> None:
    kept = dataclasses.replace(nothing, conditions=conditions, candidates=nothing.candidates[candidates])

    found = " ".join(printed(kept).split())

    assert told in found
    assert ("more time" in found) == ("calls" not in conditions)


def test_a_winner_that_saves_no_time_never_breaks_even(result: Result) -> None:
    found = printed(dataclasses.replace(result, break_even_calls=None))
    assert "break-even: never, for no time is saved a call" in found


def test_a_plan_of_one_technique_needs_no_attribution_lines(result: Result) -> None:
    one = Attribution(result.attribution.steps[:1], result.attribution.left_out[:1])  # type: ignore[union-attr]
    assert "technique by technique" not in printed(dataclasses.replace(result, attribution=one))


def test_the_page_of_an_artifact_is_named_before_the_next_step(result: Result, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    lines = printed(dataclasses.replace(result, artifact=tmp_path), 400).splitlines()
    assert lines[-2] == f"report: {tmp_path}/report.html"
    assert lines[-1].startswith("next: ")
