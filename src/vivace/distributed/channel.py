"""How ranks are told what to do, and answer: through the store that their rendezvous uses, as JSON texts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed import DistError

FOREVER = timedelta(days=365)
MOMENT = timedelta(seconds=0.25)
ATTEMPT = "attempt"
MEETING = "VIVACE_MEETING"
"""The variable that names, for ranks that start, which coming together they are of."""


class Channel:
    """The keys of one attempt of the ranks, between the launcher and them. Numbers count commands, from 0."""

    def __init__(self, store: Store, attempt: int) -> None:
        self.attempt = attempt
        self._store = PrefixStore(f"attempt-{attempt}", store)

    def tell(self, number: int, method: str, arguments: Mapping[str, Any]) -> None:
        """The launcher's command."""
        self._store.set(f"command/{number}", json.dumps({"method": method, "arguments": dict(arguments)}))

    def command(self, number: int) -> dict[str, Any]:
        """The command, waited for."""
        self._store.wait([f"command/{number}"], FOREVER)
        found: dict[str, Any] = json.loads(self._store.get(f"command/{number}"))
        return found

    def answer(self, number: int, result: Any) -> None:
        """The first rank's answer."""
        self._store.set(f"answer/{number}", json.dumps(result))

    def answered(self, number: int) -> Any:
        """The answer, waited for a moment; raises LookupError where it is not there yet."""
        try:
            self._store.wait([f"answer/{number}"], MOMENT)
        except (DistError, RuntimeError, TimeoutError) as error:
            raise LookupError(number) from error
        return json.loads(self._store.get(f"answer/{number}"))

    def place(self, rank: int, text: str) -> None:
        """Where a rank is."""
        self._store.set(f"place/{rank}", text)

    def places(self, ranks: int) -> dict[int, str]:
        """Where the ranks are that have told so."""
        return {rank: self._store.get(f"place/{rank}").decode() for rank in range(ranks)
                if self._store.check([f"place/{rank}"])}  # fmt: skip

    def fail(self, error: Mapping[str, Any]) -> None:
        """What a rank cannot go on for; the first one that is told stays."""
        self._store.compare_set("error", "", json.dumps(dict(error)))

    def failure(self) -> dict[str, Any] | None:
        """What a rank could not go on for."""
        if not self._store.check(["error"]):
            return None
        found: dict[str, Any] = json.loads(self._store.get("error"))
        return found


def attempts(store: Store) -> int:
    """How often ranks have come together so far."""
    return int(store.add(ATTEMPT, 0))


def arrived(store: Store) -> str:
    """Say that this rank has started; the name of this coming together of ranks, which no other one has, below which
    they find each other."""
    name = os.environ[MEETING]
    store.set(f"arrived/{name}/{os.environ['RANK']}", "")
    return name


def absent(store: Store, name: str, ranks: int) -> list[int]:
    """The ranks that have not started for the meeting of this name."""
    return [rank for rank in range(ranks) if not store.check([f"arrived/{name}/{rank}"])]
