"""Which plan each node of a cluster tries next: nodes of one kind of hardware share a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass
class TrialLists:
    """Plans that are still to be tried, by kind of hardware. `kinds` is the kind of each node.

    A node that dies loses the trial that it had; the others go on with what is left of the list.

    >>> spread = TrialLists({"a": "x", "b": "x"}, {"x": ["p", "q", "r"]})
    >>> spread.take("a"), spread.take("b"), spread.lose("a"), spread.take("b"), spread.take("b")
    ('p', 'q', 'p', 'r', None)
    """

    kinds: Mapping[str, str]
    plans: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        self._left = {kind: list(plans) for kind, plans in self.plans.items()}
        self._doing: dict[str, str] = {}
        self._gone: list[str] = []

    @property
    def lost(self) -> tuple[str, ...]:
        """Nodes that died."""
        return tuple(self._gone)

    def take(self, node: str) -> str | None:
        """What a node tries next; None where nothing is left for its kind, and for one that has died."""
        left = self._left.get(self.kinds[node], [])
        self._doing.pop(node, None)
        if node in self._gone or not left:
            return None
        self._doing[node] = left.pop(0)
        return self._doing[node]

    def lose(self, node: str) -> str | None:
        """A node has died; the trial that it lost."""
        if node not in self._gone:
            self._gone.append(node)
        return self._doing.pop(node, None)

    def untried(self) -> dict[str, list[str]]:
        """By kind, what nobody is left to try."""
        alive = {kind for node, kind in self.kinds.items() if node not in self._gone}
        return {kind: list(left) for kind, left in self._left.items() if left and kind not in alive}
