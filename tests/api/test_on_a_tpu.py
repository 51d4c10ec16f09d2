"""A search on a TPU: the same path with XLA's CPU back end in its place, and what is said where there is none."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from elsewhere import elsewhere
from torch import nn

import vivace as vv
from vivace.api import request as requests
from vivace.api.request import offered
from vivace.api.silicon import platform as platforms
from vivace.api.silicon.platform import opened, platform_of
from vivace.cli.app import main
from vivace.core.errors import EnvironmentFault
from vivace.core.facts import Fact
from vivace.core.machine import JaxPlatform, Machine, Tpu
from vivace.core.measurement import Outcome
from vivace.core.result import Status
from vivace.devices.machine import detect
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.xla import stablehlo

PLAIN = Machine("p", "x86_64", (), 2, 2, 1 << 30, "Linux")
PLUGIN = """
def initialize():
    from jax._src import xla_bridge
    from jaxlib import xla_client
    xla_bridge.register_backend_factory("tpu", xla_client.make_cpu_client, priority=400, fail_quietly=False)
"""
"""JAX finds it by itself. Its devices are none of the CPU back end's: arrays must be brought to them as to a TPU's."""
HALF = """
import pathlib, torch
from vivace.runtimes import store
program = store.load(pathlib.Path("program"))
x = torch.arange(12.0).reshape(3, 4).bfloat16()
answer = program(x)
print(answer.dtype, torch.equal(answer, x + x))
"""
TARGET = """
import torch, vivace as vv
work = vv.Workload(torch.nn.Linear(4, 2), inputs=(torch.zeros(1, 4),))
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 10)).eval()


