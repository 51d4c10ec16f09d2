"""Random numbers of a model in stages as one process would draw them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vivace.core.errors import NotApplicable
from vivace.distributed.draws import WholeDraws, is_drawing, zeros_like_in
from vivace.distributed.parts import Part
from vivace.distributed.pipelining.stages import Before


@dataclasses.dataclass(frozen=True)
class _Draw:
    """One operator that draws, with what it was given; `tensors` are as small as an example's."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rows: int

    def again(self, whole: int) -> None:
        """Draw as many numbers as for a batch of so many rows."""
        part = Part(0, self.rows, self.rows)
        mode = WholeDraws(part)
        self.call(*(self._grown(one, mode, whole) for one in self.args),
                  **{name: self._grown(one, mode, whole) for name, one in self.kwargs.items()})  # fmt: skip

    def _grown(self, one: Any, mode: WholeDraws, whole: int) -> Any:
        is_size = isinstance(one, list | tuple | torch.Size) and all(isinstance(size, int) for size in one)
        if not torch.is_tensor(one) and not is_size:
            return one
        shape = list(one.shape if torch.is_tensor(one) else one)
        where = mode.rows_of(shape)
        if where is not None:
            axis, _, length, _ = where
            shape[axis] = length // self.rows * whole
        return zeros_like_in(shape, one) if torch.is_tensor(one) else shape


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is drawn inside."""

    def __init__(self, rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = rows
        self.found: list[_Draw] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_drawing(func, args, kwargs):
            self.found.append(
                _Draw(func, tuple(map(_still, args)), {k: _still(v) for k, v in kwargs.items()}, self.rows)
            )
        return func(*args, **kwargs)


def _still(one: Any) -> Any:
    return torch.empty_like(one) if torch.is_tensor(one) else one


class StageDraws:
    """What a chain of modules draws, module by module, for an example; and the states in which each would begin.

    In a step every stage draws what all modules draw for the whole batch, in the order of one process, and remembers
    the generator before each: so a mask is that of one process, whichever micro-batch it is for, and generators stay
    alike.
    """

    def __init__(self, chain: Sequence[nn.Module], given: Tensor) -> None:
        self._drawn: list[list[_Draw]] = []
        self._states: list[Tensor] = []
        self._device = given.device
        self._part: Part | None = None
        self._sizes = (0, 0)
        self._width = given.shape[1:]
        self._micro: int | None = None
        with torch.no_grad():
            for module in chain:
                with _Recorder(len(given)) as recorder:
                    given = module(given)
                self._drawn.append(recorder.found)

    def check(self, given: Tensor) -> None:
        """Raise NotApplicable where the rows that a model is given are of another shape than those by which it is known
        what it draws."""
        if any(self._drawn) and given.shape[1:] != self._width:
            raise NotApplicable(
                f"pipeline-parallel: a batch has rows of shape {list(given.shape[1:])}, and others of "
                f"{list(self._width)}, for which other masks are drawn; make all rows as long, or leave dropout out"
            )

    def stage(self, modules: Sequence[nn.Module], first: int) -> nn.Sequential:
        """A stage of these modules of the chain, the first of which has this number in it."""
        return nn.Sequential(
            *(_Drawing(module, self, number) if self._drawn[number] else module
              for number, module in enumerate(modules, first))
        )  # fmt: skip

    @contextlib.contextmanager
    def of(self, part: Part, micros: int) -> Iterator[None]:
        """A step on this part of a batch, in so many micro-batches."""
        if not any(self._drawn):
            yield
            return
        self._states.clear()
        for draws in self._drawn:
            self._states.append(self._state())
            for draw in draws:
                draw.again(part.whole)
        after = self._state()
        self._part, self._sizes, self._micro = part, (part.rows // micros, micros), None
        yield
        self._part = None
        self._set(after)

    def begin(self, micro: int) -> None:
        """The forward pass of a micro-batch comes next."""
        self._micro = micro

    def called(self, module: nn.Module, number: int, given: Any) -> Any:
        """What a module of the chain gives, with the numbers that it would draw in one process."""
        if self._part is None or self._micro is None:
            return module(given)
        rows = self._sizes[0]
        part = Part(self._part.start + self._micro * rows, rows, self._part.whole)
        self._set(self._states[number])
        with WholeDraws(part):
            return module(given)

    def _state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)


def called_by(stage: nn.Module) -> Iterator[nn.Module]:
    """The model's own modules that a stage calls, which are also called where the whole model is evaluated."""
    for piece in stage.children():
        own = piece.module if isinstance(piece, _Drawing) else piece
        yield from own.called if isinstance(own, Before) else (own,)


class _Drawing(nn.Module):
    """A module that draws, in a stage."""

    def __init__(self, module: nn.Module, draws: StageDraws, number: int) -> None:
        super().__init__()
        self.module = module
        self._draws = draws
        self._number = number

    def forward(self, given: Any) -> Any:
        """What the module gives."""
        return self._draws.called(self.module, self._number, given)
