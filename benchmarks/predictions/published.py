"""Reads the published measurements that lie here as what the predictor fits to and is tested on."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vivace.core.prediction.layout import Layout
from vivace.core.prediction.work import Transformer
from vivace.devices.catalog import device
from vivace.devices.prediction.pod_rate import Pod
from vivace.devices.prediction.sharded_scaling import Pair, Shards
from vivace.devices.prediction.step_time import Rates, Run, Vector
from vivace.devices.prediction.training_rate import Trained

HERE = Path(__file__).parent
CARD = "a100-sxm-40"
"""Which A100 vTrain's are is not in its table."""
VOCABULARY = 51200
MPT = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}
"""Layers, width and heads of llm-foundry's models; their weights come out as its table counts them, to 1%."""
MPT_VOCABULARY = 50368
MAXTEXT_SEQUENCE, MAXTEXT_SAMPLES = 2048, (1, 16)
"""Tokens of a sample, and between how many samples a chip took, by the scripts that the tables name."""
CARDS = {"h100_80gb": "h100-sxm", "a100_80gb": "a100-sxm-80", "a100_40gb": "a100-sxm-40"}


@functools.cache
def rates(card: str = CARD) -> Rates:
    """What a card of the catalogue does in bf16."""
    found = device(card)
    flops, memory, link = found.dense_flops("bf16"), found.memory_bytes_per_second, found.link_bytes_per_second
    assert flops and memory and link
    return Rates(flops, memory, link)


@dataclasses.dataclass(frozen=True)
class Steps:
    """Measured steps of vTrain: the runs, and their seconds."""

    runs: tuple[Run, ...]
    seconds: Vector

    def part(self, places: Sequence[int]) -> Steps:
        return Steps(tuple(self.runs[place] for place in places), self.seconds[list(places)])


@functools.cache
def vtrain() -> Steps:
    """All 1,440 steps of one node."""
    with (HERE / "vtrain_single.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [_run({name.strip("# "): value for name, value in row.items()}) for row in rows]
    return Steps(tuple(runs), np.array([float(row["iteration time (ms)"]) / 1e3 for row in rows]))


def _run(row: dict[str, str]) -> Run:
    width, layers = int(row["hidden size"]), int(row["layers"])
    model = Transformer(layers, width, int(row["attention heads"]), int(row["sequence length"]), VOCABULARY)
    axes = [int(row[f"{kind} parallelism"]) for kind in ("data", "tensor", "pipeline")]
    return Run(model, int(row["global batch"]), Layout(*axes, micro_batch=int(row["micro batch"])))


def half_of(run: Run) -> int:
    """0 for the half that the form of the law was chosen on, 1 for the half that it is reported on: by a hash of what
    the table's first ten columns hold, as NumPy shows it."""
    model, axes = run.model, run.layout
    sizes = (axes.devices, run.batch, axes.micro_batch, model.width, model.heads, model.layers, model.sequence)
    text = ", ".join(f"np.float64({float(size)})" for size in (*sizes, axes.tensor, axes.data, axes.pipeline))
    return int(hashlib.sha256(f"({text})".encode()).hexdigest(), 16) % 2


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of llm-foundry's table; `rate` is in tokens a second of one device."""

    model: str
    card: str
    precision: str
    mode: str
    sharding: str
    trained: Trained
    micro_batches: int
    rate: float

    @property
    def samples_per_second(self) -> float:
        return self.rate / self.trained.model.sequence

    @property
    def shards(self) -> Shards:
        keeps = self.sharding == "SHARD_GRAD_OP"
        one = self.trained
        return Shards(one.model.parameters, one.devices, one.micro_batch, self.micro_batches, keeps)

    @property
    def series(self) -> tuple[object, ...]:
        """What is equal along a series: all but counts of devices and batches."""
        return (self.model, self.trained.model.sequence, self.card, self.precision, self.mode, self.sharding,
                self.trained.recompute)  # fmt: skip


@functools.cache
def llm_foundry() -> tuple[Row, ...]:
    """All 216 rows."""
    with (HERE / "llm_foundry.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_row(row) for row in csv.DictReader(file))


def _row(row: dict[str, str]) -> Row:
    layers, width, heads = MPT[row["Model"]]
    model = Transformer(layers, width, heads, int(row["SeqLen (T)"]), MPT_VOCABULARY, name=row["Model"])
    recompute = row["Activation Checkpointing"] == "True"
    trained = Trained(model, int(row["# GPUs"]), int(row["MicroBatchSize"]), recompute)
    return Row(
        row["Model"], row["GPU"], row["Precision"], row["MP Mode"], row["Sharding Strategy"], trained,
        int(row["GradAccum"]), float(row["Throughput (T/s/GPU)"]),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sliced:
    """One row of MaxText's tables: the training, the chips of one slice, and the share of the peak that it reached."""

    pod: Pod
    slice_chips: int
    share: float

    @property
    def chips(self) -> int:
        return self.slice_chips * self.pod.slices


@functools.cache
def maxtext() -> tuple[Sliced, ...]:
    """All 46 rows."""
    with (HERE / "maxtext.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_sliced(row) for row in csv.DictReader(file))


def _sliced(row: dict[str, str]) -> Sliced:
    peak = rates_in_bf16(row["device"])
    pod = Pod(row["device"], float(row["billion_weights"]) * 1e9, int(row["slices"]))
    return Sliced(pod, int(row["chips_a_slice"]), float(row["teraflops_a_chip"]) * 1e12 / peak)


def rates_in_bf16(name: str) -> float:
    """The dense peak of a device of the catalogue."""
    peak = device(name).dense_flops("bf16")
    assert peak
    return peak


def pairs() -> list[tuple[str, str, Pair]]:
    """The smallest count of each series beside each larger one: model, card, and what the law is fitted to."""
    series: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in llm_foundry():
        series[row.series].append(row)
    found = []
    for rows in series.values():
        first, *others = sorted(rows, key=lambda row: (row.trained.devices, row.trained.micro_batch))
        for row in others:
            if row.trained.devices > first.trained.devices:
                pair = (first.shards, first.samples_per_second, row.shards, row.samples_per_second)
                found.append((row.model, row.card, pair))
    return found