@pytest.fixture
def pretended_tpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a TPU on its bus, which JAX opens under that name."""
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    plugin = tmp_path / "beside" / "jax_plugins" / "pretended"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "beside")  # of which workers hear
    machine = dataclasses.replace(detect(), tpus=(Tpu("TPU v5e"),))
    monkeypatch.setattr(requests, "detect", lambda: machine)
    monkeypatch.setattr(platforms, "is_installed", lambda package: True)
    return machine


class Double(nn.Module):
    """Twice a number, in its own precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Waves(nn.Module):
    """Many small operators, each of which PyTorch starts apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(300):
            x = torch.sin(x) + 0.1
        return x


def test_without_a_tpu_the_message_says_what_works_instead() -> None:
    work = vv.Workload(network(), inputs=(torch.rand(8, 64),))

    with pytest.raises(EnvironmentFault, match=r"this machine has no TPU; `vivace synthesize TARGET --chip tpu-v5e`"):
        vv.optimize(work, device="tpu")


def test_without_a_tpu_the_command_ends_with_the_code_for_a_lacking_environment(
    workbench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workbench / "work.py").write_text(TARGET)

    assert main(["optimize", "work.py:work", "--device", "tpu", "--quiet"]) == 5
    assert "this machine has no TPU" in capsys.readouterr().err


def test_a_tpu_on_the_bus_is_seen_without_being_opened(tmp_path: Path) -> None:
    for place, device in (("0000:00:04.0", "0x0063"), ("0000:00:05.0", "0x0063"), ("0000:00:06.0", "0x001f")):
        folder = tmp_path / "sys/bus/pci/devices" / place
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x1ae0\n")
        (folder / "device").write_text(f"{device}\n")

    machine = detect(tmp_path)

    assert machine.tpus == (Tpu("TPU v5e"), Tpu("TPU v5e"))
    assert {Fact.TPU_DEVICE, Fact.BF16_INSTRUCTIONS} <= machine.facts()


def test_a_tpu_belongs_to_a_machine_s_fingerprint() -> None:
    assert detect().fingerprint != Machine(**{**vars(detect()), "tpus": (Tpu("TPU v5e"),)}).fingerprint


def test_who_asks_for_the_cpu_computes_on_it_even_beside_a_tpu() -> None:
    machine = Machine(**{**vars(PLAIN), "tpus": (Tpu("TPU v5e"),)})

    platform = platform_of("cpu", machine)

    assert platform is not None and platform.variables == {"JAX_PLATFORMS": "cpu"}
    assert offered(machine, "cpu", platform).tpus == ()


def test_jax_is_left_its_choice_where_nothing_was_asked_and_no_tpu_is_there() -> None:
    assert platform_of("auto", PLAIN) is None


def test_a_tpu_that_does_not_answer_is_left_alone_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setattr(platforms, "is_installed", lambda package: False)
    machine = Machine(**{**vars(PLAIN), "tpus": (Tpu("TPU v5e"),)})

    platform = platform_of("auto", machine)

    assert platform is not None and platform.name == "cpu"
    assert "the TPU was not used: device (--device) is tpu, but libtpu" in platform.note


def test_a_platform_that_answers_tells_the_kinds_of_its_devices() -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")

    assert opened(JaxPlatform("cpu"), PLAIN).kinds == ("cpu",)


def test_a_platform_that_jax_cannot_open_is_told_in_its_words() -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")

    with pytest.raises(EnvironmentFault, match=r"is nowhere, but JAX cannot open it: .*nowhere.*; one process"):
        opened(JaxPlatform("nowhere"), PLAIN)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_measures_on_the_platform_that_it_was_told(workbench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setitem(platforms.PLATFORMS, "tpu", JaxPlatform("cpu", is_exclusive=True))
    work = vv.Workload(network(), inputs=(torch.rand(64, 64),), name="small")

    result = vv.optimize(work, device="tpu", only=["tpu", "bfloat16"], time="60s", preset="quick", out="fast")

    tried = {str(trial.plan): trial for trial in result.candidates}
    assert tried["tpu"].outcome in (Outcome.OK, Outcome.NOT_FASTER), tried["tpu"].reason
    assert tried["tpu"].speedup is not None
    assert {trial.standing for trial in result.candidates} == {None}  # nobody stayed open beside another
    assert result.conditions["xla_ran_on"] == "cpu (the first of 1 x cpu)"
    assert torch.allclose(vv.load("fast")(torch.ones(3, 64)), network()(torch.ones(3, 64)), atol=0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_won_there_is_stablehlo_that_a_fresh_process_runs_on_what_jax_finds(
    workbench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")
    monkeypatch.setitem(platforms.PLATFORMS, "tpu", JaxPlatform("cpu", is_exclusive=True))
    work = vv.Workload(Waves().eval(), inputs=(torch.rand(4, 8),), name="waves")

    result = vv.optimize(work, device="tpu", plan=["tpu"], time="60s", preset="quick", out="fast")

    assert result.status is Status.FASTER, [(str(t.plan), t.outcome, t.reason) for t in result.candidates]
    assert (workbench / "fast" / "program" / "model.stablehlo").is_file()
    x = torch.rand(3, 8)
    assert torch.allclose(elsewhere("fast", x, workbench), Waves()(x), atol=1e-4)


def test_a_tpu_that_jax_opens_is_told_with_the_kinds_of_its_devices(pretended_tpu: Machine) -> None:
    platform = platform_of("tpu", pretended_tpu)

    assert platform is not None and platform.variables == {"JAX_PLATFORMS": "tpu,cpu"}
    assert platform.kinds == ("cpu",)
    assert platform_of("auto", pretended_tpu) == platform


def test_calls_in_bfloat16_are_brought_to_the_tpu(pretended_tpu: Machine, workbench: Path) -> None:
    model = capture(Double().eval(), (torch.rand(3, 4).bfloat16(),)).model
    store.save(stablehlo.to_xla(model, workbench / "made"), workbench / "program")

    done = subprocess.run(
        [sys.executable, "-c", HALF], cwd=workbench, capture_output=True, text=True, timeout=120,
        env={**os.environ, "JAX_PLATFORMS": "tpu,cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    assert done.stdout.split() == ["torch.bfloat16", "True"], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("device", ["tpu", "auto"])
def test_the_command_measures_on_a_tpu_as_on_any_other_device(
    device: str, pretended_tpu: Machine, workbench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workbench / "work.py").write_text(TARGET)
    asked = ["--device", device, "--only", "tpu", "--time", "60s", "--preset", "quick", "--out", "fast", "--json"]

    code = main(["optimize", "work.py:work", *asked, "--quiet"])

    document = json.loads(capsys.readouterr().out)
    assert code in (0, 3, 4), document
    assert document["conditions"]["xla_ran_on"] == "tpu (the first of 1 x cpu)"
    (tried,) = [one for one in document["candidates"] if "tpu" in str(one["plan"])]
    assert tried["outcome"] in ("ok", "not_faster"), tried
    assert tried["speedup"]["low"] < tried["speedup"]["value"] < tried["speedup"]["high"]
