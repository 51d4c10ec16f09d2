"""Where signals are answered stays as it was, whatever engines come and go."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.core.cost import Cost
from vivace.core.work import Work
from vivace.runtimes import openvino_session
from vivace.runtimes.capture import capture
from vivace.runtimes.openvino_graph import to_openvino
from vivace.runtimes.settings.signal_stack import _Stack, kept_signal_stack


def now() -> tuple[int | None, int]:
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.address, found.flags


def test_what_is_set_inside_is_put_back() -> None:
    before, room = now(), ctypes.create_string_buffer(1 << 16)

    with kept_signal_stack():
        assert not ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(ctypes.addressof(room), 0, len(room))), None)
        assert now()[0] == ctypes.addressof(room)

    assert now() == before


def test_engines_that_end_in_another_order_leave_no_stack_that_is_gone(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    captured = capture(nn.Linear(4, 4).eval(), (torch.randn(2, 4),)).model
    work = Work("linear", captured.signature, frozenset(), Cost(0, 0, 0, 0), tmp_path)
    model, before = to_openvino(captured, work), now()

    engines = [openvino_session.load(model) for _ in range(3)]
    while engines:
        engines.pop(0).close()
        gc.collect()

    assert now() == before
