"""Networks for a TPU that is not there: StableHLO that is the same network, and what Google's compiler says of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import vivace as vv
from vivace.api.silicon import tpu
from vivace.core.errors import UsageError
from vivace.hardware.compiled import TpuCompilation, TpuEstimate, TpuStatus
from vivace.measure.process import Phase, Worker
from vivace.report.silicon.tpu import document_of, synthesis_block
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.xla import ahead

ESTIMATE = TpuEstimate("bfloat16", 3_000_000, 40_000, 500_000, 800_000, 1.3e8, 2.6e7, 3.6e-5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


@pytest.fixture
def work() -> vv.Workload:
    return vv.Workload(network(), inputs=(torch.rand(8, 3, 16, 16),), name="small")


def compilation(**changes: object) -> TpuCompilation:
    given: dict[str, object] = {"memory_bytes": 16e9, "devices": 1, "estimates": (ESTIMATE,), **changes}
    return TpuCompilation("small", "tpu-v5e", TpuStatus.COMPILED, 8, 1.5e-7, 15, **given)  # type: ignore[arg-type]


def test_an_unknown_tpu_is_answered_with_the_nearest_names(work: vv.Workload, workbench: Path) -> None:
    with pytest.raises(UsageError, match="unknown chip 'tpu-v5'; did you mean 'tpu-v5"):
        vv.synthesize(work, chip="tpu-v5", out="tpu")


def test_a_folder_with_other_files_is_not_replaced(work: vv.Workload, workbench: Path) -> None:
    (workbench / "tpu").mkdir()
    (workbench / "tpu" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="a folder with other files in it"):
        vv.synthesize(work, chip="tpu-v5e", out="tpu")


def test_a_setting_for_fpgas_is_refused_instead_of_ignored(work: vv.Workload) -> None:
    with pytest.raises(
        UsageError,
        match=r"weight_bits \(--weight-bits\): of no use for the chip tpu-v5e, for which time can be set; leave it out",
    ):
        vv.synthesize(work, chip="tpu-v5e", weight_bits=4)


def test_what_the_compiler_says_is_labelled_as_predicted() -> None:
    document = json.loads(document_of(compilation()).to_text())

    assert document["kind"] == "PREDICTED"
    assert document["error_kind"] == "MEASURED"
    assert document["estimates"][0]["seconds"] == 3.6e-5


def test_a_reader_is_told_the_time_the_memory_and_what_it_is() -> None:
    console = Console(width=200, file=io.StringIO())

    console.print(synthesis_block(compilation()))

    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "36.0 us a call of 8 samples at best, PREDICTED by the compiler" in told
    assert "memory: 4.34 MB, of them 3.00 for weights and inputs and 0.04 for answers; the device has 16 GB" in told


@pytest.mark.slow
def test_without_the_compiler_the_stablehlo_is_written_and_the_message_says_how_to_get_it(
    work: vv.Workload, workbench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setattr(tpu, "is_installed", lambda package: False)

    result = vv.synthesize(work, chip="tpu-v6e", out="tpu")

    assert result.status is TpuStatus.WRITTEN and result.status.exit_code == 5
    assert any("pip install 'jax[tpu]'" in note for note in result.notes)
    assert result.relative_error < 1e-5
    x = torch.rand(5, 3, 16, 16)
    assert torch.allclose(vv.load("tpu")(x), network()(x), atol=1e-5)


@pytest.mark.slow
def test_a_network_is_compiled_for_a_chip_that_is_not_there(work: vv.Workload, workbench: Path) -> None:
    for package in ("jax", "libtpu"):
        pytest.importorskip(package, reason=f"{package} is not installed; Google's compiler is in no extra")

    result = vv.synthesize(work, chip="tpu-v5e", out="tpu")

    assert result.status is TpuStatus.COMPILED
    assert [one.products for one in result.estimates] == ["float32", "bfloat16"]
    for one in result.estimates:
        assert one.flops >= 8 * 2 * 8 * 27 * 14 * 14
        assert one.argument_bytes >= 8 * 3 * 16 * 16 * 4
        assert 0 < one.seconds < 1
    x = torch.rand(5, 3, 16, 16)
    assert torch.allclose(vv.load("tpu")(x), network()(x), atol=1e-5)


@pytest.mark.slow
def test_a_call_that_the_chip_has_no_room_for_is_told(workbench: Path) -> None:
    for package in ("jax", "libtpu"):
        pytest.importorskip(package, reason=f"{package} is not installed; Google's compiler is in no extra")
    store.save(capture(network(), (torch.rand(8, 3, 16, 16),)).model, workbench / "original")
    with Worker(workbench / "log", environment=ahead.VARIABLES) as worker:
        given = {"original": str(workbench / "original"), "folder": str(workbench)}
        worker.open("vivace.api.silicon.tpu_worker:open_translator", given)

        asked = {"topology": "v5e:2x2", "chips": 4, "size": 20_000_000, "products": "float32"}
        found = worker.call("analyse", asked, Phase.COMPILE, 120)

    assert "refuses the program" in found["lacking"]
