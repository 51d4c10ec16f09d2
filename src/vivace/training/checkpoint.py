"""Checkpoints: everything that a training needs to go on exactly, in safetensors and JSON."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError, UsageError
from vivace.core.training.rig import Rig
from vivace.training.keeping.files import NOTE, PREFIX, TENSORS, Captured
from vivace.training.keeping.own_state import Kept, OwnState
from vivace.training.keeping.values import Unwritable, is_dense, read, written

SCHEMA = 1
KERNELS = ("fused", "foreach", "capturable", "differentiable")
"""How an optimizer computes its update, which is no part of where a training is."""


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a training is: the epoch, the batch in it that comes next, and the steps taken so far."""

    epoch: int = 0
    batch: int = 0
    steps: int = 0


class Damaged(ArtifactError):
    """A checkpoint that cannot be read, whatever it is of."""


@checked
class _Note:
    """What state.json holds. `others` are of the optimizer and the model what is neither tensor nor number; `own` is
    what the job's own code keeps, `lost` what of that could not be kept."""

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
    others: dict[str, Any] = dataclasses.field(default_factory=dict)
    own: list[Any] = dataclasses.field(default_factory=list)
    own_at_epoch: list[Any] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)


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


@dataclasses.dataclass(frozen=True)
class Moment:
    """What draws and counts, as it stands: the global generators, and what the job's own code keeps."""

    generators: Generators
    own: Kept = dataclasses.field(default_factory=Kept)

    @staticmethod
    def now(own: OwnState) -> Moment:
        """As it is."""
        return Moment(Generators.now(), own.now())

    def restore(self, own: OwnState) -> None:
        """Set it."""
        self.generators.restore()
        own.restore(self.own)


def capture(job: str, rig: Rig, position: Position, at_epoch: Moment, now: Moment) -> Captured:
    """All that a checkpoint holds, copied, as one process would have it. `at_epoch` is what stood when the epoch began,
    from which its order is drawn again. Where several processes train, all call this."""
    entries = whole_entries(rig, rig.optimizer.state_dict()["state"])
    state = rig.model.state_dict()
    model = {f"model/{name}": value for name, value in state.items() if is_dense(value)}
    whole = model if rig.ranks is None else rig.ranks.whole(model)
    tensors = {name: value for name, value in (entries | whole).items() if is_dense(value)}
    rest = {name: value for name, value in entries.items() if not is_dense(value)}
    scalars = {name: value for name, value in rest.items() if _is_number(value)}
    extra = {f"model/{name}": value for name, value in state.items() if not is_dense(value)}
    others = _written({name: value for name, value in rest.items() if name not in scalars} | extra, tensors)
    note: dict[str, Any] = {
        "schema_version": SCHEMA, "job": job, **dataclasses.asdict(position),
        "groups": settings_of(rig.optimizer), "scalars": scalars, "others": others,
        "schedule": None if rig.schedule is None else _plain(rig.schedule.state_dict()),
        "scaling": None if rig.scaling is None else rig.scaling.state(),
        "own": now.own.written(tensors, "own/now"), "own_at_epoch": at_epoch.own.written(tensors, "own/epoch"),
        "lost": list(now.own.lost),
    }  # fmt: skip
    for label, ending, states in (("now", "", now.generators), ("epoch", "_at_epoch", at_epoch.generators)):
        tensors[f"generator/{label}"] = states.torch
        tensors[f"generator/{label}/numpy"] = torch.from_numpy(states.numpy[1].astype(np.int64))
        tensors |= {f"generator/{label}/{number}": one for number, one in enumerate(states.devices)}
        note |= {f"python{ending}": _listed(states.python), f"numpy{ending}": _numpy(states.numpy)}
    copies = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}
    return Captured(f"{PREFIX}{position.steps:09d}", note, copies)


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, bool, float) and value == value and abs(value) != float("inf"))


def _written(values: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What is no tensor, as JSON. Raises UsageError for what has no form there, naming it."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            found[name] = written(value, tensors, f"others/{name}")
        except Unwritable as error:
            raise UsageError(
                f"{name} holds a {error}, which no checkpoint can hold; allowed are tensors, numbers, texts and "
                "generators, in lists, tuples, sets and dictionaries"
            ) from error
    return found


def restore(checkpoint: Path, job: str, rig: Rig, own: OwnState) -> tuple[Position, Moment, list[str]]:
    """Put a checkpoint's state into a rig that was made of the same job, and set the generators.

    Returns where to go on, what stood as the epoch began, and what could not be kept. Raises Damaged where it cannot be
    read, ArtifactError where it does not fit.
    """
    try:
        note = TypeAdapter(_Note).validate_python(strict_json.loads((checkpoint / NOTE).read_text(encoding="utf-8")))
        tensors = load_file(checkpoint / TENSORS)
    except (OSError, ValueError, ValidationError, SafetensorError) as error:
        raise Damaged(f"the checkpoint {checkpoint} cannot be read: {error}; remove it to start afresh") from error
    if note.schema_version != SCHEMA:
        raise ArtifactError(
            f"the checkpoint {checkpoint} has schema {note.schema_version}; this version of Vivace reads {SCHEMA}"
        )
    if note.job != job:
        raise ArtifactError(
            f"the checkpoint {checkpoint} is of another job or plan; give another out, or remove it to start afresh"
        )
    try:
        others = {name: read(value, tensors) for name, value in note.others.items()}
        model = {name[6:]: value for name, value in (tensors | others).items() if name.startswith("model/")}
        if rig.ranks is None:
            rig.model.load_state_dict(model)
        else:
            rig.ranks.load(rig.model, {name: value for name, value in model.items() if torch.is_tensor(value)})
        _restore_optimizer(rig, tensors, {**note.scalars, **others}, note.groups)
        if rig.schedule is not None and note.schedule is not None:
            rig.schedule.load_state_dict(_as_before(note.schedule, rig.schedule.state_dict()))
            rig.optimizer._opt_called = note.steps > 0  # type: ignore[attr-defined]  # a schedule warns by it
        if rig.scaling is not None and note.scaling is not None:
            rig.scaling.load(note.scaling)
        now = Moment(_generators("now", tensors, note.python, note.numpy), Kept.read(note.own, tensors))
        at_epoch = Moment(
            _generators("epoch", tensors, note.python_at_epoch, note.numpy_at_epoch),
            Kept.read(note.own_at_epoch, tensors),
        )
        now.restore(own)
    except (KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(
            f"the checkpoint {checkpoint} does not fit the job: {error}; the model or its optimizer has changed since "
            "it was written: give another out, or remove it to start afresh"
        ) from error
    return Position(note.epoch, note.batch, note.steps), at_epoch, note.lost


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


def _restore_optimizer(
    rig: Rig, tensors: Mapping[str, Tensor], others: Mapping[str, Any], groups_kept: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in rig.optimizer.param_groups for parameter in group["params"]]
    everything = {name: value for name, value in {**tensors, **others}.items() if name.startswith("optimizer/")}
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
        for group, mine in zip(groups_kept, own, strict=True)
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
    """JSON has lists where the optimizer had tuples, and numbers where it had tensors or NumPy's."""
    if torch.is_tensor(like):
        return torch.tensor(value, dtype=like.dtype)
    if isinstance(like, np.generic):
        return type(like)(value)
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
    """Settings as JSON: tensors and NumPy's numbers as numbers, tuples as lists; functions of a schedule are made
    anew."""
    if torch.is_tensor(value) or isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if not callable(inner)}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
