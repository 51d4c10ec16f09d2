"""Loading an artifact: every digest is checked, the golden calls are replayed, and a strange machine is pointed out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.artifact.golden import replay
from vivace.artifact.manifest import (
    GOLDEN_CALLS,
    MANIFEST,
    PROGRAM,
    Golden,
    Manifest,
    check_names,
    digest,
    files_of,
    read_manifest,
)
from vivace.core.errors import ArtifactError, CallError, EnvironmentFault, NotApplicable, VivaceError
from vivace.devices.machine import detect
from vivace.measure.process import STANDARD, Limits, Phase, Worker
from vivace.runtimes import store
from vivace.runtimes.program import Program


class ArtifactWarning(UserWarning):
    """The artifact works here, but something differs from where it was proved."""


def load(path: str | Path, trust: bool = False) -> Program:
    """The accelerated model of an artifact: the same call as the original's, and no class of the user's needed.

    Checks every file's digest, then replays the golden calls within the stated tolerance. Warns (ArtifactWarning) when
    this machine differs from the one where speed and quality were proved, or has fewer devices than the mesh that a
    program was compiled for. `trust=True` allows an artifact that
    contains native code (AOTInductor) to run it; give it only for artifacts that you built or whose maker you trust.

    Raises ArtifactError when a file was changed, is missing or was added, when the golden check fails, or when native
    code is not trusted; MissingExtra when the artifact's runtime is not installed; EnvironmentFault when it
    cannot run here.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if manifest.executes_native_code and not trust:
        raise ArtifactError(
            f"{folder} contains native code (AOTInductor), which runs with your rights; load it with "
            "trust=True (--trust) if you built it or trust whoever did"
        )
    _compare_machine(folder, manifest)
    try:
        program = _checked(folder, manifest, trust)
    except NotApplicable as error:
        raise EnvironmentFault(f"{folder} cannot run on this machine: {error.reason}") from error
    except CallError as error:
        raise ArtifactError(f"{folder / GOLDEN_CALLS} holds calls that the program does not take: {error}") from error
    except VivaceError:
        raise
    except Exception as error:  # a runtime may raise anything for a program that was changed
        told = f"{type(error).__name__}: {str(error)[:400]}"
        raise ArtifactError(f"{folder / PROGRAM} cannot be used: {told}; make the artifact again here") from error
    if program.has_fewer_devices:
        warnings.warn(f"{folder} runs on {program.runs_on}", ArtifactWarning, stacklevel=2)
    return program


def _checked(folder: Path, manifest: Manifest, trust: bool) -> Program:
    """The program, after it answered the golden calls as it should."""
    place = folder / PROGRAM
    model = store.read_to_run(place)
    if model.form.value != manifest.form:
        raise ArtifactError(
            f"{place / store.PROGRAM_JSON} is of form {model.form.value}, but the manifest says {manifest.form!r}; "
            "the artifact was changed: make it again or copy it anew"
        )
    program = store.open_model(place, model, trust)
    try:
        replay(program, folder, manifest.golden)
    except BaseException:
        program.close()
        raise
    return program


def open_artifact(arguments: Mapping[str, Any], payload: object) -> Program:
    """A worker's entry: the program of an artifact or of one that is being made, for judging and timing.

    With "golden" (the fields of a Golden), the golden calls are replayed first, as at every load.
    """
    folder = Path(arguments["folder"])
    program = store.load(folder / PROGRAM, trust=bool(arguments["trust"]))
    if arguments.get("golden"):
        replay(program, folder, Golden(**arguments["golden"]))
    return program


def open_checked(arguments: Mapping[str, Any], payload: object) -> None:
    """A worker's entry: load an artifact as a user would, with every check."""
    load(arguments["folder"], trust=bool(arguments["trust"]))


def check_in_worker(folder: Path, log: Path, environment: Mapping[str, str], limits: Limits = STANDARD) -> None:
    """Load an artifact in a fresh process, with every check. Raises ArtifactError or WorkerFailure."""
    with Worker(log, limits, environment, preload=(__name__,)) as worker:
        worker.open("vivace.artifact.load:open_checked", {"folder": str(folder), "trust": True}, phase=Phase.COMPILE)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise ArtifactError unless the folder holds exactly the files that the manifest lists, unchanged."""
    check_names(manifest.files, str(folder / MANIFEST))
    found = files_of(folder)
    strange = sorted(set(found) ^ set(manifest.files))
    if strange:
        state = "is not listed in the manifest" if strange[0] in found else "is missing"
        raise ArtifactError(
            f"{folder / strange[0]} {state}; the artifact was changed after it was made: make it again or copy it anew"
        )
    for name, path in found.items():
        if digest(path) != manifest.files[name]:
            raise ArtifactError(
                f"{path} differs from its digest in the manifest; the artifact was changed or damaged: "
                "make it again or copy it anew"
            )


def _compare_machine(folder: Path, manifest: Manifest) -> None:
    here = detect()
    if here.fingerprint != manifest.machine.get("fingerprint"):
        there = manifest.machine.get("processor", "another machine")
        warnings.warn(
            f"{folder} was proved on {there} with {manifest.machine.get('cores_allowed')} cores; this is "
            f"{here.processor} with {here.cores_allowed}. The answers are checked against the golden outputs, but the "
            "speed was not measured here: run `vivace measure` or optimize again",
            ArtifactWarning,
            stacklevel=3,
        )
