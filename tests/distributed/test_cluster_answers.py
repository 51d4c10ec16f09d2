"""A search over a cluster: what cannot be is told before its nodes are asked, and the winner is put in its place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import vivace as vv
from vivace.api.together.cluster import _Cluster
from vivace.core.errors import UsageError
from vivace.report.progress import SilentProgress

OTHER_DISK = Path("/dev/shm")
NOBODY = "127.0.0.1:9"


def work() -> vv.Workload:
    return vv.Workload(torch.nn.Linear(3, 2), inputs=(torch.ones(1, 3),), name="small")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"resume": True}, "has no resume"),
        ({"exhaustive": True, "resume": True}, "has no exhaustive, resume; allowed beside its own arguments are calls"),
        ({"plans": [["threeds"]]}, "threads"),
    ],
)
def test_what_a_search_over_a_cluster_cannot_do_is_told_before_it_is_asked(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.optimize_on_cluster(work(), NOBODY, **asked)


def test_a_place_that_is_taken_is_told_before_the_cluster_is_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")

    with pytest.raises(UsageError, match="a folder with other files in it"):
        vv.optimize_on_cluster(work(), NOBODY, out=tmp_path)


@pytest.mark.skipif(
    not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
    reason="there is one file system",
)
def test_an_artifact_that_came_back_is_put_in_place_on_another_disk(tmp_path: Path) -> None:
    out = tmp_path / "fast"
    out.mkdir()
    (out / "manifest.json").write_text("before")
    with tempfile.TemporaryDirectory(dir=OTHER_DISK) as name:
        found = Path(name) / "0"
        found.mkdir()
        (found / "manifest.json").write_text("after")
        cluster = _Cluster(None, None, "1s", Path(name), artifacts={("kind", "plan"): found})

        kept = cluster.keep("plan", "kind", out)

    assert kept == out
    assert (out / "manifest.json").read_text() == "after"
    assert [one.name for one in tmp_path.iterdir()] == ["fast"]


class Busy:
    """Ray, for a task that begins when somebody else's work on its node is over."""

    def wait(self, futures: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [], futures

    def get(self, future: Any) -> Any:
        return f"answer to {future}"


def test_a_node_whose_cores_others_have_is_waited_for_and_that_is_told() -> None:
    pytest.importorskip("ray", reason="the search over a cluster needs Ray, of the extra cluster")
    told: list[str] = []

    class Telling(SilentProgress):
        def note(self, text: str) -> None:
            told.append(text)

    cluster = _Cluster(Busy(), None, "1s", Path(), progress=Telling())

    assert cluster._answer("large", "what are you") == "answer to what are you"
    assert told == [
        "large has not answered within 30 s, and is waited for: other work may have its cores, of which a trial takes "
        "all"
    ]
