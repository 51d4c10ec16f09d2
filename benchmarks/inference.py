"""The benchmark of inference: our chosen plan beside what other tools give, on fifteen networks.

python benchmarks/inference.py                     # hours on two cores; goes on where it was stopped
python benchmarks/inference.py --quick --only mnist_mlp
python benchmarks/inference.py --exhaustive --only digits_cnn transformer
python benchmarks/inference.py --device cuda --only resnet18 vision_transformer --results /path/to/folder
python benchmarks/inference.py --table             # writes the table into README.md from what is there
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import warnings
from pathlib import Path
from typing import Any

import race
import table
from peers import ON_CARD, PEERS
from prepare import NotAvailable
from vivace.devices.machine import detect
from vivace.measure import environment

PACKAGES = (
    "torch", "onnxruntime", "openvino", "nncf", "torchao", "neural-compressor-pt", "olive-ai", "transformers", "vivace"
)  # fmt: skip
QUICK = race.Effort(time="30s", restarts=1, seconds=3.0, final_seconds=0.0)

NOT_EXHAUSTED = ["channel-pruning", "low-rank", "magnitude-pruning", "sparse-kernels", "instances"]
"""Not in the exhaustive search: their settings multiply with all others, to more than ten thousand plans. The search
with a time limit has them."""


def main() -> None:
    options = parse()
    if options.table:
        print(table.write())
        return
    race.main_thread_only()
    warnings.simplefilter("ignore")
    chosen = QUICK if options.quick else race.Effort(time=options.time)
    known = PEERS if options.device == "cpu" else ON_CARD
    peers = tuple(options.peers or (() if options.ours_again else known))
    effort = dataclasses.replace(chosen, fixed_shapes=options.fixed_shapes, peers=peers, device=options.device)
    compare = functools.partial(compare_with_peers, options.ours_again)
    run_one = functools.partial(exhaustive, options.most_time) if options.exhaustive else compare
    for name in options.only or race.WORKLOADS:
        try:
            run_one(name, effort, options.results, options.again)
        except NotAvailable as error:
            say(f"{name}: left out: {error}")
    if not options.exhaustive:
        print(table.table(table.read_results(options.results)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="2m", help="what vivace.optimize may take (default 2m)")
    parser.add_argument("--only", nargs="+", choices=race.WORKLOADS, metavar="NAME", help="some workloads only")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help="some peers only")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, to see that it works")
    parser.add_argument("--again", action="store_true", help="do again what is already there")
    parser.add_argument(
        "--ours-again", action="store_true", help="do ours again, and of the tools those that --peers names"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where models and inputs lie")
    parser.add_argument("--fixed-shapes", action="store_true", help="allow plans for exactly the shapes measured")
    parser.add_argument("--exhaustive", action="store_true", help="compare --time with a search of every plan")
    parser.add_argument("--most-time", default="1h", help="what that search may take (default 1h)")
    parser.add_argument("--table", action="store_true", help="only write the table into README.md")
    parser.add_argument("--results", type=Path, help="folder of results (default benchmarks/results)")
    options = parser.parse_args()
    options.results = options.results or (race.WORK / "quick" if options.quick else table.RESULTS)
    options.results.mkdir(parents=True, exist_ok=True)
    return options


def compare_with_peers(ours_only: bool, name: str, effort: race.Effort, results: Path, again: bool) -> None:
    """One workload's file, unless it is there; with `ours_only` what is there of the tools stays."""
    file = results / f"workload-{race.WORKLOADS.index(name) + 1:02d}-{name}.json"
    if file.exists() and not (again or ours_only):
        print(f"{name}: already in {file}; --again repeats it", flush=True)
        return
    earlier = json.loads(file.read_text()) if ours_only and file.exists() else None
    keep(file, race.Race.ready(name, effort, say).run(earlier))


def exhaustive(most_time: str, name: str, effort: race.Effort, results: Path, again: bool) -> None:
    """What share of the speed of all plans' best the time limit reached, measured artifact against artifact."""
    file = results / f"exhaustive-{name}.json"
    if file.exists() and not again:
        print(f"{name}: already in {file}; --again repeats it", flush=True)
        return
    ready = race.Race.ready(name, effort, say)
    limited, limited_record = ready.optimize()
    unlimited, unlimited_record = ready.optimize(most_time, exhaustive=True, without=NOT_EXHAUSTED)
    share = race.interval(
        ready.compare(unlimited, limited, "exhaustive", effort.restarts, effort.seconds, effort.final_seconds)
    )
    print(
        f"{name}: {effort.time} reached {share['value']:.1%} of the speed that {unlimited_record['candidates']} plans "
        f"in {unlimited_record['wall_seconds']:.0f} s gave",
        flush=True,
    )
    keep(
        file,
        {
            "workload": name, "limited": limited_record, "unlimited": unlimited_record, "share_reached": share,
            "unlimited_without": NOT_EXHAUSTED,
            "conditions": {"after": environment.snapshot(), "effort": dataclasses.asdict(effort)},
        },
    )  # fmt: skip


def keep(file: Path, found: dict[str, Any]) -> None:
    """Write a whole file or none."""
    document = {"date": f"{datetime.date.today()}", "machine": machine(), **found}
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    beside.replace(file)


def machine() -> dict[str, Any]:
    here = detect()
    versions = ", ".join(f"{package} {installed}" for package in PACKAGES if (installed := version(package)))
    return {"processor": here.processor, "cores": here.cores_allowed, "versions": versions, "details": here.to_json()}


def version(package: str) -> str | None:
    """Which version of a package is installed, if any."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def say(line: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S}  {line}", flush=True)


if __name__ == "__main__":
    main()
