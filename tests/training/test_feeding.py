"""What caches and prefetching promise beside the same batches: refusals with reasons, warm starts, no leftovers."""

from __future__ import annotations

import io
import os
import random
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vivace.core.errors import NotApplicable, UsageError, WorkerFailure
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.technique import Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.search.training.choose import START
from vivace.techniques.feed.crew import Crew
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.feed.sample_prefetch import SamplePrefetch
from vivace.testing.tiny_training import Points, job
from vivace.training.examine import examine
from vivace.training.feed import SampleFeed, feed_of
from vivace.training.feeding.lookahead import PrefetchedFeed
from vivace.training.feeding.transfer import Transfer
from vivace.training.rig import assemble
from vivace.training.service import equip

EITHER = pytest.mark.parametrize("technique", [SampleCache(), SamplePrefetch()], ids=str)
LONG_SECONDS = 20.0


def equipped(work: Training, *techniques: Technique) -> Rig:
    return equip(assemble(work), work, Plan(techniques))


class Tally:
    """Counts; techniques that look at samples leave a job's own counters as they were, and see none in here."""

    __slots__ = ("numbers",)

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def append(self, number: int) -> None:
        self.numbers.append(number)

    def clear(self) -> None:
        self.numbers.clear()


class Counted(Points):
    """Points that remember how often they were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = Tally()

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return super().__getitem__(index)


class Noisy(Points):
    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw

    def __getitem__(self, index: int) -> Any:
        point, label = super().__getitem__(index)
        return point + float(self.draw()), label


@EITHER
@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(()), random.random, np.random.rand, np.random.default_rng(0).random],
    ids=["torch", "python", "numpy", "its own"],
)  # fmt: skip
def test_a_dataset_that_changes_samples_at_random_is_refused_and_draws_nothing(technique: Technique, draw: Any) -> None:
    work = job(data=Noisy(draw))
    rig = assemble(work)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]

    with pytest.raises(NotApplicable, match="changes samples at random; do that in the job's `augment`"):
        technique.equip(rig, work)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[2]) == states[1:]


@EITHER
@pytest.mark.parametrize(
    ("draw", "whose"), [(lambda: 0 * torch.rand(()), "PyTorch"), (lambda: 0 * random.random(), "Python"),
                        (lambda: 0 * np.random.rand(), "NumPy")],
)  # fmt: skip
def test_a_dataset_that_draws_without_need_is_refused_too(technique: Technique, draw: Any, whose: str) -> None:
    work = job(data=Noisy(draw))

    with pytest.raises(NotApplicable, match=f"draws from the global generator of {whose}"):
        technique.equip(assemble(work), work)


@EITHER
def test_batches_without_samples_are_refused(technique: Technique) -> None:
    work = job(data=[(torch.zeros(2, 12), torch.zeros(2, dtype=torch.long))], batch_size=None)

    with pytest.raises(NotApplicable, match="whole batches"):
        technique.equip(assemble(work), work)


@EITHER
def test_data_that_end_early_are_told(technique: Technique) -> None:
    class Short(Points):
        def __len__(self) -> int:
            return 200

        def __getitem__(self, index: int) -> Any:
            if index >= 103:
                raise IndexError(index)
            return super().__getitem__(index)

    work = job(data=Short())

    with pytest.raises(UsageError, match="hold 200 samples"):
        technique.equip(assemble(work), work)


def test_one_epoch_is_not_cached_in_memory() -> None:
    with pytest.raises(NotApplicable, match="every sample is read once"):
        equipped(job(epochs=1), SampleCache())


def test_the_order_of_techniques_is_a_matter_of_facts() -> None:
    assert Plan((SampleCache(), SamplePrefetch())).illegal(START) is None
    assert Plan.of((SamplePrefetch(), SampleCache())) == Plan((SampleCache(), SamplePrefetch()))
    told = Plan((SamplePrefetch(), SampleCache())).illegal(START)
    assert told is not None and "batches that are made when they are asked for, not ahead" in told
    with pytest.raises(NotApplicable, match="prefetched already"):
        equipped(job(), SamplePrefetch(), SampleCache())
    with pytest.raises(NotApplicable, match="one thread is enough"):
        equipped(job(), SampleCache(), SamplePrefetch(workers=2))


def test_a_whole_cache_reads_every_sample_once_and_half_a_cache_half_of_an_epoch() -> None:
    data = Counted()
    whole, half = (equipped(job(data=data), SampleCache(gigabytes=size)) for size in (1.0, 56e-9 * 51.5))
    data.read.clear()

    list(whole.feed.epoch(0))
    assert not len(data.read)
    list(half.feed.epoch(0))
    assert len(data.read) == len(set(data.read.numbers)) == 103 - 51


def test_a_plan_with_half_a_cache_tells_what_each_policy_would_hold() -> None:
    found = examine(job(), lambda rig: equip(rig, job(), Plan((SampleCache(gigabytes=56e-9 * 51.5),))))

    (note,) = [note for note in found.notes if "policy" in note]
    assert "holds 51 of 103 samples, policy pinned" in note
    assert "pinned 49.5% (" in note and "belady 49.5% (" in note and "us an access" in note


def test_a_policy_is_used_as_it_was_replayed() -> None:
    rig = equipped(job(), SampleCache(gigabytes=56e-9 * 51.5, policy="belady"))
    for epoch in range(4):
        list(rig.feed.epoch(epoch))

    samples = rig.feed.samples  # type: ignore[attr-defined]
    assert (samples.hits, samples.accesses) == (3 * 51, 4 * 103)


def test_a_second_run_starts_from_what_the_first_kept_on_the_disk(tmp_path: Path) -> None:
    on_disk = SampleCache(on="disk", least_seconds=0.0, folder=str(tmp_path))
    equipped(job(), on_disk)
    cold = Counted()
    equipped(job(data=cold), on_disk)
    warm = Counted()
    equipped(job(data=warm, seed=3, batch_size=8), on_disk)

    assert len(cold.read) > 103 > 64 > len(warm.read)


def test_samples_that_changed_are_read_again(tmp_path: Path) -> None:
    on_disk = SampleCache(on="disk", least_seconds=0.0, folder=str(tmp_path))
    equipped(job(), on_disk)
    changed = Points()
    changed.points[50] += 1

    rig = equipped(job(data=changed, shuffle=False), on_disk)

    points = torch.cat([batch[0] for batch in rig.feed.epoch(0)])
    assert torch.equal(points, changed.points)


def test_a_damaged_row_is_found_and_made_anew(tmp_path: Path) -> None:
    on_disk = SampleCache(on="disk", least_seconds=0.0, folder=str(tmp_path))
    equipped(job(), on_disk)
    (column,) = tmp_path.glob("*/0")
    with column.open("r+b") as file:
        file.write(b"\xff" * 24)

    rig = equipped(job(shuffle=False), on_disk)

    assert torch.equal(next(rig.feed.epoch(0))[0], Points().points[:16])


def test_what_is_read_quickly_is_not_kept_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="not worth keeping them on the disk"):
        equipped(job(), SampleCache(on="disk", folder=str(tmp_path)))


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop_a_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plan = Plan((SampleCache(on="disk", least_seconds=0.0, folder=str(tmp_path / "file")),))

    with pytest.raises(NotApplicable, match="samples cannot be kept in"):
        equip(assemble(job()), job(), plan)
    rig = equip(assemble(job()), job(), plan, may_lack=(Stage.FEED,))

    assert isinstance(rig.feed, SampleFeed)
    assert rig.lineage == () and "goes on without sample-cache" in rig.notes[0]


def test_batches_are_read_at_once_where_a_dataset_offers_it() -> None:
    class Batched(Points):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            asked.append(len(indices))
            return [self[index] for index in indices]

    asked: list[int] = []
    rig = equipped(job(data=Batched()), SamplePrefetch())
    asked.clear()

    list(rig.feed.epoch(2))

    assert asked == [16] * 6 + [7]


def test_the_next_batches_are_read_while_a_step_computes_and_no_more_than_that() -> None:
    class Gated(Points):
        def __getitem__(self, index: int) -> Any:
            if threading.current_thread() is not threading.main_thread():
                reads.release()
            return super().__getitem__(index)

    reads = threading.Semaphore(0)
    rig = equipped(job(data=Gated(), batch_size=1), SamplePrefetch(workers=1, depth=3))

    next(rig.feed.epoch(0))

    assert all(reads.acquire(timeout=LONG_SECONDS) for _ in range(4))  # the one that was given and three ahead
    assert not reads.acquire(timeout=0.05)


def test_an_error_in_a_thread_is_raised_when_its_batch_is_due() -> None:
    class Broken(Points):
        def __getitem__(self, index: int) -> Any:
            if index == 40:
                raise ValueError("this file is damaged")
            return super().__getitem__(index)

    rig = equipped(job(data=Broken(), shuffle=False), SamplePrefetch(workers=2))
    batches = rig.feed.epoch(0)
    next(batches), next(batches)

    with pytest.raises(ValueError, match="this file is damaged"):
        next(batches)


class Filed(Points):
    """Points that open a file when they are first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.file: Any = None

    def __getitem__(self, index: int) -> Any:
        self.file = self.file or io.BytesIO(bytes(1000))
        self.file.seek(index)
        self.file.read(1)
        return super().__getitem__(index)


