"""What the processes of one training compile: once, or each for itself where the user says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import vivace as vv
from vivace.codegen.build import LIBRARIES
from vivace.devices import machine
from vivace.testing.tiny_training import CLASSES, job

CXX = machine.detect().cxx_compiler
pytestmark = pytest.mark.skipif(not CXX, reason="generated code needs a C++ compiler: install g++")


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, CLASSES))


@pytest.mark.parametrize(("keep", "times"), [(None, 1), ("", 3)], ids=["once", "each"])
def test_a_step_that_is_proved_diagnosed_and_trained_with_is_compiled(
    keep: str | None, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "counting"
    compiler.write_text(f'#!/bin/sh\necho compiled >> "{tmp_path}/log"\nexec "{CXX}" "$@"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    if keep is None:
        monkeypatch.delenv(LIBRARIES, raising=False)
    else:
        monkeypatch.setenv(LIBRARIES, keep)

    run = vv.train(job(model=perceptron), plan=["sample-cache", "native-step"])

    assert "native-step" in str(run.plan)
    assert (tmp_path / "log").read_text().split() == ["compiled"] * times
