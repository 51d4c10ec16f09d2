"""TARGET on the command line: `file.py:name`, a model file, or an artifact, turned into something to work with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from vivace.artifact.manifest import MANIFEST
from vivace.core.errors import UsageError, unknown_name
from vivace.core.prediction.work import Transformer
from vivace.core.training.job import Training
from vivace.core.workload import MODEL_FILES, Workload

IN_WORDS = "transformer:"
Target = Workload | Training | Transformer
FORMS = f"path/to/file.py:name, a model file ({', '.join(MODEL_FILES)}), or the folder of an artifact"


def resolve(target: str) -> Workload | Path:
    """The Workload that a target names, or the folder of an artifact.

    `file.py:name` may name a Workload or a function without arguments that returns one. Raises UsageError when the
    target does not exist, cannot be imported, or is something else.
    """
    path, colon, name = target.rpartition(":")
    if colon and path.endswith(".py"):
        return _workload_of(Path(path), name)
    path_only = Path(target)
    if path_only.suffix == ".py":
        raise UsageError(
            f"the target {target} names a file but nothing in it; write {target}:NAME, where NAME is a "
            "Workload or a function that returns one"
        )
    if path_only.is_dir():
        if (path_only / MANIFEST).is_file():
            return path_only
        raise UsageError(f"the folder {target} is not an artifact: it has no {MANIFEST}; allowed are {FORMS}")
    if path_only.suffix in MODEL_FILES:
        return Workload(path_only, name=path_only.stem)
    if not path_only.exists():
        raise UsageError(f"there is nothing at {target}; allowed are {FORMS}")
    raise UsageError(f"the target {target} is of no kind that is known here; allowed are {FORMS}")


def resolve_workload(target: str) -> Workload:
    """Like `resolve`, for verbs that need a model with its data: an artifact is refused."""
    found = resolve(target)
    if isinstance(found, Path):
        raise UsageError(f"{target} is an artifact, which is optimized already; give the original model: {FORMS}")
    return found


def resolve_training(target: str) -> Training:
    """The Training that `file.py:name` names, or that the function of this name returns. Raises UsageError."""
    path, colon, name = target.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError(
            f"the target is {target}; allowed is path/to/file.py:name, where name is a vivace.Training or a function "
            "that returns one"
        )
    found = _named(Path(path), name, Training)
    if not isinstance(found, Training):
        raise _wrong_kind(target, found, "Training")
    return found


def resolve_predicted(target: str) -> Target:
    """What a target of `predict` names: also a Transformer, of a file or in words after "transformer:".

    >>> resolve_predicted("transformer:layers=2,width=64,heads=4,sequence=32").parameters
    3314752
    """
    if target.startswith(IN_WORDS):
        return _in_words(target.removeprefix(IN_WORDS))
    path, colon, name = target.rpartition(":")
    if colon and path.endswith(".py"):
        return _named(Path(path), name, Transformer)
    return resolve_workload(target)


def _in_words(text: str) -> Transformer:
    """A transformer from its sizes, such as layers=24,width=2048,heads=16,sequence=2048."""
    sizes = {}
    for word in text.split(","):
        name, sign, value = word.strip().partition("=")
        if not sign or not value.strip().isdigit():
            raise UsageError(
                f"the target has {word.strip()!r}; allowed are sizes such as layers=24, with commas between"
            )
        sizes[name.strip()] = int(value)
    try:
        return Transformer(**sizes)  # type: ignore[arg-type]
    except TypeError as error:
        fields = "layers, width, heads, sequence, vocabulary and feed_forward"
        raise UsageError(
            f"the target's sizes are {', '.join(sizes)}; allowed are {fields}, the first four needed"
        ) from error


def _workload_of(file: Path, name: str) -> Workload:
    found = _named(file, name, Workload)
    if not isinstance(found, Workload):
        raise _wrong_kind(f"{file}:{name}", found, "Workload")
    return found


def _wrong_kind(target: str, found: Target, wanted: str) -> UsageError:
    verb = {"Workload": "optimize", "Training": "train", "Transformer": "predict"}[type(found).__name__]
    return UsageError(f"{target} is a {type(found).__name__}, which `vivace {verb}` takes; give a vivace.{wanted}")


def _named(file: Path, name: str, wanted: type[Target]) -> Target:
    """What a file has under a name: a Workload, Training or Transformer, or what a function that returns one gives."""
    module = import_file(file)
    kinds = (Workload, Training, Transformer)
    if not hasattr(module, name):
        public = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_")
            and (isinstance(value, kinds) or getattr(value, "__module__", "") == module.__name__)
        ]
        raise unknown_name(f"name in {file}", name, public)
    found: Any = getattr(module, name)
    if callable(found) and not isinstance(found, kinds):
        found = _called(found, file, name)
    if not isinstance(found, kinds):
        raise UsageError(
            f"{file}:{name} is a {type(found).__name__}; allowed is a vivace.{wanted.__name__} or a function "
            "without arguments that returns one"
        )
    made: Target = found
    return made


def import_file(file: Path) -> ModuleType:
    """Import a Python file under its own name, with its folder on the search path, as `python file.py` has it."""
    if not file.is_file():
        raise UsageError(f"there is no file {file}; check the path")
    folder = str(file.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(_module_name(file), file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        del sys.modules[spec.name]
        raise UsageError(f"{file} cannot be imported: {_where(error, file)}") from error
    return module


def _module_name(file: Path) -> str:
    """The file's stem, unless a module of that name is imported already from elsewhere."""
    taken = sys.modules.get(file.stem)
    same = taken is not None and getattr(taken, "__file__", None) == str(file)
    return file.stem if taken is None or same else f"{file.stem}_target"


def _called(function: Any, file: Path, name: str) -> Any:
    try:
        return function()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UsageError(f"{file}:{name}() failed: {_where(error, file)}; it is called without arguments") from error


def _where(error: Exception | SystemExit, file: Path) -> str:
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno:
        line = error.lineno
    place = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {error}{place}"
