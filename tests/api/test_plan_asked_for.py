"""The one plan that a user asks for: names, or what results.json holds; anything else is told with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vivace.api.request import options_of
from vivace.core.errors import UsageError
from vivace.core.workload import Workload

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


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("openvino", "it is a str"),
        ({"technique": "openvino"}, "it is a dict"),
        (7, "it is a int"),
        ([{"name": "openvino"}], "a step is {'name': 'openvino'}"),
        ([{"technique": "openvino", "setings": {}}], "a step is"),
        ([{"technique": "openvino", "settings": 3}], "the settings of openvino are 3"),
        ([{"technique": "openvino", "settings": {"speed": 11}}], "speed"),
        (["openvin"], "did you mean 'openvino'"),
    ],
)
def test_what_is_no_plan_is_told(plan: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        options_of(WORK, plan=plan)

    assert told in str(refused.value)
