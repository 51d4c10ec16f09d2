"""The one plan that a user asks for: names, or what results.json holds; anything else is told with what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from vivace.api.request import options_of, plan_of
from vivace.core.errors import UsageError
from vivace.core.workload import Workload
from vivace.devices.machine import detect

WORK = Workload(torch.nn.Linear(4, 2), inputs=(torch.zeros(1, 4),))


def test_names_in_any_order_are_a_plan() -> None:
    plan = options_of(WORK, plan=["openvino", "nncf-static-int8"]).plan

    assert plan is not None
    assert [technique.name() for technique in plan.techniques] == ["nncf-static-int8", "openvino"]


def test_settings_may_be_given_or_left_out() -> None:
    plan = options_of(WORK, plan=[{"technique": "threads", "settings": {"count": 1}}, {"technique": "openvino"}]).plan

    assert plan is not None
    assert plan == options_of(WORK, plan=plan.to_json()).plan
    assert "1" in str(plan)


INT8 = ("nncf-static-int8", "onnx-static-int8", "onnx-dynamic-int8", "quantization-aware-training")


@pytest.mark.parametrize(("instructions", "halved"), [(("avx2",), True), (("avx2", "avx512_vnni"), False)])
@pytest.mark.parametrize("name", INT8)
def test_a_name_alone_stands_for_what_this_machine_asks_for(
    name: str, instructions: tuple[str, ...], halved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = dataclasses.replace(detect(), instructions=instructions)
    monkeypatch.setattr("vivace.api.request.detect", lambda: machine)

    (alone,) = plan_of([name]).techniques
    (told,) = plan_of([{"technique": name, "settings": {"reduce_range": not halved}}]).techniques

    assert alone.settings()["reduce_range"] is halved
    assert told.settings()["reduce_range"] is not halved, "what a user says is changed"


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("openvino", "it is a str"),
        ({"technique": "openvino"}, "it is a dict"),
        (7, "it is a int"),
        ([{"name": "openvino"}], "a step is {'name': 'openvino'}"),
        ([{"technique": "openvino", "setings": {}}], "a step is"),
        ([{"technique": "openvino", "settings": 3}], "the settings of openvino are 3"),
        ([{"technique": "openvino", "settings": {"speed": 11}}], "unknown setting of openvino 'speed'. Known: "),
        ([{"technique": "threads", "settings": {"cuont": 1}}], "did you mean 'count'? Known: count"),
        (["openvin"], "did you mean 'openvino'"),
    ],
)
def test_what_is_no_plan_is_told(plan: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        options_of(WORK, plan=plan)

    assert told in str(refused.value)