def test_an_open_file_is_not_shared_by_several_threads() -> None:
    work = job(data=Filed())

    with pytest.raises(NotApplicable, match="whose place several threads would move"):
        SamplePrefetch(workers=2).equip(assemble(work), work)

    assert next(iter(equipped(work, SamplePrefetch()).feed.epoch(0))) is not None


def test_without_a_home_folder_samples_are_not_kept_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    work = job()

    with pytest.raises(NotApplicable, match="no home folder to keep samples in"):
        SampleCache(on="disk", least_seconds=0.0).equip(assemble(work), work)


ENDS_BUSY = """
import torch
from vivace.training.feeding.lookahead import Threads
def multiply():
    square = torch.ones(300, 300)
    for _ in range(40):
        square = square @ square / 300
threads = Threads(2)
for _ in range(200):
    threads.submit(multiply)
raise KeyboardInterrupt
"""


def test_a_process_that_ends_while_threads_read_is_not_aborted() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS_BUSY], capture_output=True, text=True, timeout=100)

    assert "terminate called" not in done.stderr
    assert done.returncode in (1, -signal.SIGINT)


LEAVES_THREADS = """
import torch
from vivace.training.feeding.lookahead import Threads
threads = Threads(2)
threads.submit(torch.ones, 10).result()
threads.submit(torch.ones, 10).result()
print(torch.get_num_threads())
"""


