"""`vivace demo`: the whole promise on real handwritten digits, in about three minutes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivace.cli.options import Json, Quiet, Time
from vivace.cli.output import document_only, emit, emit_json, out_console, progress_shown
from vivace.core.errors import Cancelled, EnvironmentFault
from vivace.core.quality import Budget
from vivace.core.result import Result
from vivace.core.workload import Workload

if TYPE_CHECKING:
    from vivace.cli.digits import Digits
    from vivace.report.progress import Progress

RELOAD_SECONDS = 120
RELOAD = """
import json, sys
import numpy, torch
import vivace as vv

model = vv.load(sys.argv[1])
pixels = numpy.frombuffer(sys.stdin.buffer.read(), dtype=numpy.float32)
images = torch.from_numpy(pixels.reshape(json.loads(sys.argv[2])).copy())
labels = torch.cat([model(batch).argmax(1) for batch in images.split(64)])
print(json.dumps(labels.tolist()))
"""
"""What the fresh process does: it knows the artifact and the images, and nothing of the network's class."""


@dataclasses.dataclass(frozen=True)
class Reload:
    """What a fresh process found when it loaded the artifact and called it on every held-out image."""

    images: int
    accuracy: float
    original_accuracy: float


def demo(
    time: Time = "2m",
    out: Annotated[Path, typer.Option("--out", help="Where the artifact goes; one that is there is replaced.")] = Path(
        "vivace-demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a small network on handwritten digits, make it faster, prove it, and load the result in a fresh process.

    Examples:

      vivace demo

      vivace demo --time 90s --out /tmp/demo --json
    """
    from vivace.measure.forking import client
    from vivace.report.duration import parse_duration

    client.prepare()  # it imports PyTorch while we do
    parse_duration(time)
    with document_only(as_json), progress_shown(quiet) as progress:
        try:
            result, reload = run_demo(time, out, progress)
        except KeyboardInterrupt:
            raise Cancelled(f"cancelled; what was at {out} is unchanged") from None
    _show(result, reload, out, as_json)
    raise typer.Exit(result.status.exit_code)


def run_demo(time: str, out: Path, progress: Progress) -> tuple[Result, Reload]:
    """Train, optimize, reload. Raises MissingExtra without scikit-learn."""
    from vivace.api import metrics
    from vivace.api import optimize as search
    from vivace.cli.digits import accuracy_of, load_digits, train_network

    progress.stage("training", "a small convolutional network on handwritten digits, a few seconds")
    training, held_out = load_digits()
    network = train_network(training)
    work = Workload(
        network, inputs=(held_out.images[:64],), data=held_out.batches(), metric=metrics.accuracy, name="digits-cnn"
    )
    result = search(work, budget=Budget(drop=0.01), time=time, out=out, progress=progress)
    progress.stage("reload", "the artifact, in a fresh process")
    return result, reload_artifact(out, held_out, accuracy_of(network, held_out))


def reload_artifact(artifact: Path, digits: Digits, original_accuracy: float) -> Reload:
    """Load the artifact in a fresh interpreter and call it on every image. Raises EnvironmentFault if that fails."""
    shape = json.dumps(list(digits.images.shape))
    try:
        done = subprocess.run(
            [sys.executable, "-c", RELOAD, str(artifact), shape],
            capture_output=True,
            check=True,
            input=digits.images.numpy().tobytes(),
            timeout=RELOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"a fresh process did not load {artifact} in {RELOAD_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace").strip()[-800:]
        raise EnvironmentFault(f"a fresh process could not load and call {artifact}: {tail}") from None
    answers = json.loads(done.stdout)
    right = sum(answer == label for answer, label in zip(answers, digits.labels.tolist(), strict=True))
    return Reload(len(answers), right / len(answers), original_accuracy)


def _show(result: Result, reload: Reload, out: Path, as_json: bool) -> None:
    from vivace.report.results import to_document
    from vivace.report.terminal import print_result

    if as_json:
        document = json.loads(to_document(result).to_text())  # infinities are text there
        emit_json({**document, "demo": dataclasses.asdict(reload)})
        return
    print_result(out_console(), result)
    emit(
        f"reloaded {out} in a fresh process and called it on {reload.images} held-out images: accuracy "
        f"{reload.accuracy:.2%} (the original: {reload.original_accuracy:.2%})"
    )
