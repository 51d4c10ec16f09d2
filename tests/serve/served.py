"""Small artifacts and real servers for the tests of serving."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivace.artifact import golden, save
from vivace.artifact.manifest import Golden, Manifest
from vivace.core.technique import Effect
from vivace.data import samples
from vivace.devices.machine import detect
from vivace.runtimes import store
from vivace.runtimes.capture import capture

LETTERS, LENGTH, CLASSES = 16, 6, 4
COMMAND = "import sys; from vivace.cli import main; sys.exit(main())"


class Classifier(nn.Module):
    """Embeds letters, averages and scales them, and scores the classes. A letter above 15 makes the whole call fail."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(LETTERS, 32)
        self.score = nn.Linear(32, CLASSES)

    def forward(self, codes: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.embed(codes).mean(1) * scale
        return {"scores": self.score(hidden), "norm": hidden.norm(dim=1, keepdim=True)}


def inputs(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, LETTERS, (count, LENGTH), generator=generator)
    return codes, torch.rand(count, 1, generator=generator) + 0.5


def make_artifact(
    folder: Path,
    work: Path,
    module: nn.Module,
    calls: Sequence[tuple[Tensor, ...]],
    batch_invariant: bool | None = True,
) -> Path:
    """An artifact as `optimize` writes it, without a search."""
    model = capture(module.eval(), calls[0]).model
    store.save(model, work / "program")
    stored = samples.write(work / "calls", [list(call) for call in calls], model.signature.call, len(calls[0]))
    save.stage_program(work / "program", work / "staged")
    recorded = Golden(**golden.Recorder().record(str(work / "staged"), str(stored), Effect.EXACT.value))
    manifest = Manifest(
        vivace_version="0", name="letters", created="2026-01-01T00:00:00+00:00", status="faster", plan=[],
        plan_name="original", form="torch", executes_native_code=False, accepts="x", proved_on_shapes=[[[5, 6]]],
        machine=detect().to_json(), versions={}, speed={"speedup": {"value": 2.0, "low": 1.9, "high": 2.1}},
        quality={"verdict": "HELD", "basis": "test"}, golden=recorded, batch_invariant=batch_invariant, files={},
    )  # fmt: skip
    save.seal(work / "staged", manifest, {"results.json": "{}\n", "README.md": "toy\n"})
    save.publish(work / "staged", folder)
    return folder


def letters_artifact(folder: Path, work: Path, seed: int = 0, batch_invariant: bool | None = True) -> Path:
    """The classifier as an artifact; each seed computes something else."""
    return make_artifact(folder, work, Classifier(seed), [inputs(5, n) for n in range(3)], batch_invariant)


class Server:
    """A running `vivace serve`. `told` is what it printed when it was ready."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        text = ""
        assert process.stdout is not None
        for line in process.stdout:
            text += line
            if line == "}\n":
                break
        if not text.endswith("}\n"):
            raise RuntimeError(f"the server did not start: {text} {log.read_text()[-3000:]}")
        self.told: dict[str, Any] = json.loads(text)

    @property
    def url(self) -> str:
        return self.told["address"].removeprefix("http://")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition(":")
        return host, int(port)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def running(artifact: Path, log: Path, *options: str, **environment: str) -> Iterator[Server]:
    """A server on a port of its own; ended when the block is left."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "serve", str(artifact), "--port", "0", "--json", *options],
            stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        yield Server(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether something comes true within so many seconds."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False
