"""Two hosts, each a network namespace, train as one over the link between them, and say so when it is cut."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import two_hosts
from safetensors.torch import load_file

import vivace as vv
from vivace.testing.tiny_training import job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]

JOBS = """
import os, subprocess
from vivace.testing.tiny_training import Points, job


class Cutting(Points):
    "Cuts the link to the other host, from the second one, while it trains."

    asked = 0

    def __getitem__(self, index):
        self.asked += 1
        if os.environ.get("RANK") == "1" and self.asked > 130:
            subprocess.run(["ip", "link", "set", "{link}", "down"])
        return super().__getitem__(index)


work = job(epochs=2)
cut = job(data=Cutting())
"""


@functools.cache
def way_apart() -> tuple[str, ...]:
    found = two_hosts.apart()
    if found is None:
        pytest.skip("this machine lets nobody make network namespaces; loopback is tested beside")
    return tuple(found)


def trained(folder: Path, name: str, *options: str) -> tuple[dict[str, Any], str]:
    """`vivace train` on both hosts: exit codes with the bytes that went over the link, and what was told."""
    (folder / "jobs.py").write_text(JOBS.replace("{link}", two_hosts.LINKS[1]))
    vivace = [sys.executable, "-c", "import sys; from vivace.cli import main; sys.exit(main())"]
    meeting = ["--nodes", "2", "--node-rank", "{host}", "--rdzv-endpoint", f"{two_hosts.ADDRESSES[0]}:29411"]
    command = [*vivace, "train", f"{folder / 'jobs.py'}:{name}", *meeting, "--out", str(folder / "run"), *options]
    done = subprocess.run(
        [*way_apart(), sys.executable, two_hosts.__file__, *command], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_two_hosts_train_as_one_over_the_link_between_them(tmp_path: Path) -> None:
    carried, told = trained(tmp_path, "work")
    alone = vv.train(job(epochs=2), plan=(), out=tmp_path / "one")

    assert carried["codes"] == [0, 0], told[-3000:]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    gradients = 4 * sum(value.numel() for value in load_file(tmp_path / "one" / "model.safetensors").values())
    assert (run["plan_name"], run["parity"]["verdict"], run["steps"]) == ("data-parallel", "HELD", alone.steps)
    assert min(carried["sent"], carried["received"]) > run["steps"] * gradients / 2
    assert run["losses"] == pytest.approx(alone.losses, rel=2e-4)
    one, both = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "run"))
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=2e-3, atol=2e-4)


def test_a_link_that_is_cut_is_told_within_the_deadline_with_the_rank_and_the_operation(tmp_path: Path) -> None:
    carried, told = trained(tmp_path, "cut", "--deadline", "6s")

    said = " ".join(told.split())
    assert carried["codes"][0] != 0
    assert re.search(r"rank 1 gives no sign of life, last in .*, and did not come to .*, where rank 0 waits", said), (
        told
    )
    assert "the deadline is 6 s" in said
