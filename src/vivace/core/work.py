"""What a technique may know of the job: the model's facts and counts, and where calibration data lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.layer import Layer
from vivace.core.signature import Signature


@dataclasses.dataclass(frozen=True)
class Work:
    """An inspected workload.

    `facts` are true of the model as given and of the job. `cost` counts one call of the example. `calibration` is a
    folder of stored calls (`data.samples.read`), or None; `example` one with the example call. `folder` is the run's
    own, where conversions that several plans share are kept. `operators` are the names of the graph's operators, for
    techniques that look for one; `layers` its products, in order, and `keep` the names of those that the user wants to
    stay in float.
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

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back: how a job reaches a worker."""
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
        )
