"""Networks for a TPU that is not there: StableHLO that is the same network, and what Google's compiler says of it."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from elsewhere import answer_elsewhere, elsewhere
from rich.console import Console
from torch import nn

import vivace as vv
from vivace.api.silicon import tpu
from vivace.api.silicon.steps import Allowance
from vivace.artifact.load import ArtifactWarning
from vivace.cli.app import main
from vivace.core.errors import EnvironmentFault, UsageError, WorkerFailure
from vivace.hardware.chip.tpus import Mesh
from vivace.hardware.compiled import (
    Bfloat16Check,
    Collective,
    MeshCheck,
    SplitWeight,
    TpuCompilation,
    TpuEstimate,
    TpuStatus,
)
from vivace.measure.clock import FakeClock
from vivace.measure.process import Phase, Worker
from vivace.report.silicon.tpu import document_of, synthesis_block
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.xla import ahead, stablehlo

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
        match=r"weight_bits \(--weight-bits\): of no use for the chip tpu-v5e, for which mesh, time can be set; leave",
    ):
        vv.synthesize(work, chip="tpu-v5e", weight_bits=4)


def test_a_chip_of_no_kind_is_answered_with_the_names_of_every_kind(work: vv.Workload, workbench: Path) -> None:
    with pytest.raises(UsageError, match=r"Known: asic:ROWSxCOLUMNS\[:os\|ws\|is\]\[:2of4\], ecp5-25k, .*tpu-v6e"):
        vv.synthesize(work, chip="gpu", out="tpu")


@pytest.mark.parametrize("mesh", ["", "data", "data=0", "data=two", "batch=2", "data=2,data=2", "data=2;tensor=4"])
def test_a_mesh_that_cannot_be_read_is_told_with_what_can_be(work: vv.Workload, workbench: Path, mesh: str) -> None:
    with pytest.raises(UsageError, match="allowed is data=N,tensor=M"):
        vv.synthesize(work, chip="tpu-v5e", mesh=mesh, out="tpu")


def test_a_mesh_that_fills_no_slice_of_the_chip_is_told_with_what_there_is(work: vv.Workload, workbench: Path) -> None:
    with pytest.raises(UsageError, match="has 6 chips; slices of tpu-v5p have 4, 8, 16, 32, 64: choose"):
        vv.synthesize(work, chip="tpu-v5p", mesh="data=2,tensor=3", out="tpu")


def test_a_mesh_is_of_no_use_for_an_fpga(work: vv.Workload) -> None:
    with pytest.raises(UsageError, match=r"mesh \(--mesh\): of no use for the chip ecp5-25k"):
        vv.synthesize(work, chip="ecp5-25k", mesh="data=2")


def test_a_time_too_short_for_anything_is_refused(work: vv.Workload, workbench: Path) -> None:
    with pytest.raises(UsageError, match=r"time \(--time\) is 5s; allowed are 20 seconds or more"):
        vv.synthesize(work, chip="tpu-v5e", time="5s", out="tpu")


def test_each_step_gets_what_is_left_of_the_whole_time() -> None:
    clock = FakeClock([0.0, 30.0])
    allowance = Allowance(100.0, clock)

    assert allowance.left(kept=0.25) == 45.0

    clock.advance(45.0)
    with pytest.raises(WorkerFailure, match=r"the 100 seconds of time \(--time\) are over; allow more"):
        allowance.left(kept=0.25)
    assert allowance.left() == 25.0


def test_a_jax_that_cannot_be_imported_is_told_with_the_reason_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setitem(sys.modules, "jax.export", None)

    with pytest.raises(EnvironmentFault, match=r"jax is installed and cannot be imported \(.*\); install it with: pip"):
        stablehlo.import_jax()


@pytest.mark.parametrize(
    ("told", "seconds", "unpriced"), [(3e-5, 3e-5, 0), (-1.99, 0.01, 2), (-16.9981, 0.0019, 17), (1.5, 1.5, 0)]
)
def test_operations_that_the_compiler_has_no_time_for_are_left_out_and_counted(
    told: float, seconds: float, unpriced: int
) -> None:
    assert ahead.priced(told) == (pytest.approx(seconds), unpriced)


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


def test_a_reader_is_told_that_a_loops_steps_are_not_in_the_compilers_time() -> None:
    console = Console(width=200, file=io.StringIO())

    console.print(synthesis_block(compilation(estimates=(dataclasses.replace(ESTIMATE, loops=1),))))

    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "at best" not in told
    assert "operations, bytes and time are of ONE turn" in told
    assert " us or more" in told


def test_a_reader_is_told_how_a_mesh_was_checked_and_what_its_chips_send(tmp_path: Path) -> None:
    console = Console(width=200, file=io.StringIO())
    estimate = dataclasses.replace(ESTIMATE, collectives=(Collective("all-reduce", 2, 3_000_000),))
    splits = (SplitWeight("a", (30, 10), 0), SplitWeight("b", (10, 10), None))

    console.print(
        synthesis_block(
            compilation(
                estimates=(estimate,), mesh=Mesh(2, 4), topology="v5e:2x4", splits=splits,
                mesh_check=MeshCheck(8, 2e-7, 4), bfloat16=Bfloat16Check(3e-3, 4e-3, True, "within"),
            )
        )
    )  # fmt: skip

    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "small on 8 x tpu-v5e: compiled for the chip" in told
    assert "mesh: 8 chips (v5e:2x4), the batch in 2 and weights in 4 parts" in told
    assert "1 of 2 weights are split, with 75.0% of all numbers" in told
    assert "sharded over 8 devices of XLA's CPU back end it differs from the original by 2.0e-07" in told
    assert "between chips, bfloat16 products: 2 all-reduce of 3 MB in all (PREDICTED)" in told
    assert "in bfloat16 it is off float64 by 3.0e-03, and PyTorch by 4.0e-03" in told
    assert "a TPU where there is one, sharded where it finds 8 devices" in told


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
    assert result.bfloat16 is not None and result.bfloat16.holds
    x = torch.rand(5, 3, 16, 16)
    assert torch.allclose(elsewhere("tpu", x, workbench), network()(x), atol=1e-5)


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


KERAS = {
    "dense": (
        lambda keras: [keras.layers.Input((20,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)],
        (8, 20),
    ),
    "convolutional": (
        lambda keras: [
            keras.layers.Input((12, 12, 3)), keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(2), keras.layers.DepthwiseConv2D(3),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, "softmax"),
        ],
        (8, 12, 12, 3),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", KERAS)
def test_a_keras_file_goes_through_the_same_door(
    name: str, workbench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="the extra vivace[keras] is not installed")
    layers, shape = KERAS[name]
    model = keras.Sequential(layers(keras))
    model.save(workbench / "model.keras")

    code = main(["synthesize", "model.keras", "--chip", "tpu-v5e", "--out", "tpu", "--quiet", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code in (0, 5), document
    assert document["relative_error"] <= 1e-4
    assert document["bfloat16"]["holds"]
    x = torch.rand(shape)
    with torch.no_grad():
        assert torch.allclose(elsewhere("tpu", x, workbench), model(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_network_is_compiled_for_a_mesh_that_is_not_there(workbench: Path) -> None:
    for package in ("jax", "libtpu"):
        pytest.importorskip(package, reason=f"{package} is not installed; Google's compiler is in no extra")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)).eval()
    work = vv.Workload(model, inputs=(torch.rand(64, 256),), name="pair")

    alone = vv.synthesize(work, chip="tpu-v5e", out="alone")
    result = vv.synthesize(work, chip="tpu-v5e", mesh="data=2,tensor=4", out="mesh")

    assert result.status is TpuStatus.COMPILED and result.topology == "v5e:2x4"
    assert [one.dimension for one in result.splits] == [0, 0, 1, None]
    assert result.mesh_check is not None
    assert (result.mesh_check.devices, result.mesh_check.relative_error < 1e-5) == (8, True)
    whole, part = alone.estimates[0], result.estimates[0]
    assert part.flops < whole.flops / 4
    assert part.argument_bytes < whole.argument_bytes / 3
    assert whole.collectives == ()
    (reduction,) = [one for one in part.collectives if one.kind == "all-reduce"]
    assert reduction.count == 1
    assert reduction.bytes == 32 * 256 * 4  # half of the batch, a quarter of each sum
    with pytest.warns(ArtifactWarning, match="runs on 1 cpu device; it was compiled for 8"):
        loaded = vv.load("mesh")
    assert torch.allclose(loaded(torch.ones(3, 256)), model(torch.ones(3, 256)), atol=1e-5)


@pytest.mark.slow
def test_a_batch_that_a_mesh_cannot_share_out_is_told(work: vv.Workload, workbench: Path) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    with pytest.raises(UsageError, match="data=16, which does not divide the 8 samples of the example"):
        vv.synthesize(work, chip="tpu-v5e", mesh="data=16", out="tpu")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_artifact_of_a_mesh_runs_over_as_many_devices_as_there_are_and_says_which(
    workbench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setattr(tpu, "is_installed", lambda package: False)  # the compiler's words are not needed here
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8)).eval()
    work = vv.Workload(model, inputs=(torch.rand(8, 16),), name="pair")
    vv.synthesize(work, chip="tpu-v5e", mesh="data=2,tensor=2", out="mesh")
    x = torch.rand(9, 16)  # a part of 8, shared out, and one sample, which is not

    found = {n: answer_elsewhere("mesh", x, workbench, f"{ahead.HOST_DEVICES}={n}") for n in (4, 3, 1)}

    assert all(torch.allclose(one.y, model(x), atol=1e-5) for one in found.values())
    mesh = "4 cpu devices, the batch in 2 parts, the weights in 2 parts"
    assert (found[4].runs_on, found[4].warned) == (mesh, "")
    assert found[3].runs_on.startswith("2 cpu devices, the weights in 2 parts; it was compiled for 4, the batch in 2")
    assert found[1].warned.endswith(
        "mesh runs on 1 cpu device; it was compiled for 4, the batch in 2 parts, the weights in 2 parts"
    )
