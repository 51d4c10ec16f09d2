"""Wrong input and bad days: one clear message, nothing half-written, the previous artifact intact."""

from __future__ import annotations

import errno
import json
import math
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.optimize import overrun
from vivace.api.request import run_folder
from vivace.core.errors import DiskFull, EnvironmentFault, UnsupportedModel, UsageError, VivaceError
from vivace.core.measurement import Outcome
from vivace.data import samples
from vivace.measure.clock import SystemClock
from vivace.report.duration import show_duration
from vivace.report.headline import headline
from vivace.report.results import to_document
from vivace.search.caches import CACHES
from vivace.search.journal import run_path
from vivace.testing.tiny import BRANCHING, NOISY, tiny

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(8, dtype=torch.long)


def network() -> nn.Module:
    return tiny("mlp").model()


def pairs(count: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 16, generator=generator), Y) for _ in range(count)]


def nan_metric(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.full((len(target),), math.nan)


def short_metric(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.ones(3)


def broken_metric(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    raise KeyError("logits")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that TorchScript has no future
def test_a_traced_model_is_refused_with_what_to_give_in_its_place() -> None:
    traced = torch.jit.trace(nn.Linear(16, 3), X)

    with pytest.raises(UsageError, match="which TorchScript made; allowed are"):
        vv.Workload(traced, inputs=(X,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "missing.onnx"}, "there is no model file at missing.onnx"),
        ({"model": "model.tflite"}, "allowed endings are .onnx, .pt2, .keras"),
        ({"model": 3}, "allowed are a torch.nn.Module and the path of a file"),
        ({"inputs": None}, "inputs is missing; give one example call"),
        ({"data": 5}, "allowed is an iterable of"),
        ({"data": None, "metric": vv.metrics.accuracy}, "a metric was given without data"),
        ({"data": pairs(), "metric": "accuracy"}, "allowed is a function"),
        ({"data": None, "loss": nn.functional.cross_entropy}, "a loss was given without data"),
        ({"data": pairs(), "loss": "mse"}, "allowed is a function .* -> scalar tensor"),
        ({"name": " "}, "allowed is a short text"),
        ({"mix": [((X,), 1.0)]}, "both inputs and mix were given"),
        ({"inputs": None, "mix": {"x": X}}, r"allowed is a list of pairs \(inputs, weight\)"),
        ({"inputs": None, "mix": [X]}, "entry 0 of mix is a torch.Tensor; allowed is a pair"),
        ({"inputs": None, "mix": [((X,), 0.5), ((X[:4],), -0.5)]}, "entry 1 of mix has the weight -0.5"),
        ({"inputs": None, "mix": [((X,), math.nan)]}, "entry 0 of mix has the weight nan"),
        ({"inputs": None, "mix": [((X,), 0.0), ((X[:4],), 0)]}, "the weights of mix sum to 0"),
        ({"inputs": None, "mix": [((X,), 1)] * 33}, "mix has 33 shapes; allowed are up to 32"),
    ],
)
def test_a_workload_that_cannot_work_is_refused_when_it_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vv.Workload(**{"model": network(), "inputs": (X,), **fields})


@pytest.mark.parametrize(
    ("drop", "message"), [(-0.1, "negative"), (math.nan, "finite"), (True, "finite"), ("1%", "finite")]
)
def test_a_budget_that_makes_no_sense_is_refused(drop: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vv.Budget(drop=drop)


SEVEN_BITS = {"technique": "onnx-dynamic-int8", "settings": {"reduce_range": True}}
"""Its products fit 16 bits on every processor, so that only the budget can refuse it."""


def optimize(out: Path, work: vv.Workload | None = None, **options: Any) -> Any:
    work = work or vv.Workload(network(), inputs=(X,), data=pairs(), metric=vv.metrics.accuracy)
    return vv.optimize(work, **{"time": "30s", "out": out, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["threds"]}, "unknown technique 'threds'; did you mean 'threads'"),
        ({"preset": "fast"}, "unknown preset 'fast'.*Known: default, quick, thorough"),
        ({"calls": 0}, "calls .* is 0; allowed is a whole number of calls, 1 or more"),
        ({"calls": 2.5}, "calls .* is 2.5; allowed is a whole number"),
        ({"calls": 10, "objective": "memory"}, "the objective is memory; leave one of them out"),
        ({"device": "gpu0"}, "unknown device 'gpu0'.*Known: auto, cpu, cuda"),
        ({"gate": "loose"}, "unknown gate 'loose'.*fidelity, point, strict"),
        ({"objective": "speed"}, "unknown objective 'speed'"),
        ({"time": "soon"}, "soon"),
        ({"time": "2s"}, "10 seconds or more"),
        ({"budget": 0.01}, "allowed is a vivace.Budget"),
    ],
)
def test_an_option_that_does_not_exist_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        optimize(tmp_path / "fast", **options)

    assert list(tmp_path.iterdir()) == []