def test_reading_ahead_leaves_the_training_its_threads() -> None:
    plain = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    expected = subprocess.run(plain, capture_output=True, text=True, timeout=100)

    done = subprocess.run([sys.executable, "-c", LEAVES_THREADS], capture_output=True, text=True, timeout=100)

    assert done.stdout == expected.stdout


def test_threads_end_with_their_feed() -> None:
    before = set(threading.enumerate())
    rig = equipped(job(), SamplePrefetch(workers=2))
    next(rig.feed.epoch(0))
    threads = set(threading.enumerate()) - before

    del rig
    for thread in threads:
        thread.join(LONG_SECONDS)

    assert len(threads) == 2 and not any(thread.is_alive() for thread in threads)


def is_gone(pid: int) -> bool:
    """Whether a process ended, waiting for it for a while."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([watched], [], [], LONG_SECONDS)
    os.close(watched)
    return bool(ended)


def test_a_process_that_dies_is_named_and_nothing_hangs_or_stays() -> None:
    data = Points()
    crew = Crew(1, data, torch.utils.data.default_collate)
    (member,) = crew.members
    points, labels = crew.collect([5, 3])
    os.kill(member.pid, signal.SIGKILL)

    assert torch.equal(points, data.points[[5, 3]]) and labels.tolist() == data.labels[[5, 3]].tolist()
    for _ in range(2):
        with pytest.raises(WorkerFailure, match=f"process {member.pid}.*was killed by SIGKILL while it read samples 1"):
            crew.collect([1])
    crew.close()
    assert is_gone(member.pid)


ORPHANS = """
import os, signal, torch
from vivace.techniques.feed.crew import Crew
from vivace.testing.tiny_training import Points
crew = Crew(1, Points(), torch.utils.data.default_collate)
print(crew.members[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_processes_do_not_outlive_a_parent_that_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=100)

    assert done.returncode == -signal.SIGKILL
    assert is_gone(int(done.stdout))


def test_what_cannot_be_sent_to_processes_is_named_and_threads_work() -> None:
    data = Points()
    data.lock = threading.Lock()  # type: ignore[attr-defined]

    with pytest.raises(NotApplicable, match=r"its attribute 'lock' \(lock\) cannot be pickled"):
        equipped(job(data=data), SamplePrefetch(by="processes"))
    assert isinstance(equipped(job(data=data), SamplePrefetch()).feed, PrefetchedFeed)


class FalseCuda:
    """Streams and events that write down what is done with them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.on = "computing"

    def Stream(self, device: torch.device) -> str:  # noqa: N802
        return "copying"

    def Event(self) -> FalseCuda:  # noqa: N802
        return self

    def record(self, stream: str) -> None:
        self.done.append(f"record on {stream}")

    def stream(self, stream: str) -> FalseCuda:
        self.done.append(f"enter {stream}")
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: Any) -> None:
        self.done.append("leave")

    def current_stream(self, device: torch.device) -> FalseCuda:
        return self

    def wait_event(self, event: Any) -> None:
        self.done.append("computing waits")


def test_a_batch_is_copied_on_a_stream_of_its_own_and_the_computing_one_waits() -> None:
    cuda = FalseCuda()
    sent = Transfer(torch.device("cpu"), cuda).send((torch.arange(3), "name"))
    before = list(cuda.done)
    sent = type(sent)((sent.batch[1],), sent.done, sent.device, cuda)  # no tensor, whose stream only CUDA can record
    received = sent.received()

    assert before == ["enter copying", "record on copying", "leave"]
    assert cuda.done[3:] == ["computing waits"]
    assert received == ("name",)


def test_a_loader_of_an_iterable_does_not_say_how_long_it_is() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(Points())

    feed = feed_of(job(data=torch.utils.data.DataLoader(Stream(), batch_size=16), batch_size=None))

    assert feed.steps() is None
    assert len(list(feed.epoch(0))) == -(-len(Points()) // 16)


@pytest.mark.gpu
def test_batches_arrive_on_the_device_with_the_same_values() -> None:
    def on_device() -> torch.nn.Module:
        return torch.nn.Linear(12, 4).cuda()

    work = job(model=on_device, loss=lambda model, batch: model(batch[0].cuda()).sum())
    rig = equipped(work, SamplePrefetch(workers=2))
    wanted = list(assemble(work).feed.epoch(0))

    found = list(rig.feed.epoch(0))

    assert all(points.is_cuda for points, _ in found)
    assert all(torch.equal(one[0], other[0].cpu()) for one, other in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (SampleCache, {"gigabytes": 0}, "gigabytes=0"),
        (SampleCache, {"on": "tape"}, "allowed are 'memory' and 'disk'"),
        (SampleCache, {"policy": "lruu"}, "did you mean 'lru'"),
        (SampleCache, {"policy": "arc", "on": "disk"}, "is never written again"),
        (SamplePrefetch, {"workers": 0}, "workers=0"),
        (SamplePrefetch, {"by": "fibres"}, "allowed are 'threads' and 'processes'"),
    ],
)
def test_settings_that_cannot_be_are_told(kind: type[Technique], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        kind(**settings)


def test_settings_to_try_depend_on_the_cores() -> None:
    machine = Machine("any", "x86_64", (), 3, 8, 1 << 33, "Linux")

    found = [str(one) for one in SamplePrefetch.variants(None, machine)]  # type: ignore[arg-type]

    assert found == [
        "sample-prefetch", "sample-prefetch(workers=3)", "sample-prefetch(workers=3, by=processes)",
        "sample-prefetch(workers=3, depth=8)",
    ]  # fmt: skip
    assert Fact.FED_ON_DEMAND in SamplePrefetch.breaks
