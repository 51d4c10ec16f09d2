"""Keras models as training jobs: a compiled keras.Model on the torch back end with its loss, optimizer and metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from vivace.core.errors import MissingExtra, UsageError
from vivace.core.registry import is_installed
from vivace.core.training.job import Training

_GIVEN = "_vivace_was_given"
_NUMBERED = re.compile(r"_\d+$")


def keras_training(
    model: Callable[[], Any],
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int = 32,
    epochs: int = 1,
    validation_data: Any = None,
    score: str | None = None,
    shuffle: bool = True,
    seed: int = 0,
    name: str = "keras-training",
) -> Training:
    """A Keras model as a job for `train`, `accelerate` and `parity`; it is trained on Keras' torch back end.

    `model`: () -> a compiled keras.Model, a new one each call; its loss, with what its layers add to it, its optimizer
    with its schedule and its metrics are the job's. Layers draw their weights from the job's `seed`, as after
    `keras.utils.set_random_seed`.
    `x`, `y`, `sample_weight`: arrays as `keras.Model.fit` takes them, or tuples or dicts of arrays, with samples along
    the first axis; or, as `x` alone, a torch Dataset of (x, y) samples.
    `validation_data`: (x, y) or (x, y, sample_weight), which `evaluate` is computed on. `score` is what of it counts:
    the name of a metric as `keras.Model.evaluate` gives it, higher is better, or with a minus sign before it, lower is
    better ("-loss"). Without it the first metric that the model was compiled with, or "-loss" where there is none.

    What `train` returns as `model` holds the Keras model as `keras_model`; its `save` writes a .keras file.

    Raises MissingExtra without Keras; UsageError where Keras runs on another back end, and for models that are not
    compiled, that train by a `train_step` of their own, or scale their loss.

    >>> def build():
    ...     model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3)])
    ...     model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    ...     return model
    >>> job = vv.keras_training(build, np.zeros((64, 8)), np.zeros(64, int), batch_size=16, name="zeros")
    >>> vv.train(job, plan=()).losses[-1] < 1.2
    True
    """
    _keras()
    is_dataset = y is None and hasattr(x, "__getitem__") and not _is_arrays(x)
    data = x if is_dataset else Samples(_tensors((x, y, sample_weight)))
    held_out = None if validation_data is None else _tensors(tuple(validation_data))
    evaluate: Any = None if held_out is None else KerasScore(held_out, score, batch_size)
    factory = KerasFactory(model, pytree.tree_map(lambda leaf: torch.as_tensor(leaf)[None], data[0]))
    return Training(
        model=factory, loss=keras_loss, optimizer=KerasUpdates.of, data=data, batch_size=batch_size, evaluate=evaluate,
        epochs=epochs, name=name, shuffle=shuffle, seed=seed,
    )  # fmt: skip


class Samples(torch.utils.data.Dataset[Any]):
    """Tensors, in any structure, whose first axis counts samples."""

    def __init__(self, columns: Any) -> None:
        self.columns = columns
        lengths = {len(leaf) for leaf in pytree.tree_leaves(columns)}
        if len(lengths) != 1:
            raise UsageError(f"the arrays hold {sorted(lengths)} samples; allowed is the same number in each")
        self.count = lengths.pop()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return pytree.tree_map(lambda column: column[index], self.columns)


class KerasModule(nn.Module):
    """A Keras model as a module whose tensors have names that do not depend on what else Keras has built.

    What learns are its parameters; moving statistics and the states of seed generators are its buffers. They are the
    Keras model's own tensors.
    """

    def __init__(self, keras_model: Any) -> None:
        super().__init__()
        object.__setattr__(self, "keras_model", keras_model)  # no submodule: its tensors would appear once more
        for name, variable in zip(_steady_names(keras_model), keras_model.variables, strict=True):
            if variable.trainable:
                self.register_parameter(name, variable.value)
            else:
                self.register_buffer(name, variable.value)

    keras_model: Any

    def forward(self, x: Any) -> Any:
        """What the Keras model answers, in training or evaluation as this module is."""
        return self.keras_model(x, training=self.training)

    def train(self, mode: bool = True) -> KerasModule:
        """Also for layers that are PyTorch's own."""
        super().train(mode)
        self.keras_model.train(mode)
        return self

    @contextlib.contextmanager
    def standing_in(self, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
        """Other tensors in the places of the model's, by their names here; what the model puts in their place is in
        `tensors` afterwards."""
        places = dict(zip(_steady_names(self.keras_model), self.keras_model.variables, strict=True))
        before = {name: variable._value for name, variable in places.items()}
        for name, variable in places.items():
            variable._value = tensors[name]
        try:
            yield
        finally:
            for name, variable in places.items():
                tensors[name], variable._value = variable._value, before[name]

    def save(self, file: str | Path) -> None:
        """Write the Keras model with its weights as they are, as a .keras file."""
        self.keras_model.save(str(file))

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The parameters, as an iterator that knows whose they are, so that an optimizer of Keras can be made of it."""
        return _Parameters(self)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """This module's own; layers hold the same ones."""
        return super().named_parameters(prefix, False, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """This module's own; layers hold the same ones."""
        return super().named_buffers(prefix, False, remove_duplicate)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """This module, then every layer of the Keras model."""
        yield prefix, self
        for layer in self.keras_model._flatten_layers(include_self=False):
            yield f"{prefix}.{layer.name}" if prefix else layer.name, layer

    def _apply(self, fn: Any, recurse: bool = True) -> KerasModule:
        """Change the Keras model's tensors where they are, so that both go on to share them."""
        with torch.no_grad():
            for tensor in (*self._parameters.values(), *self._buffers.values()):
                if tensor is not None:
                    tensor.data = fn(tensor.data)
        return self


class _Parameters:
    """The parameters of a module, one after the other, and the module."""

    def __init__(self, module: KerasModule) -> None:
        self.module = module
        self._left = iter([parameter for _, parameter in module.named_parameters()])

    def __iter__(self) -> _Parameters:
        return self

    def __next__(self) -> nn.Parameter:
        return next(self._left)


@dataclasses.dataclass(frozen=True)
class KerasFactory:
    """Makes modules of what a function builds; `example` is a batch of one sample, which gives models their shapes."""

    build: Callable[[], Any]
    example: Any

    def __call__(self) -> KerasModule:
        """A new module. Raises UsageError where the function gives something that cannot be trained here."""
        keras = _keras()
        model = self.build()
        if not isinstance(model, keras.Model):
            raise UsageError(f"model returned a {type(model).__name__}; allowed is a compiled keras.Model")
        _check(model, keras.Model)
        _loss_of(model, self.example, training=False)  # what Keras makes when it is first needed is made now
        model.optimizer.build(model.trainable_variables)
        return KerasModule(model)

    def in_float64(self) -> KerasModule:
        """The same with every number in float64."""
        keras = _keras()
        floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        try:
            return self()
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


def keras_loss(model: KerasModule, batch: Any) -> Any:
    """The loss that the model was compiled with, and what its layers add to it."""
    return _loss_of(model.keras_model, batch, model.training)


def _loss_of(keras_model: Any, batch: Any, training: bool) -> Any:
    x, y, *weight = batch
    return keras_model.compute_loss(x, y, keras_model(x, training=training), weight[0] if weight else None)


class KerasUpdates(torch.optim.Optimizer):
    """A Keras model's own optimizer, with the doors of PyTorch's; its state is Keras' own variables."""

    def __init__(self, model: Any) -> None:
        self._keras: Any = model.optimizer
        self._learning: list[Any] = list(model.trainable_variables)
        self._rate = float(self._keras.learning_rate)
        super().__init__([variable.value for variable in self._learning], {"lr": self._rate})
        variables = {f"variable-{number:03d}": one.value for number, one in enumerate(self._keras.variables)}
        self.state[self._learning[0].value] = variables

    @staticmethod
    def of(parameters: Any) -> KerasUpdates:
        """The optimizer of the model that these are the parameters of. Raises UsageError for those of another model."""
        if not isinstance(parameters, _Parameters):
            raise UsageError("the optimizer of a Keras model received the parameters of another one")
        return KerasUpdates(parameters.module.keras_model)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights as Keras does, with a rate that a schedule of PyTorch's may have changed."""
        rate = self.param_groups[0]["lr"]
        if rate != self._rate:
            self._keras.learning_rate = self._rate = rate
        with torch.no_grad():
            self._keras.apply([variable.value.grad for variable in self._learning], self._learning)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put values into Keras' variables. Raises ValueError where they are of another optimizer."""
        own, given = self.state[self._learning[0].value], state_dict["state"].get(0, {})
        if own.keys() != given.keys():
            raise ValueError(f"the optimizer has {len(own)} variables, and {len(given)} were given")
        with torch.no_grad():
            for name, value in given.items():
                own[name].copy_(value)
        self.param_groups[0]["lr"] = self._rate = state_dict["param_groups"][0]["lr"]


@dataclasses.dataclass(frozen=True)
class KerasScore:
    """What `keras.Model.evaluate` says of a model on held-out samples."""

    columns: Any
    score: str | None
    batch_size: int

    def __call__(self, model: KerasModule) -> float:
        """One number, higher is better. Raises UsageError for a name that Keras does not give."""
        x, y, *weight = pytree.tree_map(lambda column: column.numpy(), self.columns)
        found = model.keras_model.evaluate(
            x, y, sample_weight=weight[0] if weight else None, batch_size=self.batch_size, verbose=0, return_dict=True
        )
        metrics = [name for name in found if name != "loss"]
        name = self.score or (metrics[0] if metrics else "-loss")
        if name.removeprefix("-") not in found:
            raise UsageError(f"score is {name!r}; allowed are {', '.join(found)}, each with or without a minus sign")
        return float(found[name.removeprefix("-")]) * (-1 if name.startswith("-") else 1)


def _check(model: Any, kind: type) -> None:
    if not model.compiled or model.optimizer is None:
        raise UsageError(
            "model returned a keras.Model that is not compiled; call model.compile(optimizer=..., loss=...) in the "
            "function, which gives the job its loss, its optimizer and its metrics"
        )
    for part, what in ((model, "a model"), (model.optimizer, "the optimizer of a model")):
        if getattr(part, _GIVEN, False):
            raise UsageError(f"model returned {what} that it had returned before; build a new one in each call")
        setattr(part, _GIVEN, True)
    if type(model).train_step is not kind.train_step:  # type: ignore[attr-defined]
        raise UsageError(
            f"{type(model).__name__} has a train_step of its own, which cannot be taken apart into loss and update; "
            "give a vivace.Training with a loss of yours"
        )
    if model.optimizer.loss_scale_factor is not None:
        raise UsageError("the optimizer scales the loss, as for float16; compile the model in float32")


def _steady_names(model: Any) -> Iterator[str]:
    """The paths of a model's variables, with Keras' running numbers counted from this model's beginning on."""
    known: dict[str, str] = {}
    counts: dict[str, int] = {}
    for variable in model.variables:
        parts = []
        for part in variable.path.split("/"):
            if part not in known:
                stem = _NUMBERED.sub("", part)
                number = counts.get(stem, 0)
                counts[stem] = number + 1
                known[part] = f"{stem}_{number}" if number else stem
            parts.append(known[part])
        yield "/".join(parts).replace(".", "_")


def _tensors(columns: tuple[Any, ...]) -> Any:
    """Arrays as tensors, with floating-point numbers in float32; what is None at the end is left out."""
    while columns and columns[-1] is None:
        columns = columns[:-1]
    return pytree.tree_map(_tensor, columns)


def _tensor(array: Any) -> torch.Tensor:
    values = array if torch.is_tensor(array) else torch.from_numpy(np.ascontiguousarray(array))
    return values.float() if values.is_floating_point() else values


def _is_arrays(x: Any) -> bool:
    return all(hasattr(leaf, "shape") and hasattr(leaf, "__array__") for leaf in pytree.tree_leaves(x))


def _keras() -> Any:
    """Keras on its torch back end. Raises MissingExtra, UsageError."""
    if not is_installed("keras"):
        raise MissingExtra("keras", "keras", "training a Keras model")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
    if keras.backend.backend() != "torch":
        raise UsageError(
            f"Keras runs on its {keras.backend.backend()} back end; allowed is torch: set KERAS_BACKEND=torch before "
            "Keras is imported"
        )
    return keras
