"""A fingerprint is the same for the same data and preprocessing, and another as soon as either changes."""

from __future__ import annotations

import collections
import copy
import functools
import os
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vivace.data.fingerprint import fingerprint


def doubled(value: Any) -> Any:
    return value * 2


class Images:
    """A dataset with a function, a constant and files."""

    def __init__(self, folder: Path, scale: float = 1.0) -> None:
        self.files = sorted(str(path) for path in folder.iterdir())
        self.scale = scale
        self.labels = torch.arange(3)
        self.table = {"mean": np.zeros(3)}
        self.me = self  # a circle

    def __getitem__(self, index: int) -> Any:
        return doubled(self.scale * len(Path(self.files[index]).read_bytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / name).write_text(name)
    return tmp_path


def test_two_datasets_that_are_alike_have_one_fingerprint(folder: Path) -> None:
    assert fingerprint(Images(folder)) == fingerprint(copy.deepcopy(Images(folder)))


def test_state_arrays_tensors_and_settings_count(folder: Path) -> None:
    labelled, averaged = Images(folder), Images(folder)
    labelled.labels[1] = 7
    averaged.table["mean"][2] = 0.5

    found = [fingerprint(data) for data in (Images(folder), Images(folder, 2.0), labelled, averaged)]

    assert len(set(found)) == 4


def test_a_file_that_changed_counts_although_its_name_and_size_are_the_same(folder: Path) -> None:
    before = fingerprint(Images(folder))

    (folder / "b").write_text("x")
    os.utime(folder / "b", ns=(0, 1))

    assert fingerprint(Images(folder)) != before


def test_files_in_a_folder_that_the_state_names_count(folder: Path) -> None:
    before = fingerprint({"root": str(folder)})

    (folder / "d").write_text("new")

    assert fingerprint({"root": str(folder)}) != before


def test_the_code_of_a_function_that_a_method_calls_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Images(folder))

    monkeypatch.setitem(globals(), "doubled", lambda value: value * 3)

    assert fingerprint(Images(folder)) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(doubled, 1), functools.partial(doubled, 2)),
        (np.sin, np.cos),
        (lambda x: x + 1, lambda x: x + 2),
        (torch.zeros(4), torch.zeros(2, 2)),
        ([1, [2]], [1, 2]),
        (b"1", "1"),
    ],
    ids=["partial", "ufunc", "lambda", "shape", "nesting", "type"],
)
def test_what_differs_has_another_fingerprint(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_a_function_of_a_module_of_the_users_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = types.ModuleType("own_transforms")
    own.__file__ = "own_transforms.py"
    own.__dict__["decode"] = lambda value: value + 1
    monkeypatch.setitem(globals(), "own_transforms", own)
    read = eval("lambda value: own_transforms.decode(value)", globals())
    before = fingerprint(read)

    own.__dict__["decode"] = lambda value: value + 2

    assert fingerprint(read) != before


def test_files_in_a_folder_without_a_separator_in_its_name_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("one")
    before = fingerprint({"root": "photos"})

    (tmp_path / "photos" / "1.jpg").write_text("other")

    assert fingerprint({"root": "photos"}) != before


def test_a_separator_in_code_is_not_taken_for_the_folder_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "walk", lambda folder: pytest.fail(f"walked {folder}"))

    fingerprint(lambda path: path.split("/")[-1])


class Named(list[int]):
    """A list with something of its own."""

    scale = 1


def scaled(scale: int) -> Named:
    named = Named([1])
    named.scale = scale
    return named


def either(first: Any, second: Any) -> Any:
    return lambda value: first if value else second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (range(3), range(1, 4)),
        (bytearray(b"a"), bytearray(b"b")),
        (collections.deque([1]), collections.deque([2])),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
        (torch.eye(2).to_sparse(), torch.ones(2, 2).to_sparse()),
        (torch.full((2,), 1j).conj(), torch.full((2,), 1j)),
        (scaled(1), scaled(2)),
        (either(None, 1), either(1, None)),
    ],
    ids=["range", "bytearray", "deque", "generator", "mask", "sparse", "conjugate", "own list", "closure"],
)
def test_what_is_kept_in_c_or_beside_python_s_own_classes_counts(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(copy.deepcopy(one))


def test_a_label_that_changed_in_a_table_counts() -> None:
    pandas = pytest.importorskip("pandas")

    def labels(last: int) -> Any:
        return pandas.DataFrame({"name": ["a", "b"], "label": [1, last]})

    assert fingerprint(labels(2)) == fingerprint(labels(2))
    assert fingerprint(labels(2)) != fingerprint(labels(3))
