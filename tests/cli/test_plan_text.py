"""A plan is read as reports print it: what is copied from one is tried again."""

import dataclasses

import pytest

from vivace.api.request import plan_of
from vivace.cli.plans import plan_given
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.compile.onnx_runtime import OnnxRuntime
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.precision.onnx_static_int8 import OnnxStaticInt8
from vivace.techniques.precision.torchao_static_int8 import TorchaoStaticInt8
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning

PLANS = [
    Plan((Threads(count=1),)),
    Plan((TorchaoStaticInt8(keep=2), Inductor(freeze=True))),
    Plan((OnnxStaticInt8(method="entropy"), Threads(count=2), OnnxRuntime())),
    Plan((MagnitudePruning(share=0.75), Threads(count=1))),
    Plan((MagnitudePruning(share=0.5, pattern="2:4"),)),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_plan_that_a_report_prints_is_read_back(plan: Plan) -> None:
    named = {technique.name(): technique for technique in plan}
    for technique in plan_of(plan_given(str(plan))):
        told = named.pop(technique.name())
        here = type(told)(**{**told.settings(), **_as_this_machine_asks(told)})
        assert technique == here
    assert not named


def _as_this_machine_asks(told: object) -> dict[str, object]:
    """The settings that are defaults, so that they are not printed, and that this machine sets by itself."""
    from vivace.devices.machine import detect

    asked = type(told).here(detect())  # type: ignore[attr-defined]
    fields = dataclasses.fields(told)  # type: ignore[arg-type]
    return {f.name: asked[f.name] for f in fields if f.name in asked and getattr(told, f.name) == f.default}


def test_names_alone_and_with_settings_stand_side_by_side() -> None:
    assert plan_given("torchao-static-int8,inductor(freeze=True, whole=1.5)") == [
        "torchao-static-int8",
        {"technique": "inductor", "settings": {"freeze": True, "whole": 1.5}},
    ]


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("inductor(freeze=True", "'inductor(freeze=True'"),
        ("threads(count=1)) + openvino", "'threads(count=1)) + openvino'"),
        ("threads;openvino", "'threads;openvino'"),
        ("inductor(freeze)", "the setting 'freeze'"),
        ("inductor(=True)", "the setting '=True'"),
        ("{bad", "JSON that cannot be read"),
    ],
)
def test_what_is_no_plan_is_told_with_what_is_allowed(text: str, received: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_given(text)
    assert received in str(caught.value)
    assert "threads(count=1) + inductor(freeze=True)" in str(caught.value)
