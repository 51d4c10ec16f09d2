"""`vivace optimize --cluster`, through the command line: two Ray nodes that differ, one killed; a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the search over a cluster needs Ray, of the extra cluster")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]

WORK = """
import torch
import vivace as vv

torch.manual_seed(0)
chain = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8)))
work = vv.Workload(chain, inputs=(torch.randn(16, 64),), name="chain")
"""

CLUSTER = """
import subprocess, sys
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"large": 1}})
    little = cluster.add_node(num_cpus=1, resources={"little": 1})
    command = [*sys.argv[2:], "--cluster", cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as verb:
        for line in verb.stderr:
            sys.stderr.write(line)
            if sys.argv[1] == "kill" and line.startswith("try: 0 of"):
                cluster.remove_node(little, allow_graceful=False)
                sys.argv[1] = "killed"
        sys.stdout.write(verb.stdout.read())
    cluster.shutdown()
    sys.exit(verb.returncode)
"""


def verb(folder: Path, *options: str) -> list[str]:
    """The command line of a search with one plan, whose answer is one document."""
    (folder / "work.py").write_text(WORK)
    vivace = [sys.executable, "-c", "import sys; from vivace.cli import main; sys.exit(main())"]
    asked = ["--plan", '["inference-mode"]', "--time", "40s", "--json", *options]
    return [*vivace, "optimize", f"{folder / 'work.py'}:work", *asked]


def ran(command: list[str], **variables: str) -> tuple[int, dict[str, Any]]:
    """Its exit code, and its document."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env={**os.environ, **variables})
    assert done.returncode in (0, 3), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


def on_two_nodes(folder: Path, how: str, prices: str) -> tuple[int, dict[str, Any]]:
    """The verb on two nodes: "large" with two cores, and "little" with one, which dies if `how` is "kill"."""
    (folder / "cluster.py").write_text(CLUSTER)
    return ran([sys.executable, str(folder / "cluster.py"), how, *verb(folder, "--price", prices)])


def test_two_nodes_are_ranked_by_time_and_by_cost(tmp_path: Path) -> None:
    code, found = on_two_nodes(tmp_path, "", "large=36,little=0.0036")

    cores = {node["kind"]: node["cores"] for node in found["nodes"]}
    assert sorted(cores.values()) == [1, 2]
    assert [cores[kind] for kind in found["by_cost"]] == [1, 2]
    costs = {cores[one["kind"]]: one["cost_per_million_calls"] for one in found["standings"]}
    seconds = {cores[one["kind"]]: one["seconds"] for one in found["standings"]}
    assert costs == {1: pytest.approx(seconds[1]), 2: pytest.approx(1e4 * seconds[2])}
    assert [one["seconds"] for one in found["standings"]] == sorted(seconds.values())
    assert found["lost"] == []
    assert code == (0 if found["standings"][0]["speedup"] else 3)


def test_a_node_that_is_killed_loses_its_trial_and_nothing_else(tmp_path: Path) -> None:
    _, found = on_two_nodes(tmp_path, "kill", "large=36")

    (lost,) = found["lost"]
    ended = {trial["node"]: (trial["outcome"], trial["reason"]) for trial in found["trials"]}
    assert ended.pop(lost) == ("infra_error", "its node died, and the trial with it")
    ((outcome, _),) = ended.values()
    assert outcome != "infra_error"
    (standing,) = found["standings"]
    assert lost not in standing["nodes"]
    assert found["by_cost"] == [standing["kind"]]


def test_a_ray_of_its_own_is_started_when_local_is_asked_for(tmp_path: Path) -> None:
    asked = verb(tmp_path, "--cluster", "local", "--out", str(tmp_path / "fast"))

    code, found = ran(asked, RAY_ADDRESS="127.0.0.1:9")  # a cluster that is there, and is not asked

    assert len(found["nodes"]) == len(found["trials"]) == len(found["standings"]) == 1
    assert found["by_cost"] == []
    assert (tmp_path / "fast" / "manifest.json").is_file() == (code == 0)


def test_an_address_where_nobody_answers_is_told(tmp_path: Path) -> None:
    asked = verb(tmp_path, "--cluster", "127.0.0.1:9")

    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)

    assert done.returncode == 5, done.stderr[-3000:]
    assert json.loads(done.stdout)["error"]["message"].startswith("no Ray cluster answers at 127.0.0.1:9 (")
