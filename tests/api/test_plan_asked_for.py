"""The one plan that a user asks for: names, or what results.json holds; anything else is told with what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import vivace as vv
from vivace.api import preview
from vivace.api.request import options_of, plan_of
from vivace.core import registry
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.technique import Effect, Family, Stage, Technique
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


@pytest.mark.parametrize("name", registry.techniques())
def test_every_technique_of_the_catalogue_can_be_asked_for_by_its_name_alone(name: str) -> None:
    (found,) = plan_of([name]).techniques

    assert found.name() == name
    assert plan_of(Plan((found,)).to_json()) == Plan((found,))


def test_threads_alone_are_the_cores_that_this_process_may_use() -> None:
    assert [technique.settings() for technique in plan_of(["threads"])] == [{"count": detect().cores_allowed}]


@dataclasses.dataclass(frozen=True)
class Dimmer(Technique):
    """Somebody else's, with a setting that nobody can guess."""

    level: int
    stage, family, effect, source = Stage.MEMORY, Family.SYSTEM, Effect.EXACT, "toy"


def test_a_setting_that_nothing_stands_for_is_asked_for_in_a_sentence() -> None:
    known = {"dimmer": Dimmer}

    with pytest.raises(
        UsageError, match=r"names dimmer without its setting level, .*\"settings\": \{\"level\": \.\.\.\}"
    ):
        plan_of(["dimmer"], known)
    assert plan_of([{"technique": "dimmer", "settings": {"level": 3}}], known) == Plan((Dimmer(3),))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"plan": ["openvino"], "without": ["openvino"]}, "asks for openvino, which without .* leaves out"),
        ({"plan": ["threads", "onnx-runtime"], "only": ["openvino", "threads"]},
         "asks for onnx-runtime, and only .* allows openvino, threads alone"),
        ({"only": ["openvino", "threads"], "without": ["threads"]}, "threads stands under only .* and under without"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused_by_run_and_dry_run(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.optimize(WORK, **options)
    with pytest.raises(UsageError, match=told):
        preview(WORK, **options)


def test_a_dry_run_of_one_plan_lists_that_plan_alone() -> None:
    found = preview(WORK, plan=["inference-mode", "threads"])

    assert [expected.plan for expected in found.plans] == [plan_of(["inference-mode", "threads"])]
    assert (found.if_refused, found.left_out) == ((), {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keep": ["nothere"]}, "nothere"),
        ({"plan": ["openvino-bfloat16"]}, "the plan openvino-bfloat16 cannot work here"),
    ],
)
def test_a_dry_run_refuses_what_the_model_or_the_machine_cannot_have(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        preview(WORK, **options)


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
