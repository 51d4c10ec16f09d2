"""Records that are read back, and plans that are given: none may stop a search or ask for what no technique offers."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from attacks import forging, records
from vivace.api.request import options_of
from vivace.cli.plans import plan_given
from vivace.core.documents import strict_json
from vivace.core.errors import UsageError
from vivace.core.registry import techniques
from vivace.core.workload import Workload
from vivace.devices import ceiling_store
from vivace.search.journal import Journal, read_journal
from vivace.search.run import open_journal
from vivace.search.trials import readable_trial, trial_to_json


def line(body: bytes) -> bytes:
    """A journal's line whose checksum is right."""
    return b"%08x %s\n" % (zlib.crc32(body), body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b'{"kind": 3}', b'{"kind": "trial"', b'{"kind": "trial", "kind": "header"}',
        b'{"kind": "trial", "x": NaN}', b'{"kind": "trial", "x": 1e999}', b"[" * 100_000, b"\xff\xfe",
        b'{"kind": "trial", "x": ' + b'{"a":' * 90 + b"1" + b"}" * 91,
    ],
)  # fmt: skip
def test_a_journal_ends_before_a_line_that_no_search_wrote(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line(b'{"kind": "header", "n": 1}') + line(body) + line(b'{"kind": "trial", "n": 2}'))

    with Journal(path) as journal:
        journal.append({"kind": "trial", "n": 3})

    assert [record["n"] for record in read_journal(path)] == [1, 3]


def test_what_follows_a_line_that_is_spelt_in_another_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line(b'{  "n":1,   "kind":"header"  }') + line(b'{"kind": "trial", "n": 2}'))

    with Journal(path) as journal:
        journal.append({"kind": "trial", "n": 3})

    assert [record["n"] for record in read_journal(path)] == [1, 2, 3]


def test_an_honest_trial_is_read() -> None:
    assert readable_trial(json.loads(json.dumps(trial_to_json(records.trial()))), techniques()) == records.trial()


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": None}, {"plan": [{}]}, {"plan": [{"technique": "no-such", "settings": {}}]}, {"outcome": "won"},
        {"plan": [{"technique": "threads", "settings": {"count": [2]}}]},
        {"plan": [{"technique": "threads", "settings": {"count": -1}}]},
        {"plan": [{"technique": "threads", "settings": {"run": "x"}}]},
        {"plan": [{"technique": ["threads"], "settings": {}}]}, {"plan": [{"technique": "threads", "settings": 3}]},
        {"stage": 3}, {"speedup": {"value": 1.0, "low": 2.0, "high": 3.0}}, {"speedup": [1]}, {"quality": {"x": 1}},
        {"standing": "fast"}, {"build_seconds": None}, {"reason": 3}, {"size_bytes": 1.5},
    ],
)  # fmt: skip
def test_a_trial_that_cannot_be_read_is_tried_anew(changes: dict[str, Any]) -> None:
    assert readable_trial({**trial_to_json(records.trial()), **changes}, techniques()) is None


@pytest.mark.parametrize("header", [{"kind": "header"}, {"kind": "header", "identity": 3}])
def test_a_journal_of_nobodys_job_is_not_gone_on_with(tmp_path: Path, header: dict[str, Any]) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(header)

    with pytest.raises(UsageError, match="had another job"):
        open_journal(tmp_path, {"job": "mine"}, resume=True)


@pytest.mark.parametrize(
    "ceilings",
    [
        '[{"threads": 1, "gflops": {"f32": NaN}, "copy_gigabytes_per_second": 1}]',
        '[{"threads": 1, "gflops": {"f32": Infinity}, "copy_gigabytes_per_second": 1}]',
        '[{"threads": 1, "gflops": {"f32": 1e999}, "copy_gigabytes_per_second": 1}]',
        '[{"threads": 1, "gflops": {"f32": 1.0}, "copy_gigabytes_per_second": 1' + "0" * 400 + "}]",
        '[{"threads": 1, "gflops": {"f32": "inf"}, "copy_gigabytes_per_second": 1}]',
        '[{"threads": 1, "gflops": {"f32": 1}, "copy_gigabytes_per_second": -1}]',
        '[{"threads": 1, "gflops": [1], "copy_gigabytes_per_second": 1}]',
        "[" * 100_000,
        "{" * 100_000,
    ],
)
def test_ceilings_that_were_never_measured_are_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ceilings: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ceiling_store.keep(records.MACHINE)
    (path,) = ceiling_store.cache_folder().iterdir()
    path.write_text(f'{{"schema": 1, "ceilings": {ceilings}}}')

    assert ceiling_store.kept(records.MACHINE) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"technique": "thread", "settings": {}}]', "unknown technique 'thread'; did you mean 'threads'"),
        ('["os.system"]', "unknown technique 'os.system'"),
        ('[{"technique": "threads", "settings": {"count": [1]}}]', "the setting count of threads is"),
        ('[{"technique": "threads", "settings": {"count": 0}}]', "count=0"),
        ('[{"technique": "threads", "settings": {"command": "x"}}]', "unknown setting of threads 'command'"),
        ('[{"technique": "threads", "settings": {"count": NaN}}]', "NaN is no finite number"),
        ('[{"technique": "threads", "technique": "openvino", "settings": {}}]', "given twice"),
        ("[" * 100_000, "nested more than 64 levels"),
        ('{"plan": 1}', "it is a dict"),
        ("[[]]", r"a step is \[\]"),
    ],
)
def test_a_plan_that_names_what_is_not_there_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options_of(Workload(forging.network(), inputs=(1,)), plan=plan_given(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' is given twice"),
        ("[NaN]", "NaN is no finite number"),
        ("[-1e400]", "-1e400 is no finite number"),
        ("[" * 65 + "1" + "]" * 65, "nested more than 64 levels"),
        ('["\\udc80"]', "surrogates"),
        ('{"\\ud800": 1}', "surrogates"),
    ],
)
def test_json_is_read_strictly(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_json.loads(text)


def test_json_that_people_and_programs_write_is_read() -> None:
    text = '{"a": [1, -2.5e3, true, null, "\\ud83d\\ude00"], "b": ' + "[" * 60 + "]" * 60 + "}"

    assert strict_json.loads(text) == json.loads(text)
    assert strict_json.load(io.BytesIO(text.encode())) == json.loads(text)
