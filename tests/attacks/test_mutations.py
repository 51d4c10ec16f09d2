"""Whatever is changed in a file from outside: it is read, or one of Vivace's own errors says why not; nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attacks import fuzz, records
from attacks.forging import copy, reseal
from attacks.mutations import mutated_bytes, mutated_json, mutated_text
from vivace.artifact.load import load
from vivace.core.documents import strict_json
from vivace.core.errors import VivaceError
from vivace.core.registry import techniques
from vivace.devices import ceiling_store
from vivace.search.journal import Journal
from vivace.search.trials import readable_trial

QUICK = settings(
    max_examples=60,
    deadline=5000,  # milliseconds; the slowest honest file takes fifty
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-1e9, 1e9)
RANDOM = st.randoms(use_true_random=False)


@pytest.fixture
def workplace(honest: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of an honest artifact, for changes one after the other."""
    return copy(honest["torch"], tmp_path / "fast")


def read_or_refused(folder: Path) -> None:
    """Load an artifact, its digests made right; only Vivace's own errors may come of it."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        reseal(folder)  # impossible where the manifest itself was changed
    with warnings.catch_warnings(), contextlib.suppress(VivaceError):
        warnings.simplefilter("ignore")
        load(folder)


def spoil(folder: Path, name: str, mutate: Callable[[bytes, Random], bytes], random: Random) -> None:
    path = folder / name
    before = {one: (folder / one).read_bytes() for one in (name, "manifest.json")}
    path.write_bytes(mutate(before[name], random))
    try:
        read_or_refused(folder)
    finally:
        for one, content in before.items():
            (folder / one).write_bytes(content)


@pytest.mark.parametrize("name", ["manifest.json", "program/program.json", "golden/calls.json"])
@QUICK
@given(random=RANDOM)
def test_a_changed_document_is_read_or_refused(workplace: Path, name: str, random: Random) -> None:
    spoil(workplace, name, mutated_text, random)


@pytest.mark.parametrize(
    "name", ["golden/calls.safetensors", "golden-outputs.safetensors", "program/example.safetensors"]
)
@QUICK
@given(random=RANDOM)
def test_a_changed_header_of_tensors_is_read_or_refused(workplace: Path, name: str, random: Random) -> None:
    def header(data: bytes, random: Random) -> bytes:
        size = int.from_bytes(data[:8], "little")
        text = json.dumps(mutated_json(json.loads(data[8 : 8 + size]), random)).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    spoil(workplace, name, header, random)


@pytest.mark.parametrize("name", ["golden/calls.safetensors", "golden-outputs.safetensors", "program/model.pt2"])
@QUICK
@given(random=RANDOM)
def test_changed_bytes_are_read_or_refused(workplace: Path, name: str, random: Random) -> None:
    spoil(workplace, name, mutated_bytes, random)


@QUICK
@given(random=RANDOM)
def test_a_changed_graph_is_read_or_refused(workplace: Path, random: Random) -> None:
    spoil(workplace, "program/model.pt2", fuzz.mutated_graph, random)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a journal, a plan and ceilings."""
    records.write(tmp_path / "records")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "records"))
    return tmp_path / "records"


@QUICK
@given(random=RANDOM)
def test_a_changed_journal_is_read_up_to_the_change(kept: Path, random: Random) -> None:
    path = kept / "changed.jsonl"
    path.write_bytes(fuzz.mutated_journal((kept / "journal.jsonl").read_bytes(), random))

    with Journal(path) as journal:
        for record in journal.of_kind("trial"):
            readable_trial(record.get("trial"), techniques())

    lines = path.read_bytes().splitlines(keepends=True)
    assert all(line[:8] == b"%08x" % zlib.crc32(line[9:-1]) for line in lines)


@QUICK
@given(random=RANDOM)
def test_changed_ceilings_are_believed_whole_or_not_at_all(kept: Path, random: Random) -> None:
    (path,) = kept.rglob("*-torch-*.json")
    honest = path.read_bytes()
    path.write_bytes(mutated_text(honest, random))

    found = ceiling_store.kept(records.MACHINE)

    path.write_bytes(honest)
    rates = [rate for one in found for rate in (*one.gflops.values(), one.copy_gigabytes_per_second)]
    assert all(0 < rate < float("inf") for rate in rates)


@QUICK
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)))
def test_strict_reading_gives_what_plain_reading_gives(value: object) -> None:
    assert strict_json.loads(json.dumps(value)) == value


@QUICK
@given(st.text(alphabet='{}[]",:0123456789.eE+-NaInfty\\u \n'))
def test_strict_reading_of_any_text_gives_a_value_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        strict_json.loads(text)


def test_changes_come_in_every_kind(kept: Path) -> None:
    document = [{"a": 1, "b": [1, 2]}, {"c": "x"}]
    changed = [json.dumps(mutated_json(document, Random(seed))) for seed in range(200)]

    assert len(set(changed)) > 50
    assert len({len(mutated_bytes(b"x" * 100, Random(seed))) for seed in range(200)}) > 20
    assert os.environ["XDG_CACHE_HOME"] == str(kept)


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_in_twenty_seconds() -> None:
    cases, findings = fuzz.fuzz(20.0, seed=20_261_121)

    assert findings == []
    assert cases > 100


@pytest.mark.slow
def test_the_fuzzer_tells_a_crash_a_hang_and_an_error_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 3.0)
    child = fuzz.Child()
    try:
        said = [child.read(f"planted/{fault}", 1) for fault in ("crash", "hang", "error")]
        fine = child.read("journal", 1)
    finally:
        child.stop()

    assert "ended with -11" in said[0]
    assert "took more than 3 s" in said[1]
    assert said[2].startswith("ZeroDivisionError")
    assert fine == "fine"
