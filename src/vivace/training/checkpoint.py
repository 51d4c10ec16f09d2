"""Checkpoints: everything that a training needs to go on exactly, in safetensors and JSON, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError
from vivace.core.training.rig import Rig

SCHEMA = 1
TENSORS, NOTE = "state.safetensors", "state.json"
KEPT = 2
"""Checkpoints that stay: the newest, and the one before it."""
PREFIX = "step-"
KERNELS = ("fused", "foreach", "capturable", "differentiable")
"""How an optimizer computes its update, which is no part of where a training is."""


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a training is: the epoch, the batch in it that comes next, and the steps taken so far."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0


@checked
class _Note:
    """What state.json holds."""

    schema_version: int
    job: str
    epoch: int
    batch: int
    steps: int
    groups: list[dict[str, Any]]
    scalars: dict[str, float | int | bool | None]
    schedule: dict[str, Any] | None
    python: list[Any]
    python_at_epoch: list[Any]
    numpy: list[Any]
    numpy_at_epoch: list[Any]
    scaling: dict[str, float] | None = None
    proved: bool = False


@dataclasses.dataclass(frozen=True)
class Generators:
    """The states of every global generator."""

    torch: Tensor
    python: Any
    numpy: Any
    devices: tuple[Tensor, ...] = ()

    @staticmethod
    def now() -> Generators:
        """As they are."""
        devices = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
        return Generators(torch.get_rng_state(), random.getstate(), np.random.get_state(), devices)

    def restore(self) -> None:
        """Set them."""
        torch.set_rng_state(self.torch)
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.devices:
            torch.cuda.set_rng_state_all(list(self.devices))


def save(folder: Path, job: str, rig: Rig, position: Position, at_epoch: Generators, is_proved: bool = False) -> Path:
    """Keep a checkpoint under `folder`; older ones but one go, and but the newest of those that are proved: up to them
    every step is known to be the original's. Raises OSError where the disk is full; nothing is lost.

    `at_epoch` are the generators as they were when the epoch began, from which its order is drawn again. Where several
    processes train, all call this; what is kept is what one process would keep, and the first of them writes it.
    """
    found = capture(job, rig, position, at_epoch)
    if rig.ranks is None or rig.ranks.is_first:
        keep(folder, found, is_proved)
    if rig.ranks is not None:
        rig.ranks.meet("a checkpoint")
    return folder / found.name


@dataclasses.dataclass(frozen=True)
class Captured:
    """A checkpoint in memory."""

    name: str
    note: dict[str, Any]
    tensors: dict[str, Tensor]


def capture(job: str, rig: Rig, position: Position, at_epoch: Generators) -> Captured:
    """All that a checkpoint holds, copied, as one process would have it."""
    entries = whole_entries(rig, rig.optimizer.state_dict()["state"])
    scalars = {name: value for name, value in entries.items() if not torch.is_tensor(value)}
    model = {f"model/{name}": value for name, value in rig.model.state_dict().items()}
    whole = model if rig.ranks is None else rig.ranks.whole(model)
    tensors = {name: value for name, value in (entries | whole).items() if torch.is_tensor(value)}
    note, now = _whole_note(job, rig, position, at_epoch, scalars), Generators.now()
    for label, states in (("now", now), ("epoch", at_epoch)):
        tensors[f"generator/{label}"] = states.torch
        tensors[f"generator/{label}/numpy"] = torch.from_numpy(states.numpy[1].astype(np.int64))
        tensors |= {f"generator/{label}/{number}": one for number, one in enumerate(states.devices)}
    note |= {"python": _listed(now.python), "numpy": _numpy(now.numpy)}
    copies = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}
    return Captured(f"{PREFIX}{position.steps:09d}", note, copies)


def _whole_note(
    job: str, rig: Rig, position: Position, at_epoch: Generators, scalars: dict[str, Any]
) -> dict[str, Any]:
    """What state.json holds, but for the generators as they are now."""
    return {
        "schema_version": SCHEMA, "job": job, **dataclasses.asdict(position),
        "groups": settings_of(rig.optimizer), "scalars": scalars,
        "schedule": None if rig.schedule is None else _plain(rig.schedule.state_dict()),
        "scaling": None if rig.scaling is None else rig.scaling.state(),
        "python_at_epoch": _listed(at_epoch.python), "numpy_at_epoch": _numpy(at_epoch.numpy),
    }  # fmt: skip


def keep(folder: Path, found: Captured, is_proved: bool = False) -> None:
    """Write a checkpoint's files, beside and then renamed; older ones go as `save` says."""
    final, note = folder / found.name, {**found.note, "proved": is_proved}
    part = folder / f".{final.name}.part"
    for left in folder.glob(f".{PREFIX}*.part"):  # of a process that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file(found.tensors, part / TENSORS)
        (part / NOTE).write_text(json.dumps(note, allow_nan=False), encoding="utf-8")
        for file in (part / TENSORS, part / NOTE):
            _flush(file)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        _flush(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    proved = newest_proved(folder)
    for old in _all(folder)[:-KEPT]:
        if old != proved:
            shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is there, if any."""
    found = _all(folder)
    return found[-1] if found else None


def newest_proved(folder: Path) -> Path | None:
    """The newest of those that are proved, if any."""
    return next((one for one in reversed(_all(folder)) if _is_proved(one)), None)


def back_to_proved(folder: Path) -> int:
    """Remove what came after the newest checkpoint that is proved; after how many steps that is, 0 where all went."""
    proved = newest_proved(folder)
    for one in _all(folder):
        if proved is None or one.name > proved.name:
            shutil.rmtree(one)
    return 0 if proved is None else int(proved.name.removeprefix(PREFIX))


def _is_proved(checkpoint: Path) -> bool:
    try:
        note = strict_json.loads((checkpoint / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("proved") is True


def restore(checkpoint: Path, job: str, rig: Rig) -> tuple[Position, Generators]:
    """Put a checkpoint's state into a rig that was made of the same job, and set the generators.

    Returns where to go on, and the generators as the epoch began. Raises ArtifactError where it does not fit.
    """
    try:
        note = TypeAdapter(_Note).validate_python(strict_json.loads((checkpoint / NOTE).read_text(encoding="utf-8")))
        tensors = load_file(checkpoint / TENSORS)
    except (OSError, ValueError, ValidationError, SafetensorError) as error:
        raise ArtifactError(
            f"the checkpoint {checkpoint} cannot be read: {error}; remove it to start afresh"
        ) from error
    if note.schema_version != SCHEMA:
        raise ArtifactError(
            f"the checkpoint {checkpoint} has schema {note.schema_version}; this version of Vivace reads {SCHEMA}"
        )
    if note.job != job:
        raise ArtifactError(
            f"the checkpoint {checkpoint} is of another job or plan; give another out, or remove it to start afresh"
        )
    try:
        model = {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}
        if rig.ranks is None:
            rig.model.load_state_dict(model)
        else:
            rig.ranks.load(rig.model, model)
        _restore_optimizer(rig, tensors, note)
        if rig.schedule is not None and note.schedule is not None:
            rig.schedule.load_state_dict(_as_before(note.schedule, rig.schedule.state_dict()))
            rig.optimizer._opt_called = note.steps > 0  # type: ignore[attr-defined]  # a schedule warns by it
        if rig.scaling is not None and note.scaling is not None:
            rig.scaling.load(note.scaling)
        now = _generators("now", tensors, note.python, note.numpy)
        at_epoch = _generators("epoch", tensors, note.python_at_epoch, note.numpy_at_epoch)
        now.restore()
    except (KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(
            f"the checkpoint {checkpoint} does not fit the job: {error}; the model or its optimizer has changed since "
            "it was written: give another out, or remove it to start afresh"
        ) from error
    return Position(note.epoch, note.batch, note.steps), at_epoch


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / NOTE).is_file()) if folder.is_dir() else []


def settings_of(optimizer: object) -> list[dict[str, Any]]:
    """The settings of an optimizer's groups as JSON; none of what is no optimizer, which others tell."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return []
    return [_plain(group) for group in optimizer.state_dict()["param_groups"]]


def whole_entries(rig: Rig, states: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What an optimizer keeps of each parameter, by "optimizer/NUMBER/KEY": tensors, and what else there is, as one
    process would have it. Where several train, all call this.

    Of a parameter that another stage trains this rank may hold something too, such as what a constructor made, or what
    was read from a checkpoint: that is not where the training is.
    """
    trained = _trained(rig)
    mine = {f"optimizer/{number}/{key}": value
            for number, kept in states.items() if number in trained for key, value in kept.items()}  # fmt: skip
    if rig.ranks is None:
        return mine
    others = {name: value for name, value in mine.items() if not torch.is_tensor(value)}
    found = {name: value for told in reversed(rig.ranks.told_by_all(others)) for name, value in told.items()}
    whole = rig.ranks.whole({name: value for name, value in mine.items() if torch.is_tensor(value)})
    return found | {name: value for name, value in whole.items() if value is not None}


def _trained(rig: Rig) -> frozenset[int]:
    """The numbers of the parameters that this rank trains, as the optimizer counts them."""
    parameters = [parameter for group in rig.optimizer.param_groups for parameter in group["params"]]
    ranks, names = rig.ranks, {id(one): name for name, one in rig.model.named_parameters(remove_duplicate=False)}
    return frozenset(
        number
        for number, one in enumerate(parameters)
        if ranks is None or id(one) not in names or ranks.trains(names[id(one)])
    )


def _restore_optimizer(rig: Rig, tensors: Mapping[str, Tensor], note: _Note) -> None:
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in rig.optimizer.param_groups for parameter in group["params"]]
    everything = {**{k: v for k, v in tensors.items() if k.startswith("optimizer/")}, **note.scalars}
    trained = _trained(rig)
    for name, value in everything.items():
        _, number, key = name.split("/", 2)
        if int(number) not in trained:
            continue
        if rig.ranks is not None and torch.is_tensor(value):
            value = rig.ranks.part_of(value, parameters[int(number)])
        state.setdefault(int(number), {})[key] = value
    own = rig.optimizer.state_dict()["param_groups"]
    groups = [
        {key: _typed(value, mine.get(key)) for key, value in group.items()}
        for group, mine in zip(note.groups, own, strict=True)
    ]
    rig.optimizer.load_state_dict({"state": state, "param_groups": with_own_kernels(groups, own)})


def with_own_kernels(groups: list[dict[str, Any]], own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings of an optimizer's groups, but for how an update is computed: that is as in `own`, which a technique
    may have set."""
    return [
        {**group, **{name: mine[name] for name in KERNELS if name in mine}}
        for group, mine in zip(groups, own, strict=True)
    ]


def _typed(value: Any, like: Any) -> Any:
    """JSON has lists where the optimizer had tuples, and numbers where it had tensors."""
    if torch.is_tensor(like):
        return torch.tensor(value, dtype=like.dtype)
    return tuple(value) if isinstance(like, tuple) else value


def _as_before(value: Any, like: Any) -> Any:
    """A schedule's state with what JSON has no form for as a fresh schedule has it: mappings of numbers, tuples."""
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        names = {str(key): key for key in like}
        entries = {names.get(key, key): _as_before(one, like.get(names.get(key, key))) for key, one in value.items()}
        return Counter(entries) if isinstance(like, Counter) else entries
    if isinstance(value, list) and isinstance(like, list | tuple) and len(value) == len(like):
        return type(like)(_as_before(one, other) for one, other in zip(value, like, strict=True))
    return value


def _generators(label: str, tensors: Mapping[str, Tensor], python: list[Any], numpy: list[Any]) -> Generators:
    kind, place, has_gauss, cached = numpy
    prefix = f"generator/{label}/"
    devices = sorted(
        (int(name[len(prefix) :]), name) for name in tensors if name.startswith(prefix) and name[-1].isdigit()
    )
    keys = tensors[f"{prefix}numpy"].numpy().astype(np.uint32)
    return Generators(
        tensors[f"generator/{label}"],
        (python[0], tuple(python[1]), python[2]),
        (kind, keys, place, has_gauss, cached),
        tuple(tensors[name] for _, name in devices),
    )


def _listed(state: Any) -> list[Any]:
    return [state[0], list(state[1]), state[2]]


def _numpy(state: Any) -> list[Any]:
    return [state[0], state[2], state[3], state[4]]


def _plain(value: Any) -> Any:
    """Settings as JSON: tensors of one element as numbers, tuples as lists; functions of a schedule are made anew."""
    if torch.is_tensor(value):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if not callable(inner)}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