class EarlyClock(SystemClock):
    """A clock that was read two minutes ago."""

    def now(self) -> float:
        return super().now() - 120.0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_ends_clearly_later_than_allowed_says_so_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["vivace.api.optimize"], "SystemClock", EarlyClock)

    result = optimize(tmp_path / "fast", time="10s")

    document = to_document(result)
    assert result.notes[0].startswith(f"it took {show_duration(result.wall_seconds)}, longer than the 10s allowed")
    assert any("longer than the 10s allowed" in note for note in json.loads(document.to_text())["notes"])
    kept = json.loads((tmp_path / "fast" / "results.json").read_text())
    assert any("longer than the 10s allowed" in note for note in kept["notes"])
    assert kept["conditions"]["seconds_allowed"] == 10.0
    assert headline(document) == "kept the original: no plan was tried, for the time was used up before"


@pytest.mark.parametrize(
    ("took", "allowed", "told"), [(14, 10, 0), (16, 10, 1), (305, 300, 0), (329, 300, 0), (331, 300, 1)]
)
def test_a_little_later_is_not_worth_a_word(took: float, allowed: float, told: int) -> None:
    assert len(list(overrun(took, allowed))) == told


@pytest.mark.parametrize("ending", [".onnx", ".pt2", ".keras"])
def test_a_model_file_that_holds_something_else_is_the_users_to_mend(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"garbage{ending}"
    file.write_bytes(b"no model at all " * 64)

    with pytest.raises(UsageError, match=f"garbage{ending}"):
        optimize(tmp_path / "fast", vv.Workload(file))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_a_cuda_device_that_is_not_there_is_an_environment_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="sees no CUDA device"):
        optimize(tmp_path / "fast", device="cuda")


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: vv.Workload(network(), inputs=(torch.randn(8, 9),)), r"fails on the example inputs.*float32\[8, 9\]"),
        (lambda: vv.Workload(network(), inputs=(X, X)), "2 positional arguments"),
        (lambda: vv.Workload(network(), inputs=(X,), data=[]), "data is empty"),
        (lambda: vv.Workload(network(), inputs=(X,), data=[X]), "batch 0 of data is a"),
        (lambda: vv.Workload(network(), inputs=(X,), data=[(X, None)], metric=vv.metrics.accuracy), "has no target"),
        (lambda: vv.Workload(network(), inputs=(X,), data=[(X, Y[:5])], metric=vv.metrics.accuracy), "5 targets"),
        (
            lambda: vv.Workload(network(), (X,), [(X.double(), Y)], vv.metrics.accuracy),
            "dtype torch.float64 in input 0",
        ),
        (lambda: vv.Workload(network(), (X,), [(X[:, :, None], Y)], vv.metrics.accuracy), "same number of dimensions"),
        (lambda: vv.Workload(network(), inputs=(X * math.nan,)), "answers with NaN"),
        (lambda: vv.Workload(NOISY.model(), inputs=NOISY.inputs()), "answers differently to the same input"),
    ],
    ids=[
        "shape",
        "arguments",
        "empty",
        "no pairs",
        "no target",
        "few targets",
        "data dtype",
        "data dimensions",
        "nan",
        "random",
    ],
)
def test_a_job_that_cannot_be_judged_is_refused_with_what_to_do(tmp_path: Path, work: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        optimize(tmp_path / "fast", work())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (nan_metric, "NaN"),
        (short_metric, "3 scores for"),
        (broken_metric, "the metric broken_metric failed on batch 0 of the select part: KeyError"),
    ],
)
def test_a_metric_that_misbehaves_is_told_as_such(tmp_path: Path, metric: Any, message: str) -> None:
    work = vv.Workload(network(), inputs=(X,), data=pairs(), metric=metric)

    with pytest.raises(UsageError, match=message):
        optimize(tmp_path / "fast", work)

    assert list(tmp_path.iterdir()) == []


def test_a_late_batch_of_another_shape_is_named(tmp_path: Path) -> None:
    batches = pairs()
    batches[7] = (torch.randn(8, 9), batches[7][1])
    work = vv.Workload(network(), inputs=(X,), data=batches, metric=vv.metrics.accuracy)

    with pytest.raises(
        UsageError, match=r"batch 7 of data has shape \[8, 9\] in input 0, where the example has \[8, 16\]"
    ):
        optimize(tmp_path / "fast", work)


