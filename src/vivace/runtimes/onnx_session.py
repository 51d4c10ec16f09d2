"""Form ONNX: an ONNX file run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.errors import ArtifactError, NotApplicable
from vivace.core.program import Form, Model, Settings
from vivace.devices.machine import threads_here
from vivace.runtimes.buffers import onnx_binding
from vivace.runtimes.onnx_graph import external_files, require
from vivace.runtimes.program import Program, as_numpy
from vivace.runtimes.settings.around import Run


def load(model: Model) -> Program:
    """A program on ONNX Runtime's CPU provider (CUDA where the settings' device asks for it).

    Options: `allow_spinning` (default True, its own default), `graph_optimization` (all, basic, extended, disabled).
    Settings' threads None means as many as `devices.machine.threads_here`. Raises MissingExtra, ArtifactError,
    NotApplicable.
    """
    session = open_session(Path(model.program), model.settings)
    return program_of(session, model)


def program_of(session: Any, model: Model) -> Program:
    """A session as a program."""
    return Program(model.signature, model.settings, _runner(session, model), Form.ONNX)


def open_session(path: Path, settings: Settings, optimized: Path | None = None, profile: Path | None = None) -> Any:
    """An InferenceSession of a file, under the settings; the graph that it runs is written to `optimized`, and what it
    ran to a file whose name begins with `profile`, when it is asked to end profiling.

    Raises MissingExtra, ArtifactError, NotApplicable.
    """
    require("onnxruntime", "onnx", "running ONNX")
    external_files(path)
    import onnxruntime as ort

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    names = {
        "all": levels.ORT_ENABLE_ALL,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "basic": levels.ORT_ENABLE_BASIC,
        "disabled": levels.ORT_DISABLE_ALL,
    }
    asked = str(settings.option("graph_optimization", "all"))
    if asked not in names:
        raise ArtifactError(f"the option graph_optimization is {asked!r}; allowed are {', '.join(names)}")
    options.graph_optimization_level = names[asked]
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    # A count that is told is not pinned. ONNX Runtime's own default pins a thread to each core of the host, which then
    # waits for the host's other work, or for a core that the container lacks: 2.84 ms for a ResNet-18, told 2.11.
    options.intra_op_num_threads = threads_here() if settings.threads is None else settings.threads
    spinning = "1" if settings.option("allow_spinning", True) else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    try:
        session = ort.InferenceSession(str(path), options, providers=_providers(ort, settings.device))
        for port in (*session.get_inputs(), *session.get_outputs()):
            _ = port.name, port.shape  # fails where a file's names are no text
        return session
    except Exception as error:  # ONNX Runtime has a class of error for each of its status codes
        raise ArtifactError(f"ONNX Runtime cannot open {path}: {str(error)[:400]}") from error


def _providers(ort: Any, device: str) -> list[str]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise NotApplicable(f"this ONNX Runtime cannot run on {device}; it has {ort.get_available_providers()}")
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _runner(session: Any, model: Model) -> Run:
    """Flat tensors to flat tensors; inputs that the exporter dropped as unused are left out.

    The graph's inputs are in the order of the signature; a dropped one is recognized by its name.
    """
    kept = [(feed.name, i) for feed, i in zip(session.get_inputs(), _positions(session, model), strict=True)]
    numbers = len(model.signature.outputs)
    names = [output.name for output in session.get_outputs()][:numbers]
    run, from_numpy = session.run, torch.from_numpy
    native = all(spec.dtype != "bfloat16" for spec in (*model.signature.inputs, *model.signature.outputs))
    if not native:
        return _bfloat16_runner(session, kept, names)

    def call(leaves: Sequence[Tensor]) -> list[Tensor]:
        feeds = {name: as_numpy(leaves[i]) for name, i in kept}
        return [from_numpy(output) for output in run(names, feeds)]

    is_bound = model.settings.device == "cpu" and onnx_binding.shapes_follow(model.signature)
    return onnx_binding.Bound(session, kept, names, model.signature, call) if is_bound else call


def _positions(session: Any, model: Model) -> list[int]:
    specs = model.signature.inputs
    feeds = session.get_inputs()
    if len(feeds) == len(specs):
        return list(range(len(specs)))
    wanted = input_names(len(specs))
    by_name = {name: i for i, name in enumerate(wanted)} | {spec.name: i for i, spec in enumerate(specs)}
    unknown = [feed.name for feed in feeds if feed.name not in by_name]
    if unknown:
        raise ArtifactError(f"the ONNX file has inputs {', '.join(unknown)}, which the model does not")
    return [by_name[feed.name] for feed in feeds]


def input_names(count: int) -> list[str]:
    """The names that capture gives to flat inputs in its graph, hence in ONNX.

    >>> input_names(2)
    ['leaves_0', 'leaves_1']
    """
    return [f"leaves_{i}" for i in range(count)]


def _bfloat16_runner(session: Any, kept: list[tuple[str, int]], names: list[str]) -> Run:
    """numpy has no bfloat16: hand tensors over by DLPack."""
    import onnxruntime as ort

    def call(leaves: Sequence[Tensor]) -> list[Tensor]:
        feeds = {name: ort.OrtValue.from_dlpack(leaves[i].detach().contiguous()) for name, i in kept}
        outputs = session.run_with_ort_values(names, feeds)
        return [torch.utils.dlpack.from_dlpack(output.to_dlpack()) for output in outputs]

    return call
