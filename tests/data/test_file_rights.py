"""Whoever may read a folder may read every file of an artifact, of a run and of a checkpoint in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.core.structure import Structure
from vivace.data import samples
from vivace.devices.disk import let_others_read
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.training.keeping.model_file import write_model


@pytest.fixture
def umask() -> Iterator[None]:
    """A user whose files others of the group may write, and nobody else may read."""
    before = os.umask(0o007)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, str]:
    """Of every file, by its name."""
    return {one.name: oct(stat.S_IMODE(one.stat().st_mode)) for one in folder.rglob("*") if one.is_file()}


def test_a_trained_model_a_program_and_its_samples_have_the_rights_of_any_new_file(umask: None, tmp_path: Path) -> None:
    x = torch.zeros(2, 3)
    call = Structure("dict", (Structure("tensor"),), ("x",))

    write_model(nn.Linear(3, 2), tmp_path / "model.safetensors")
    store.save(capture(nn.Linear(3, 2).eval(), (x,)).model, tmp_path / "program")
    samples.write(tmp_path / "calls", [[x]], call, 1)

    assert len(rights(tmp_path)) >= 5, rights(tmp_path)
    assert set(rights(tmp_path).values()) == {"0o660"}


def test_giving_a_file_its_rights_leaves_nothing_beside_it(umask: None, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch(mode=0o600)

    let_others_read(file)

    assert rights(tmp_path) == {"a": "0o660"}