def test_data_of_a_shape_that_the_model_does_not_take_are_the_users_to_mend(tmp_path: Path) -> None:
    narrow = [(torch.randn(8, 9), Y) for _ in range(10)]
    work = vv.Workload(network(), inputs=(X,), data=narrow, metric=vv.metrics.accuracy)

    with pytest.raises(
        UsageError, match=r"the model fails on the data: .*8x9 and 16x.*; .*; it answers the example inputs"
    ):
        optimize(tmp_path / "fast", work)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [-1, 99])
def test_labels_out_of_range_are_told_with_the_range(tmp_path: Path, label: int) -> None:
    labelled = [(x, torch.full((8,), label)) for x, _ in pairs()]
    work = vv.Workload(network(), inputs=(X,), data=labelled, metric=vv.metrics.accuracy)

    with pytest.raises(UsageError, match=rf"received the target {label}; allowed are class numbers from 0 to \d"):
        optimize(tmp_path / "fast", work)

    assert list(tmp_path.iterdir()) == []


def test_a_layer_to_keep_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"keep \(--keep\) received 'heda', which no layer answers to; the layers are "
    ):
        optimize(tmp_path / "fast", keep=["heda"])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_budget_that_nothing_can_hold_keeps_the_original_and_says_that_quality_is_uncertified(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    result = optimize(tmp_path / "fast", time="60s", budget=vv.Budget(drop=0.0),
                      plan=[SEVEN_BITS, "onnx-runtime"])  # fmt: skip

    refused = (Outcome.QUALITY_UNKNOWN, Outcome.QUALITY_FAILED)
    assert result.candidates and all(t.outcome in refused for t in result.candidates), result.candidates
    assert result.status.exit_code == (4 if any(t.outcome is refused[0] for t in result.candidates) else 3)
    assert len(result.plan) == 0
    torch.testing.assert_close(vv.load(tmp_path / "fast")(X), network()(X))


def broken_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    raise KeyError("logits")


class Locked:
    """A loss that cannot leave its process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (broken_loss, "the loss broken_loss failed: KeyError: 'logits'"),
        (vv.metrics.accuracy, r"the loss accuracy returned a tensor of shape \[8\]; allowed is a tensor of one value"),
        (Locked(), "the loss or its labels cannot be sent to a worker process .*lock"),
    ],
)
def test_a_loss_that_misbehaves_is_told_as_such(tmp_path: Path, loss: Any, message: str) -> None:
    work = vv.Workload(network(), inputs=(X,), data=pairs(), metric=vv.metrics.accuracy, loss=loss)

    with pytest.raises(UsageError, match=message):
        optimize(tmp_path / "fast", work)

    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_captured_is_told_with_the_reason(tmp_path: Path) -> None:
    work = vv.Workload(BRANCHING.model(), inputs=BRANCHING.inputs())

    with pytest.raises(UnsupportedModel, match="could not capture the model"):
        optimize(tmp_path / "fast", work)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(samples, "save_file", full)

    with pytest.raises(DiskFull, match="free some space"):
        optimize(tmp_path / "fast")

    assert not (tmp_path / "fast").exists()


def test_a_folder_that_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    mine = tmp_path / "fast" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")

    with pytest.raises(UsageError, match="give a new path"):
        optimize(tmp_path / "fast")

    assert mine.read_text() == "years of work"


def test_resuming_another_job_is_refused(tmp_path: Path) -> None:
    from vivace.search.run import open_journal

    open_journal(tmp_path, {"job": "one", "machine": "m"}, resume=False).close()

    with pytest.raises(UsageError, match="had another job; run without --resume"):
        open_journal(tmp_path, {"job": "two", "machine": "m"}, resume=True)


def test_every_error_of_the_tree_has_a_documented_exit_code() -> None:
    kinds = [VivaceError, *_below(VivaceError)]

    codes = {kind.__name__: kind.exit_code for kind in kinds}

    assert set(codes.values()) <= {1, 2, 3, 4, 5, 6, 130}
    assert codes["UsageError"] == 2 and codes["DiskFull"] == 6 and codes["Cancelled"] == 130


def _below(kind: type) -> list[Any]:
    return [found for child in kind.__subclasses__() for found in (child, *_below(child))]


def test_a_run_that_goes_on_loads_no_code_that_lies_in_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "fast"
    for kind in CACHES.values():
        planted = run_path(out) / kind / "planted.so"
        planted.parent.mkdir(parents=True)
        planted.write_bytes(b"")

    with run_folder(out, resume=True) as folder:
        assert folder == run_path(out)
        assert list(folder.iterdir()) == []


def test_no_run_folder_survives_a_refused_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        optimize(tmp_path / "fast", vv.Workload(network(), inputs=(X,), data=[]))

    assert not (tmp_path / ".vivace").exists()
    shutil.rmtree(tmp_path)
