"""The interpreters that the end of a search will ask for: they can start while the model is being looked at."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from vivace.measure.forking import reserve
from vivace.measure.forking.reserve import Wanted
from vivace.measure.live import ArmSpec, preload_of
from vivace.search.caches import as_delivered

DELIVERED = "vivace.artifact.load:open_artifact"
"""What opens an artifact's program in a worker."""


@dataclasses.dataclass(frozen=True)
class Interpreters:
    """Those of a confirmation, for `original` and for an artifact, and the one that checks what is published.

    `variables` are those of the run's workers.
    """

    original: ArmSpec
    variables: Mapping[str, str]

    @contextlib.contextmanager
    def started(self, restarts: int, cores: int) -> Iterator[None]:
        """They start meanwhile, where a core is left for that beside the one that looks at the model."""
        with reserve.started(self.wanted(restarts) if cores > 1 else ()):
            yield

    def wanted(self, restarts: int) -> list[Wanted]:
        """All of them, in the order in which they are taken."""
        first, later = as_delivered(self.variables), self.variables
        pairs = [first, *[later] * (restarts - 1)]
        return [*(kind for variables in pairs for kind in self._pair(variables)), self._checking()]

    def pairs_ahead(self) -> int:
        """How many pairs of a confirmation would find both of theirs ready."""
        kinds = [self._pair(variables) for variables in (as_delivered(self.variables), self.variables)]
        return sum(min(map(reserve.ready, pair)) for pair in kinds)

    def is_check_ahead(self) -> bool:
        """Whether the check would find its own ready, were it made now."""
        return reserve.ready(self._checking()) > 0

    def _pair(self, variables: Mapping[str, str]) -> tuple[Wanted, Wanted]:
        return Wanted(variables, preload_of(self.original)), Wanted(variables, preload_of(ArmSpec(DELIVERED)))

    def _checking(self) -> Wanted:
        return Wanted(self.variables, (DELIVERED.partition(":")[0],))
