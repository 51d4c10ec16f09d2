"""A search over two Ray nodes with different resources, one of which dies: it loses its trial alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the search over a cluster needs Ray, of the extra cluster")

SCRIPT = """
import sys, threading
import ray
import torch
from ray.cluster_utils import Cluster

import vivace as vv
from vivace.api.together.cluster import optimize_on_cluster
from vivace.report.progress import SilentProgress

PLANS = [["inference-mode"], ["inference-mode", {"technique": "threads", "settings": {"count": 1}}]]


class Killing(SilentProgress):
    def stage(self, name, detail=""):
        if name == "try" and not self.killed and "0 of" in detail:
            self.killed = True
            cluster.remove_node(small, allow_graceful=False)

    killed = False


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"large": 1}})
    small = cluster.add_node(num_cpus=1, resources={"little": 1})
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8)))
    work = vv.Workload(model, inputs=(torch.randn(16, 64),), name="chain")
    found = optimize_on_cluster(
        work, cluster.address, prices={"large": 0.5, "little": 0.1}, plans=PLANS, trial_time="20s", progress=Killing(),
    )
    cores = sorted(node.cores for node in found.nodes)
    lost = [trial.outcome.value for trial in found.trials if "died" in trial.reason]
    tried = [trial for trial in found.trials if trial.original_seconds is not None]
    print(cores, lost, len(found.lost), len(tried), [one.cost_per_million_calls is not None for one in found.standings],
          len(found.untried))
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_a_node_that_dies_loses_only_its_trial(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(SCRIPT)

    done = subprocess.run([sys.executable, str(tmp_path / "search.py")], capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[1, 2] ['infra_error'] 1 2 [True] 1"


CRASHING = """
import os, signal, sys
import torch
from ray.cluster_utils import Cluster

import vivace as vv


class Deadly:
    "Data that end, once, the process on a node that reads them."

    def __init__(self):
        self.driver, self.flag = os.getpid(), sys.argv[1]

    def __iter__(self):
        if os.getpid() != self.driver and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        for seed in range(12):
            torch.manual_seed(seed)
            yield torch.randn(16, 8), torch.randint(4, (16,))


def device_of(name):
    return os.environ.get("CUDA_VISIBLE_DEVICES")


if __name__ == "__main__":
    from vivace.api.together import cluster as room

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 2})
    torch.manual_seed(0)
    work = vv.Workload(
        torch.nn.Linear(8, 4), inputs=(torch.randn(16, 8),), data=Deadly(), metric=vv.metrics.accuracy, name="small",
    )
    plans = [["inference-mode"], ["inference-mode", {"technique": "threads", "settings": {"count": 1}}]]
    found = room.optimize_on_cluster(work, cluster.address, plans=plans, trial_time="20s")
    print([trial.outcome.value for trial in found.trials if "its process died" in trial.reason], found.lost,
          len(found.trials) > 1, all(trial.original_seconds for trial in found.trials[1:]))
    with room._joined(cluster.address) as ray:
        asked = room._Cluster(ray, None, "1s", None)
        (node,) = asked.nodes()
        print(ray.get(asked._on(node.name, device_of).remote("")))
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_a_process_that_dies_on_a_node_loses_its_trial_and_not_the_node_with_its_cards(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(CRASHING)

    command = [sys.executable, str(tmp_path / "search.py"), str(tmp_path / "flag")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == ["['crashed'] () True True", "0,1"]
