"""From a search's winner to an artifact in its place: staged, proved golden, sealed, checked, moved."""

from __future__ import annotations

import datetime
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from vivace.api.readme import readme_of
from vivace.artifact import golden, save
from vivace.artifact.load import check_in_worker
from vivace.artifact.manifest import PROGRAM, Golden, Manifest, PlanStep
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.program import Form
from vivace.core.result import Result
from vivace.data import samples
from vivace.measure.live import ArmSpec
from vivace.report.html.page import render
from vivace.report.reading import read_text
from vivace.report.results import PAGE, RESULTS, to_document
from vivace.runtimes import store
from vivace.search.caches import compiler_variables
from vivace.search.judge import failures_of_a_plan
from vivace.search.prepare import Prepared
from vivace.search.verdict.ahead import DELIVERED


class Staging:
    """Artifacts that are being made, one folder a finalist, beside the destination so that a rename can publish one."""

    def __init__(self, run_folder: Path, prepared: Prepared) -> None:
        self._prepared = prepared
        self._root = run_folder / "staged"
        shutil.rmtree(self._root, ignore_errors=True)
        self._folders: dict[Plan, Path] = {}
        self._golden: dict[Plan, Golden] = {}

    def deliver(self, plan: Plan, program: Path) -> ArmSpec:
        """Copy a program into an artifact's folder, record its golden calls there, and say how a worker opens it.

        Raises WorkerFailure when the program cannot be recorded, so that another finalist takes its place.
        """
        folder = self._root / str(len(self._folders))
        save.stage_program(program, folder)
        logs = self._prepared.work.folder
        variables = compiler_variables(logs, self._prepared.platform)
        with failures_of_a_plan():
            recorded = golden.record(folder, self._prepared.confirm_calls, plan.effect, logs / "golden", variables)
        self._folders[plan] = folder
        self._golden[plan] = recorded
        if any(technique.program_entry for technique in plan):
            entry = next(t.program_entry for t in plan if t.program_entry)
            return ArmSpec(
                entry,
                {"folder": str(folder / PROGRAM), "trust": True, "plan": plan.to_json()},
                None,
                str(plan),
                self._prepared.device,
            )
        arguments = {"folder": str(folder), "trust": True, "golden": recorded.model_dump()}
        return ArmSpec(DELIVERED, arguments, None, str(plan), self._prepared.device)

    def folder(self, plan: Plan) -> Path:
        """The folder of a plan that was delivered."""
        return self._folders[plan]

    def golden(self, plan: Plan) -> Golden:
        """What was recorded of a plan that was delivered."""
        return self._golden[plan]


def publish(result: Result, staging: Staging, prepared: Prepared, machine: Machine, destination: Path) -> None:
    """Seal the winner's folder with its proof, load it in a fresh process as a user would, and move it to its place.

    `result.artifact` is the destination already, so that results.json names it.
    """
    folder = staging.folder(result.plan)
    logs = prepared.work.folder
    variables = compiler_variables(logs, prepared.platform)
    with save.disk_errors(destination):
        manifest = _manifest(result, folder, staging.golden(result.plan), prepared, machine)
        document = to_document(result).to_text()
        page = render(read_text(document))  # read back, so that `vivace report` writes the same page
        texts = {RESULTS: document, PAGE: page, "README.md": readme_of(result, manifest)}
        save.seal(folder, manifest, texts)
        check_in_worker(folder, logs / "check", variables)
        save.publish(folder, destination)


def _manifest(result: Result, folder: Path, recorded: Golden, prepared: Prepared, machine: Machine) -> Manifest:
    model = store.read_model(folder / PROGRAM)
    document = json.loads(to_document(result).to_text())  # infinities are text there
    return Manifest(
        vivace_version=version("vivace"),
        name=result.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        status=result.status.value,
        plan=[PlanStep(**step) for step in result.plan.to_json()],
        plan_name=str(result.plan),
        form=model.form.value,
        executes_native_code=model.form is Form.AOT_INDUCTOR,
        accepts=model.signature.describe_call(),
        proved_on_shapes=[[list(leaf.shape) for leaf in leaves] for leaves in _of_each_shape(prepared)],
        machine=machine.to_json(),
        versions=dict(result.conditions["versions"]),
        speed={"speedup": document["speedup"], "verdict": document["verdict"]},
        quality=document["quality"],
        golden=recorded,
        batch_invariant=result.conditions["batch_invariant"],
        files={},
    )


def _of_each_shape(prepared: Prepared) -> list[list[Tensor]]:
    """The first of the confirmation's calls of each shape."""
    calls = samples.read(prepared.confirm_calls)
    return [calls[number] for number in (calls.mix.first_of_each() if calls.mix is not None else [0])]
