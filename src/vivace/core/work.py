"""What a technique may know of the job: facts, counts, where calibration data lie, how long it may take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.layer import Layer
from vivace.core.signature import Signature

Loss = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What weights may be trained by: the user's loss, and the labels of the calibration calls.

    `loss` is (output, target) -> scalar tensor, lower is better; `targets` has one entry for each calibration call. It
    travels to the worker that builds over a private pipe, as the user's model does, and is never stored.
    """

    loss: Loss
    targets: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """An inspected workload.

    `facts` are true of the model as given and of the job. `cost` counts one call of the example. `calibration` is a
    folder of stored calls (`data.samples.read`), or None; `example` one with the example call, first that of the most
    frequent shape. `folder` is the run's own, where conversions that several plans share are kept. `operators` are
    the names of the graph's operators, for techniques that look for one; `layers` its products, in order, and `keep`
    the names of those that the user wants to stay in float. `original` is the folder of the captured original's
    program, None where it is not kept.

    A worker that builds adds what no file holds: `lesson`, the user's loss with the labels of the calibration calls,
    None without a loss; and `build_seconds`, how long building the plan at hand may take, None for as long as it likes.
    """

    name: str
    signature: Signature
    facts: frozenset[Fact]
    cost: Cost
    folder: Path
    calibration: Path | None = None
    example: Path | None = None
    fixed_shapes: bool = False
    operators: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    keep: tuple[str, ...] = ()
    original: Path | None = None
    lesson: Lesson | None = dataclasses.field(default=None, compare=False)
    build_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back, without the lesson: how a job reaches a worker."""
        return {
            "name": self.name,
            "signature": self.signature.to_json(),
            "facts": sorted(fact.name for fact in self.facts),
            "cost": dataclasses.asdict(self.cost),
            "folder": str(self.folder),
            "calibration": str(self.calibration) if self.calibration else None,
            "example": str(self.example) if self.example else None,
            "fixed_shapes": self.fixed_shapes,
            "operators": list(self.operators),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "keep": list(self.keep),
            "original": str(self.original) if self.original else None,
        }

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Work:
        """Read what `to_json` wrote."""
        return Work(
            name=node["name"],
            signature=Signature.from_json(node["signature"]),
            facts=frozenset(Fact[name] for name in node["facts"]),
            cost=Cost(**node["cost"]),
            folder=Path(node["folder"]),
            calibration=Path(node["calibration"]) if node["calibration"] else None,
            example=Path(node["example"]) if node["example"] else None,
            fixed_shapes=node["fixed_shapes"],
            operators=tuple(node["operators"]),
            layers=tuple(Layer(**layer) for layer in node["layers"]),
            keep=tuple(node["keep"]),
            original=Path(node["original"]) if node["original"] else None,
        )
