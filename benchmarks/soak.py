"""A soak: good clients whose every answer is checked, beside some that hang up, send garbage, too much or slowly."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

GOOD_THREADS, BAD_THREADS = 6, 2
TOLERANCE = 1e-3
SLOW_SECONDS = 0.5
Read = Callable[[bytes], np.ndarray]


class Soak:
    """Drives a server at `address`. `good` are whole requests with the outputs that they must get; `read` takes the
    output from an answer's body. `workers` are processes to kill, spread over the run; `pids` looks them up anew."""

    def __init__(
        self,
        address: tuple[str, int],
        good: Sequence[tuple[bytes, np.ndarray]],
        read: Read,
        workers: Sequence[int] = (),
        next_worker: Callable[[], int | None] | None = None,
        kills: int = 1,
    ) -> None:
        self._address = address
        self._good = good
        self._read = read
        self._workers = list(workers)
        self._next_worker = next_worker
        self._kills = kills
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._left = 0
        self._total = 0

    def run(self, requests: int) -> dict[str, Any]:
        """So many requests of all kinds; how many were good, bad, wrong and lost."""
        self._left = self._total = requests
        kinds = [self._behave] * GOOD_THREADS + [self._misbehave] * BAD_THREADS
        threads = [threading.Thread(target=kind, args=(seed,)) for seed, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {name: self._counts[name] for name in ("good", "bad", "wrong", "lost", "killed")}

    def _take(self) -> bool:
        """Whether one more request is to be made; kills a worker when it is time."""
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= 1
            done = self._total - self._left
            if self._counts["killed"] < self._kills and done > (self._counts["killed"] + 1) * self._total / (
                self._kills + 2
            ):
                self._kill()
            return True

    def _kill(self) -> None:
        pid = self._next_worker() if self._next_worker is not None else (self._workers.pop() if self._workers else None)
        if pid is not None:
            self._counts["killed"] += 1
            os.kill(pid, signal.SIGKILL)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _behave(self, seed: int) -> None:
        chance = random.Random(seed)
        line = self._connect()
        while self._take():
            request, wanted = chance.choice(self._good)
            try:
                line.sendall(request)
                status, body = _answer(line)
            except OSError:
                status, body = 0, b""
            if status != 200:
                self._count("lost")
                line.close()
                line = self._connect()
            else:
                self._count(
                    "good" if np.allclose(self._read(body), wanted, rtol=TOLERANCE, atol=TOLERANCE) else "wrong"
                )
        line.close()

    def _misbehave(self, seed: int) -> None:
        chance = random.Random(seed)
        manners = (self._hang_up, self._garbage, self._oversize, self._hang_up_in_the_middle, self._poison, self._slow)
        weights = (30, 30, 10, 20, 10, 1)
        while self._take():
            with contextlib.suppress(OSError):
                chance.choices(manners, weights)[0](chance)
            self._count("bad")

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=60)

    def _hang_up(self, chance: random.Random) -> None:
        with self._connect() as line:
            line.sendall(chance.choice(self._good)[0])

    def _hang_up_in_the_middle(self, chance: random.Random) -> None:
        request = chance.choice(self._good)[0]
        with self._connect() as line:
            line.sendall(request[: chance.randrange(len(request))])

    def _garbage(self, chance: random.Random) -> None:
        with self._connect() as line:
            line.sendall(chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n")
            line.settimeout(0.2)
            line.recv(1000)

    def _oversize(self, chance: random.Random) -> None:
        with self._connect() as line:
            line.sendall(
                b"POST /v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n" + b"x" * 5000
            )
            line.settimeout(2.0)
            line.recv(1000)

    def _poison(self, chance: random.Random) -> None:
        """A good request whose last bytes, a part of a tensor, are all ones."""
        request = bytearray(chance.choice(self._good)[0])
        request[-4:] = b"\xff\xff\xff\xff"
        with self._connect() as line:
            line.sendall(bytes(request))
            line.recv(1000)

    def _slow(self, chance: random.Random) -> None:
        request = chance.choice(self._good)[0]
        with self._connect() as line:
            line.sendall(request[:-1])
            threading.Event().wait(SLOW_SECONDS)
            line.sendall(request[-1:])
            line.recv(1000)


def _answer(line: socket.socket) -> tuple[int, bytes]:
    found = b""
    while b"\r\n\r\n" not in found:
        part = line.recv(65536)
        if not part:
            return 0, b""
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    rows = head.lower().split(b"\r\n")
    length = next((int(row[15:]) for row in rows if row.startswith(b"content-length:")), 0)
    while len(body) < length:
        part = line.recv(65536)
        if not part:
            return 0, b""
        body += part
    return int(head[9:12]), body
